"""The one file format of all data sets, written: whole or not at all, and resumable.

Rows go to `NAME.h5.partial`, which is flushed together with the number of rows done, so that an
interrupted preparation goes on from there; a finished file is closed, fsynced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import cannot_write, ensure_folder, lock_file, sync_folder
from sri_cli.data.dataset import SCHEMA, SPLITS, as_python, hash_of, reason_of
from sri_cli.errors import SriError, SriFailure

MASK_CHUNK_BYTES = 2**20
FACTOR_BYTES = 1024  # an image, about, and the file's own book-keeping
SPARE_BYTES = 2**20
MAX_SKIPPED_NAMES = 100  # an attribute holds 64 KB


@dataclass(frozen=True)
class Header:
    """What a data file is: enough to make it again."""

    name: str
    size: int  # pixels
    source: str  # original, mirror, simulated, folder
    background_labels: int
    parameters: Mapping[str, Any]  # of the source, as JSON can hold them; the seed, if any
    preprocessing: str
    counts: Mapping[str, int] = field(default_factory=dict)  # images in train, val, test
    skipped: tuple[str, ...] = ()  # files of the source that could not be read
    scene_rule: str = ""  # how images were found to be of one scene; empty: it was known

    def attrs(self) -> dict[str, Any]:
        """As root attributes; without a seed where nothing was drawn or shuffled."""
        known: dict[str, Any] = {"scene_rule": self.scene_rule} if self.scene_rule else {}
        if "seed" in self.parameters:
            known["seed"] = self.parameters["seed"]
        return {
            "schema": SCHEMA,
            "name": self.name,
            "size": self.size,
            "source": self.source,
            "background_labels": self.background_labels,
            "parameters": json.dumps(dict(self.parameters), sort_keys=True),
            "preprocessing": self.preprocessing,
            "counts": json.dumps([self.counts[name] for name in SPLITS]),
            "skipped": len(self.skipped),
            "skipped_files": json.dumps(self.skipped[:MAX_SKIPPED_NAMES]),
            "tool_version": __version__,
            "complete": False,
            **known,
        }

    def is_of(self, attrs: Mapping[str, Any]) -> bool:
        """Whether a file with these attributes is of this header, whatever its counts."""
        unknown = ("complete", "counts", "skipped", "skipped_files")
        nothing = replace(self, counts=dict.fromkeys(SPLITS, 0)).attrs()
        wanted = {key: value for key, value in nothing.items() if key not in unknown}
        return wanted.items() <= attrs.items()


class StoreWriter:
    """Writes one data file; use as a context manager.

    `rows` counts the rows that are safe in each split. What was begun with the same header is
    gone on with; `started_anew` says that something else lay there. Entering that fails, on a full
    disk say, leaves what was begun as it was. Leaving without `finish` keeps the rows written so
    far, except when the disk refused them or the source is faulty (exit code 2; what was read may
    be mended, too): then nothing stays.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.partial = path.with_name(path.name + ".partial")
        self.rows = dict.fromkeys(SPLITS, 0)
        self.discarded = 0
        self.started_anew = False
        self._finished = self._refused = False
        self._size_before = 0  # bytes of what was begun earlier; 0 also once that is given up

    def __enter__(self) -> StoreWriter:
        ensure_folder(self.path.parent)
        if self.path.is_dir():
            raise SriFailure(f"could not write {self.path}: it is a folder", "choose another --out")
        with self._writing():
            self._lock = lock_file(self.partial)
        self._size_before = os.fstat(self._lock).st_size
        try:
            with self._writing():
                self._reserve()
                if not self._take_up():
                    self._begin()
        except BaseException:
            self._leave_as_it_was()
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any):  # type: ignore[no-untyped-def]
        try:
            with contextlib.suppress(*([Exception] if self._refused else [])):
                self._close()
        finally:
            faulty = isinstance(error, SriError) and error.exit_code == 2
            useless = self._refused or faulty or not any(self.rows.values())
            if not self._finished and useless:
                self.partial.unlink(missing_ok=True)
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
            parts |= {f"factors/{name}": storable(values) for name, values in factors.items()}
            for name, values in parts.items():
                if name not in group:
                    self._create(group, name, values)
                group[name][start:stop] = values
            # The counts go to disk only after the rows they count.
            self.file.flush()
            group.attrs["rows"] = stop
            self.file.attrs["discarded"] = self.discarded + discarded
            self.file.flush()
        self.rows[split] = stop
        self.discarded += discarded

    def finish(self) -> None:
        """Seal the file and give it its name."""
        if self.rows != dict(self.header.counts):
            raise ValueError(f"{self.rows} rows of {dict(self.header.counts)}")
        with self._writing():
            self.file.attrs["sha256"] = hash_of([self.file[name]["images"] for name in SPLITS])
            self.file.attrs["complete"] = True
            self._close()
            os.fsync(self._lock)
            os.replace(self.partial, self.path)
            sync_folder(self.path.parent)
        self._finished = True

    def _reserve(self) -> None:
        """Take all the room on the disk now: after a write that failed, HDF5 cannot be used any
        more in this process, it crashes. `_close` gives back what was too much."""
        area = self.header.size**2
        wanted = SPARE_BYTES + sum(self.header.counts.values()) * (4 * area + FACTOR_BYTES)
        check_space(self.partial, wanted - os.fstat(self._lock).st_blocks * 512)
        reserve(self._lock, wanted)

    def _leave_as_it_was(self) -> None:
        """Rows of an earlier call stay when this one cannot begin, on a full disk say."""
        if self._size_before:
            os.ftruncate(self._lock, self._size_before)
        else:
            self.partial.unlink(missing_ok=True)

    def _close(self) -> None:
        """Close the file and cut off the room it did not need."""
        if self.file:
            self.file.flush()
            used = self.file.id.get_filesize()
            self.file.close()
            os.ftruncate(self._lock, min(used, os.fstat(self._lock).st_size))

    def _take_up(self) -> bool:
        """Open what was begun; False when there is nothing of the same header."""
        if not self._size_before:
            return False
        self.started_anew = True
        try:
            file = h5py.File(self.partial, "r+", locking=False)
        except OSError:
            return False
        attrs = {name: as_python(value) for name, value in file.attrs.items()}
        try:
            self.rows = {name: int(file[name].attrs["rows"]) for name in SPLITS}
        except KeyError:
            file.close()
            return False
        wanted = {key: value for key, value in self.header.attrs().items() if key != "complete"}
        if not wanted.items() <= attrs.items():
            file.close()
            self.rows = dict.fromkeys(SPLITS, 0)
            return False
        self.file, self.discarded, self.started_anew = file, attrs["discarded"], False
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
        """A data set for all rows of a split; only masks are compressed, the rest can be mapped."""
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
        """HDF5's and the system's refusals as SriFailure."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._refused = True
            raise cannot_write(self.path, OSError(0, reason_of(error))) from error


def begun_counts(path: Path, header: Header) -> dict[str, int] | None:
    """What an unfinished `path` of this header is to hold; None when there is none."""
    try:
        with h5py.File(path.with_name(path.name + ".partial"), "r", locking=False) as file:
            attrs = {name: as_python(value) for name, value in file.attrs.items()}
    except OSError:
        return None
    if not header.is_of(attrs) or "counts" not in attrs:
        return None
    return dict(zip(SPLITS, json.loads(attrs["counts"]), strict=True))


def storable(values: NDArray[Any]) -> NDArray[Any]:
    """Text as bytes: HDF5 has no fixed-length unicode."""
    return values.astype("S") if values.dtype.kind == "U" else values


def check_space(path: Path, num_bytes: int) -> None:
    """SriFailure when the disk has no room for so many bytes."""
    place = os.statvfs(path.parent)
    free = place.f_bavail * place.f_frsize
    if free < num_bytes:
        raise SriFailure(
            f"could not write {path}: {num_bytes / 1e6:,.0f} MB are needed,"
            f" {free / 1e6:,.0f} MB are free",
            "free some space, choose another folder, or fewer scenes: --scenes N",
        )


def reserve(descriptor: int, num_bytes: int) -> None:
    """Give a file its room on the disk; OSError when there is none. Not every system can."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
