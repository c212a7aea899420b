"""Reads an archive of ShapeStacks into the staging folder: in workers, resumable.

Maps come first: they are a hundredth of the pictures, and their faults are told as soon.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import Progress
from sri_cli.data.archives import members
from sri_cli.data.sources.shapestacks_files import MAPS_LOOKED_AT, NO_MASKS, all_zero
from sri_cli.data.sources.shapestacks_names import (
    MAP,
    MOST_CAMERAS,
    PICTURE,
    Lists,
    agreed_views,
    camera_in,
    check_maps,
)
from sri_cli.data.sources.shapestacks_pictures import labels_in, picture_in
from sri_cli.data.sources.shapestacks_places import Archives
from sri_cli.data.sources.shapestacks_staging import BIT, Kind, Staging, read_rows
from sri_cli.data.spread import spread, worker_killed
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError
from sri_cli.signals import StopFlag, stop_on_signal

MEGABYTE = 1_000_000
MOST_PICTURE_BYTES = MEGABYTE  # 224 px without any compression are 150 KB
FILES_PER_TASK = 8
PATTERNS: dict[Kind, re.Pattern[str]] = {"images": PICTURE, "masks": MAP}


class Reader:
    """Fills a staging folder from archives."""

    def __init__(
        self, archives: Archives, lists: Lists, resizing: Resizing, staging: Staging, command: str
    ) -> None:
        self.archives, self.resizing, self.staging = archives, resizing, staging
        self.command = command
        self.names = lists.everyone()
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def read_all(self, workers: int) -> None:
        """Read what is missing: first the maps, which are small, and their faults are told soon."""
        if self.archives.iseg is not None:
            self.read("masks", self.archives.iseg, workers)
            self.check_masks(self.archives.iseg)
        self.read("images", self.archives.rgb, workers)

    def read(self, kind: Kind, path: Path, workers: int) -> None:
        """One archive from begin to end; rows that are there are not decoded again."""
        if kind in self.staging.finished:
            return
        decode = functools.partial(decode_file, kind, self.resizing)
        total = path.stat().st_size // MEGABYTE
        with (
            Progress(total, 0, f"read {path.name}", "MB") as progress,
            stop_on_signal() as stop,
        ):
            self.say_opening(progress, kind, path)
            source = self.files(kind, path, progress, stop)
            try:
                with closing(spread(decode, source, workers, FILES_PER_TASK)) as rows:
                    for row, values in rows:
                        self.staging.put(kind, row, values)
                        self.stop_if_asked(kind, path, stop)
            except BrokenProcessPool as error:
                self.stop_if_asked(kind, path, stop)
                raise worker_killed(self.command) from error
        self.staging.finish(kind)

    def files(
        self, kind: Kind, path: Path, progress: Progress, stop: StopFlag
    ) -> Iterator[tuple[int, tuple[str, bytes]]]:
        """(row, (where, content)) of the listed scenarios' files that are not staged yet."""
        seen: dict[int, str] = {}

        def wanted(name: str) -> bool:
            row = self.row_of(name, PATTERNS[kind])
            if row is None:
                return False
            if seen.setdefault(row, name) != name:
                raise SriError(
                    f"{path} has two files of one camera: {seen[row]} and {name}",
                    "get the archive again",
                )
            return not self.staging.has(kind, row)

        def tell(position: int) -> None:
            self.stop_if_asked(kind, path, stop)
            progress.reach(position // MEGABYTE)

        for member, data in members(path, wanted, most_bytes=MOST_PICTURE_BYTES, tell=tell):
            row = self.row_of(member.name, PATTERNS[kind])
            assert row is not None
            yield row, (f"{path}: {member.name}", data)

    def row_of(self, name: str, pattern: re.Pattern[str]) -> int | None:
        """The row of a member by its scenario's folder and its camera; None: not wanted."""
        *_, folder, file = ["", *name.split("/")]
        number = self.numbers.get(folder)
        camera = None if number is None else camera_in(file, pattern)
        return None if number is None or camera is None else number * MOST_CAMERAS + camera

    def stop_if_asked(self, kind: Kind, path: Path, stop: StopFlag) -> None:
        """Interrupted after a signal."""
        if stop.name:
            self.staging.save()
            raise Interrupted(
                f"stopped by {stop.name} after {self.staging.count(kind):,} files of {path.name},"
                f" kept in {self.staging.folder}",
                f"go on: {self.command}",
            )

    def say_opening(self, progress: Progress, kind: Kind, path: Path) -> None:
        """The note that reading an archive begins with."""
        if self.staging.started_anew:
            progress.note(f"Note: {self.staging.folder} was of something else; starting anew")
            self.staging.started_anew = False
        if self.archives.iseg is None:
            progress.note(NO_MASKS)
        done = self.staging.count(kind)
        staged = f"\nresuming after {done:,} files" if done else ""
        progress.note(f"{path} -> {self.staging.folder}{staged}")

    def check_masks(self, iseg: Path) -> None:
        """SriError when maps are missing, or mark nothing."""
        size = self.resizing.size
        has = {name: bool(self.staged("masks", n)) for name, n in self.numbers.items()}
        if not any(has.values()):
            raise SriError(f"{iseg} has no maps of the listed scenarios", "get the archive again")
        check_maps(has, str(iseg))
        marked = (
            read_rows(self.staging.folder, "masks", number, self.staged("masks", number), size)
            for number in range(min(MAPS_LOOKED_AT, len(self.names)))
        )
        if not any(rows.any() for rows in marked):
            raise all_zero(f"{iseg}: the map of {self.names[0]}")

    def cameras(self, views: int | None) -> dict[str, tuple[int, ...]]:
        """The cameras of every scenario; SriError when scenarios differ or a map is missing."""
        there = {name: self.staged("images", number) for name, number in self.numbers.items()}
        count = agreed_views(there, views, str(self.archives.rgb))
        if self.archives.iseg is not None:
            maps = {name: self.staged("masks", number) for name, number in self.numbers.items()}
            whole = {name: set(there[name]) <= set(maps[name]) for name in self.names}
            check_maps(whole, str(self.archives.iseg))
        return {name: cameras[:count] for name, cameras in there.items()}

    def staged(self, kind: Kind, number: int) -> tuple[int, ...]:
        """The cameras of which something of a scenario is staged."""
        return tuple(map(int, np.flatnonzero(self.staging.done[number] & BIT[kind])))


def decode_file(kind: Kind, resizing: Resizing, file: tuple[str, bytes]) -> NDArray[np.uint8]:
    """In a worker: one file cut and shrunk, [S,S,3] or [S,S]."""
    where, data = file
    if kind == "images":
        return resizing.picture(picture_in(data, where))
    return resizing.labels(labels_in(data, where))
