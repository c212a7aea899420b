"""The file format of all data sets, written: complete or not at all, and resumable.

Rows go to `NAME.h5.partial`, which is flushed together with the number of rows, so an interrupted
preparation resumes after them; a finished file is closed, synced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import SPACE, cannot_write, ensure_folder, lock_file, sync
from sri_cli.data.dataset import SCHEMA, SPLITS, hash_of, reason_of
from sri_cli.errors import SriError, SriFailure

MASK_CHUNK_BYTES = 2**17
FACTOR_BYTES = 1024  # about, of an image and HDF5's book-keeping
SPARE_BYTES = 2**20
MAX_SKIPPED_NAMES = 100  # an attribute holds at most 64 KB


@dataclass(frozen=True)
class Header:
    """What a data file is and how it was made, in its root attributes."""

    name: str
    size: int  # pixels
    source: str  # original, mirror, simulated, folder
    background_labels: int
    parameters: Mapping[str, Any]  # of the source, as JSON can hold them; the seed, if any
    preprocessing: str
    counts: Mapping[str, int] = field(default_factory=dict)  # images in train, val, test
    skipped: tuple[str, ...] = ()  # files of the source that could not be read
    scene_rule: str = ""  # how images were grouped into scenes, if the source does not say
    void_label: int | None = None  # of pixels that count nowhere
    notes: tuple[str, ...] = ()  # what the source's survey found
    lossy: Mapping[str, int] = field(default_factory=dict)  # images from lossy files, by split

    def attrs(self) -> dict[str, Any]:
        """The root attributes of an unfinished file."""
        lossy = [self.lossy.get(name, 0) for name in SPLITS]
        attrs = {
            "schema": SCHEMA,
            "name": self.name,
            "size": self.size,
            "source": self.source,
            "background_labels": self.background_labels,
            "parameters": json.dumps(dict(self.parameters), sort_keys=True),
            "preprocessing": self.preprocessing,
            "counts": json.dumps([self.counts[name] for name in SPLITS]),
            "skipped": len(self.skipped),
            "skipped_files": json.dumps(self.skipped[:MAX_SKIPPED_NAMES], ensure_ascii=False),
            "tool_version": __version__,
            "complete": False,
            "scene_rule": self.scene_rule or None,
            "void_label": self.void_label,
            "notes": json.dumps(self.notes, ensure_ascii=False) if self.notes else None,
            "lossy_files": json.dumps(lossy) if any(lossy) else None,
            "seed": self.parameters.get("seed"),
        }
        return {name: value for name, value in attrs.items() if value is not None}


class DataFileWriter:
    """Writes one data file; a context manager.

    `rows` counts the rows saved in each split. An unfinished file of the same header is resumed,
    one of something else is replaced (`replaces_other`). If entering fails, say on a full disk, an
    unfinished file stays as it was. Leaving without `finish` keeps the rows so far, unless the disk
    refused them or the source is faulty (a user error).
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.partial = path.with_name(path.name + ".partial")
        self.rows = dict.fromkeys(SPLITS, 0)
        self.discarded = 0
        self.replaces_other = False
        self._refused = False
        self._size_before = 0  # bytes of an unfinished file; 0 also once that is given up

    def __enter__(self) -> DataFileWriter:
        ensure_folder(self.path.parent)
        if self.path.is_dir():
            raise SriFailure(f"could not write {self.path}: it is a folder", "choose another --out")
        with self._writing():
            self._lock = lock_file(self.partial)
        self._size_before = os.fstat(self._lock).st_size
        try:
            with self._writing():
                self._reserve()
                if not self._resume():
                    self._begin()
        except BaseException:
            if self._size_before:
                os.ftruncate(self._lock, self._size_before)
            else:
                self.partial.unlink(missing_ok=True)
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any):  # type: ignore[no-untyped-def]
        try:
            with contextlib.suppress(*([Exception] if self._refused else [])):
                self._close()
        finally:
            faulty = isinstance(error, SriError) and error.exit_code == 2
            if self._refused or faulty or not any(self.rows.values()):
                self.partial.unlink(missing_ok=True)  # none is left after `finish`
            os.close(self._lock)

    def append(
        self,
        split: str,
        images: NDArray[np.uint8],
        masks: NDArray[np.uint8] | None,
        factors: Mapping[str, NDArray[Any]],
        discarded: int = 0,
    ) -> None:
        """Add rows to a split and flush; images [B,H,W,3], masks [B,H,W], factors [B,...]."""
        group = self.file[split]
        start, stop = self.rows[split], self.rows[split] + len(images)
        with self._writing():
            parts = {"images": images} | ({} if masks is None else {"masks": masks})
            for name, values in factors.items():  # HDF5 has no fixed-length Unicode
                text = values.dtype.kind == "U"
                parts[f"factors/{name}"] = values.astype("S") if text else values
            for name, values in parts.items():
                if name not in group:
                    self._create(group, name, values)
                group[name][start:stop] = values
            # The counts go to disk only after the rows they count, also in a power cut.
            self.file.flush()
            os.fsync(self._lock)
            group.attrs["rows"] = stop
            self.file.attrs["discarded"] = self.discarded + discarded
            self.file.flush()
        self.rows[split] = stop
        self.discarded += discarded

    def finish(self) -> None:
        """Complete the file and give it its name."""
        if self.rows != dict(self.header.counts):
            raise ValueError(f"{self.rows} rows of {dict(self.header.counts)}")
        with self._writing():
            images = [self.file[name]["images"] for name in SPLITS if self.rows[name]]
            self.file.attrs["sha256"] = hash_of(images)
            self.file.attrs["complete"] = True
            self._close()
            os.fsync(self._lock)
            os.replace(self.partial, self.path)
            sync(self.path.parent)

    def _reserve(self) -> None:
        """Allocate the whole file on the disk now: HDF5 crashes after a write that failed.

        `_close` cuts off what was not needed.
        """
        area = self.header.size**2
        needed = SPARE_BYTES + sum(self.header.counts.values()) * (4 * area + FACTOR_BYTES)
        check_space(self.partial, needed - os.fstat(self._lock).st_blocks * 512)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._lock, 0, needed)
            except OSError as error:  # not every file system can
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise

    def _close(self) -> None:
        """Close the file and cut off the space it did not need."""
        if self.file:
            self.file.flush()
            used = self.file.id.get_filesize()
            self.file.close()
            os.ftruncate(self._lock, min(used, os.fstat(self._lock).st_size))

    def _resume(self) -> bool:
        """Open an unfinished file of the same header; False when there is none."""
        if not self._size_before:
            return False
        self.replaces_other = True
        try:
            file = h5py.File(self.partial, "r+", locking=False)
        except OSError:
            return False
        mine = {key: value for key, value in self.header.attrs().items() if key != "complete"}
        try:
            attrs = dict(file.attrs)
            rows = {split: int(file[split].attrs["rows"]) for split in SPLITS}
            same = mine.items() <= attrs.items()
        except Exception:  # it is damaged, which h5py reports in many ways, or has not begun
            same = False
        if not same:
            file.close()
            return False
        self.file, self.rows, self.discarded = file, rows, attrs["discarded"]
        self.replaces_other = False
        return True

    def _begin(self) -> None:
        """An empty file with its header."""
        self._size_before = 0
        self.file = h5py.File(self.partial, "w", locking=False)
        self._reserve()  # again: opening it has emptied it
        for name, value in (self.header.attrs() | {"discarded": 0}).items():
            self.file.attrs[name] = value
        for name in SPLITS:
            self.file.create_group(name).attrs["rows"] = 0
        self.file.flush()

    def _create(self, group: h5py.Group, name: str, values: NDArray[Any]) -> None:
        """A dataset for all rows of a split; only masks are compressed, the rest can be mapped."""
        count = self.header.counts[group.name.strip("/")]
        shape = (count, *values.shape[1:])
        how: dict[str, Any] = {}
        if name == "masks":
            row_bytes = values.shape[1] * values.shape[2]
            rows = min(count, max(1, MASK_CHUNK_BYTES // row_bytes))
            how = {"chunks": (rows, *shape[1:]), "compression": "gzip"}
        group.create_dataset(name, shape, values.dtype, **how)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of HDF5 and of the system as SriFailure."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._refused = True
            number = getattr(error, "errno", None) or 0
            raise cannot_write(self.path, OSError(number, reason_of(error))) from error


def check_space(path: Path, num_bytes: int) -> None:
    """SriFailure when the disk of `path` does not have so many bytes free."""
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < num_bytes:
        raise SriFailure(
            f"could not write {path}: {num_bytes / 1e6:,.0f} MB are needed,"
            f" {free / 1e6:,.0f} MB are free",
            SPACE,
        )
