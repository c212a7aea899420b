"""Where pictures from an archive wait: an archive has them in any order, a data file in its own.

A folder `NAME.h5.staging` beside the data file, removed when that is whole:
- `images.raw`, `masks.raw`: a row for every scenario and camera number, with holes;
- `done.raw`: for each row which of the two is there; written only after what it tells of;
- `staging.json`: what it is of, and which archives were read to their ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import cannot_write, ensure_folder, lock_file, write_atomic
from sri_cli.data.sources.shapestacks_names import MOST_CAMERAS
from sri_cli.data.writer import FACTOR_BYTES, check_space
from sri_cli.errors import SriError

Kind = Literal["images", "masks"]
BIT: dict[Kind, int] = {"images": 1, "masks": 2}
CHANNELS: dict[Kind, int] = {"images": 3, "masks": 1}
SAVE_EVERY = 2000  # rows; a killed process makes so many again
LIKELY_VIEWS = 16  # of a scenario, to reckon the room on the disk
RECORD, DONE = "staging.json", "done.raw"


class Staging:
    """Rows that were made, in any order; use as a context manager. S is the side in pixels.

    SriError when another process is at it, SriFailure when the disk will not take it; that leaves
    nothing, unless an earlier call had left something. Leaving it else keeps everything, except
    after a SriError of the input (exit code 2).
    """

    def __init__(self, path: Path, what: Mapping[str, Any], scenarios: int, size_px: int) -> None:
        """For the data file `path`; `what` is as JSON holds it."""
        self.path, self.folder = path, path.with_name(path.name + ".staging")
        self.what, self.size_px = dict(what), size_px
        self.done = np.zeros((scenarios, MOST_CAMERAS), np.uint8)
        self.finished: list[str] = []
        self.started_anew = False
        self._taken_up = False  # rows of an earlier call are here
        self._unsaved = 0
        self._files: dict[str, int] = {}

    def __enter__(self) -> Self:
        ensure_folder(self.folder)
        self._lock = lock_file(self.folder / f"{self.path.name}.lock")
        try:
            self._take_up()
            self._check_space()
            self._open()
        except BaseException:
            os.close(self._lock)
            if not self._taken_up:
                self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, SriError) and error.exit_code == 2:
                self.remove()  # what was read is not what it should be
            elif self.folder.exists():
                self.save()
        finally:
            for descriptor in (*self._files.values(), self._lock):
                os.close(descriptor)

    def has(self, kind: Kind, row: int) -> bool:
        """Whether a row was made."""
        return bool(self.done.flat[row] & BIT[kind])

    def count(self, kind: Kind) -> int:
        """How many rows of a kind are there."""
        return int(((self.done & BIT[kind]) > 0).sum())

    def put(self, kind: Kind, row: int, values: NDArray[np.uint8]) -> None:
        """Keep a row, [S,S,3] or [S,S]."""
        data = values.tobytes()
        try:
            os.pwrite(self._files[kind], data, row * len(data))
        except OSError as error:
            raise self._refused(error) from error
        self.done.flat[row] |= BIT[kind]
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def finish(self, archive: str) -> None:
        """All of this archive is here."""
        self.save()
        self.finished.append(archive)
        self._write_record()

    def save(self) -> None:
        """Make what was put safe, then say so."""
        if not self._unsaved:
            return
        try:
            for kind in BIT:
                os.fsync(self._files[kind])
            os.pwrite(self._files[DONE], self.done.tobytes(), 0)
            os.fsync(self._files[DONE])
        except OSError as error:
            raise self._refused(error) from error
        self._unsaved = 0

    def remove(self) -> None:
        """Leave nothing. A folder that holds other things too is left with them."""
        names = ("images.raw", "masks.raw", DONE, RECORD, f"{self.path.name}.lock")
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _take_up(self) -> None:
        """Go on with what was begun of the same; forget what was of something else."""
        try:
            record = json.loads((self.folder / RECORD).read_bytes())
            done = np.fromfile(self.folder / DONE, np.uint8)
            if record["of"] != self.what or done.size != self.done.size:
                raise ValueError("of something else")
            self.finished, self.done = list(record["finished"]), done.reshape(self.done.shape)
            self._taken_up = bool(self.done.any())
        except FileNotFoundError:
            self._write_record()
        except (OSError, ValueError, KeyError, TypeError):
            self.started_anew = True
            for name in ("images.raw", "masks.raw", DONE):
                (self.folder / name).unlink(missing_ok=True)
            self._write_record()

    def _write_record(self) -> None:
        record = {"of": self.what, "finished": self.finished}
        write_atomic(self.folder / RECORD, json.dumps(record).encode())

    def _check_space(self) -> None:
        """Room for the staged rows that are missing, and for the data file after them."""
        views = len(self.done) * LIKELY_VIEWS
        area = self.size_px**2
        images = self.folder / "images.raw"
        there = images.stat().st_blocks * 512 if images.exists() else 0
        check_space(self.folder, views * (2 * 4 * area + FACTOR_BYTES) - there)

    def _open(self) -> None:
        """The files at their full lengths; what is not written takes no room."""
        area = self.size_px**2
        lengths = {f"{kind}": self.done.size * CHANNELS[kind] * area for kind in BIT}
        for name, length in (lengths | {DONE: self.done.size}).items():
            file = self.folder / (name if name == DONE else f"{name}.raw")
            try:
                self._files[name] = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
                os.ftruncate(self._files[name], length)
            except OSError as error:
                raise self._refused(error) from error

    def _refused(self, error: OSError) -> Exception:
        """The failure to raise; a full disk gets its room back, but for rows of an earlier call."""
        if not self._taken_up:
            self.remove()
        return cannot_write(self.folder, error)


def read_rows(
    folder: Path, kind: Kind, scenario: int, cameras: tuple[int, ...], size_px: int
) -> NDArray[np.uint8]:
    """The rows of one scenario, [V,S,S,3] or [V,S,S]."""
    shape = (size_px, size_px, 3)[: 3 if kind == "images" else 2]
    row_bytes = int(np.prod(shape))
    with open(folder / f"{kind}.raw", "rb") as file:
        file.seek(scenario * MOST_CAMERAS * row_bytes)
        data = file.read(MOST_CAMERAS * row_bytes)
    rows = np.frombuffer(data, np.uint8).reshape(MOST_CAMERAS, *shape)
    return rows[list(cameras)]
