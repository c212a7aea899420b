"""`NAME.part`: a file that is still coming, held for one process, and what it is a part of."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, ensure_folder, lock_file, sync_folder, write_atomic
from sri_cli.errors import SriFailure

SPARE_BYTES = 64 * 2**20  # to be left free on the disk


@dataclass(frozen=True)
class Origin:
    """Which version of which file the bytes are of; None: the server does not say."""

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None  # bytes

    @property
    def validator(self) -> str | None:
        """What If-Range may say: a strong ETag, else the date."""
        weak = self.etag is None or not self.etag.startswith('"')
        return self.modified if weak else self.etag

    def contradicts(self, other: Origin) -> bool:
        """Whether both say something and not the same."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(a is not None and b is not None and a != b for a, b in pairs)


def origin_of(url: str, response: HTTPResponse, total: int | None) -> Origin:
    """The version that an answer is of."""
    get = response.headers.get
    return Origin(url, plain(get("ETag")), plain(get("Last-Modified")), total)


def plain(text: Any) -> str | None:
    """A header that can be sent back as it came; it may have come from a file since."""
    good = isinstance(text, str) and text.isascii() and text.isprintable() and 0 < len(text) < 1000
    return text if good else None


class PartFile:
    """The part of `path` that is here; use as a context manager.

    Its bytes are always the first `size` of the file that `origin` names, whenever the process
    dies. Leaving keeps them, unless there are none. SriError when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.target = path
        self.path = path.with_name(path.name + ".part")
        self.notes = path.with_name(path.name + ".part.json")
        self.origin: Origin | None = None
        self.size = 0  # bytes

    def __enter__(self) -> PartFile:
        ensure_folder(self.target.parent)
        try:
            self._file = lock_file(self.path, "downloading", "wait for it")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.size = os.fstat(self._file).st_size
        self.origin = self._remembered()
        return self

    def __exit__(self, *_: object) -> None:
        # Only the holder of the lock may remove, so before it is let go. What was renamed is not
        # here any more.
        with contextlib.suppress(OSError):
            if self.size == 0:
                self.notes.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
        os.close(self._file)

    def begin(self, origin: Origin) -> None:
        """Throw away what is here: bytes of `origin` come now."""
        self.discard()
        self.origin = origin
        write_atomic(self.notes, json.dumps(asdict(origin)).encode())

    def discard(self) -> None:
        """Throw away what is here."""
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.origin, self.size = None, 0

    def write(self, block: bytes) -> None:
        """Add a block at the end; SriFailure when the disk will not take it."""
        rest = memoryview(block)
        while rest:
            try:
                written = os.pwrite(self._file, rest, self.size)
            except OSError as error:
                raise cannot_write(self.path, error) from error
            self.size += written
            rest = rest[written:]

    def check_room(self, total: int) -> None:
        """SriFailure when what is missing of `total` bytes would leave less than the spare room."""
        needed = total - self.size + SPARE_BYTES
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise SriFailure(
                f"could not write {self.path}: {needed / 1e9:,.2f} GB are needed,"
                f" {free / 1e9:,.2f} GB are free",
                "free some space or choose another folder",
            )

    def sync(self) -> None:
        """All that was written is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def finish(self) -> None:
        """Give the whole file its name."""
        try:
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)
            self.notes.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.target, error) from error

    def _remembered(self) -> Origin | None:
        """What the notes beside it say; None when there is nothing to rely on."""
        try:
            notes = json.loads(self.notes.read_bytes())
            origin = Origin(**notes)
            whole = origin.total is None or isinstance(origin.total, int)
            texts = [
                text for text in (origin.url, origin.etag, origin.modified) if text is not None
            ]
            return origin if whole and texts == [plain(text) for text in texts] else None
        except (OSError, ValueError, TypeError, RecursionError):
            return None
