"""ShapeStacks from its archives, which are never unpacked: `--from DIR` with shapestacks-*.tar.gz.

Each archive is read once from its begin to its end. Its pictures come in any order, so they are
cut, shrunk and staged (shapestacks_staging.py), and the data file is written from there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.archives import members
from sri_cli.data.job import Job, Rows, Survey
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.resizing import Resizing
from sri_cli.data.scenario import Scenario
from sri_cli.data.sources.asked import Asked
from sri_cli.data.sources.shapestacks_files import (
    MAPS_LOOKED_AT,
    NO_MASKS,
    SIMULATED,
    all_zero,
    resizing_of,
    simulated_parameters,
)
from sri_cli.data.sources.shapestacks_names import (
    LIST_FILES,
    MAP,
    MOST_CAMERAS,
    PICTURE,
    Lists,
    agreed_views,
    camera_in,
    check_maps,
    factors_of,
    header_of,
    read_lists,
)
from sri_cli.data.sources.shapestacks_pictures import labels_in, picture_in
from sri_cli.data.sources.shapestacks_places import Archives
from sri_cli.data.sources.shapestacks_staging import BIT, Kind, Staging, read_rows
from sri_cli.data.spread import spread
from sri_cli.data.store import SPLITS
from sri_cli.data.workers import available_cores
from sri_cli.data.writer import Header
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.progress import Progress
from sri_cli.signals import StopFlag, stop_on_signal

MEGABYTE = 1_000_000
MOST_LIST_BYTES = 16 * MEGABYTE
MOST_PICTURE_BYTES = MEGABYTE  # 224 px without any compression are 150 KB
FILES_PER_TASK = 8
PATTERNS: dict[Kind, re.Pattern[str]] = {"images": PICTURE, "masks": MAP}


@dataclass(frozen=True)
class StagedScene:
    """A scenario by its number in the staging folder."""

    name: str
    number: int
    cameras: tuple[int, ...]


def prepare_archives(
    archives: Archives,
    path: Path,
    asked: Asked,
    *,
    split: str = "default",
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare shapestacks",
) -> Prepared:
    """Make the data file `path` of archives, or go on with it; see `prepare`.

    SriError for an archive that is no such thing leaves nothing behind; after a signal
    (Interrupted) what was read is kept.
    """
    lists, simulated = read_meta(archives.meta, split, asked)
    resizing = resizing_of(asked)
    header = header_of(lists, resizing, archives.iseg is not None, asked.views, simulated)
    how: dict[str, Any] = {"workers": workers, "force": force, "command": command}
    staging = Staging(path, identity(archives, header), len(lists.everyone()), resizing.size)
    if path.suffix != ".h5" or (path.exists() and not force):
        job = staged_job(header, lists, staging.folder, {})
        return prepare(job, path, **how)  # which says what is the matter, or that it is there
    with staging:
        reader = Reader(archives, lists, resizing, staging, command)
        reader.read_all(workers or available_cores())
        job = staged_job(header, lists, staging.folder, reader.cameras(asked.views))
        prepared = prepare(job, path, **how)
        staging.remove()
    return prepared


def read_meta(meta: Path, split: str, asked: Asked) -> tuple[Lists, dict[str, Any] | None]:
    """The split lists, and the parameters when the files were simulated."""
    wanted = {f"splits/{split}/{file}": file for file in LIST_FILES.values()}
    found: dict[str, bytes] = {}
    simulated = None
    for member, data in members(
        meta, lambda name: name.endswith((*wanted, SIMULATED)), most_bytes=MOST_LIST_BYTES
    ):
        if member.name.endswith(SIMULATED):
            simulated = simulated_parameters(data, f"{meta}: {member.name}")
        else:
            found["/".join(member.name.split("/")[-3:])] = data
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SriError(f"{meta} has no split list {missing[0]}", "get the archive again")
    texts = {file: found[name] for name, file in wanted.items()}
    return read_lists(texts, f"{meta}: splits/{split}", split, asked), simulated


def identity(archives: Archives, header: Header) -> dict[str, Any]:
    """What staged rows are of; archives by name, size and time, for reading them takes too long."""
    parts = [path for path in (archives.iseg, archives.rgb) if path is not None]
    stats = {path.name: path.stat() for path in parts}
    archive = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    scenarios = header.parameters["scenarios_sha256"]
    return {"archives": archive, "scenarios": scenarios, "preprocessing": header.preprocessing}


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
            self.say_opening(progress, path)
            source = self.files(kind, path, progress, stop)
            try:
                with closing(spread(decode, source, workers, FILES_PER_TASK)) as rows:
                    for row, values in rows:
                        self.staging.put(kind, row, values)
                        self.stop_if_asked(stop)
            except BrokenProcessPool as error:
                self.stop_if_asked(stop)
                raise SriFailure(
                    "a worker process was killed, perhaps for want of memory",
                    f"go on with fewer: {self.command} --workers 1",
                ) from error
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
            self.stop_if_asked(stop)
            progress.advance(position // MEGABYTE)
            progress.tell()

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

    def stop_if_asked(self, stop: StopFlag) -> None:
        """Interrupted after a signal."""
        if stop.name:
            self.staging.save()
            done = int((self.staging.done > 0).sum())
            raise Interrupted(
                f"stopped by {stop.name} after {done:,} views, kept in {self.staging.folder}",
                f"go on: {self.command}",
            )

    def say_opening(self, progress: Progress, path: Path) -> None:
        """The note that reading an archive begins with."""
        if self.staging.started_anew:
            progress.note(f"Note: {self.staging.folder} was of something else; starting anew")
            self.staging.started_anew = False
        if self.archives.iseg is None:
            progress.note(NO_MASKS)
        done = int((self.staging.done > 0).sum())
        staged = f", going on after {done:,} views" if done else ""
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


def staged_job(
    header: Header, lists: Lists, folder: Path, cameras: Mapping[str, tuple[int, ...]]
) -> Job:
    """The job of rows that are all staged (scenario -> its cameras); its file is the one that the
    unpacked archives would give."""
    views = max(map(len, cameras.values()), default=1)
    counts = {split: len(lists.scenarios[split]) * views for split in SPLITS}
    masks = bool(header.parameters["masks"])
    return Job(
        header,
        survey=lambda: Survey(counts),
        items=functools.partial(missing_rows, lists.scenarios, cameras, views),
        make=functools.partial(read_staged, folder, header.size, masks),
        views=views,
        survey_again=True,
    )


def missing_rows(
    scenarios: Mapping[str, Sequence[str]],
    cameras: Mapping[str, tuple[int, ...]],
    views: int,
    _: Survey,
    rows: Rows,
) -> Iterator[tuple[str, StagedScene]]:
    """The scenarios after `rows`, with their splits."""
    first = 0
    for split in SPLITS:
        names = scenarios[split]
        for number in range(rows[split] // views, len(names)):
            name = names[number]
            yield split, StagedScene(name, first + number, cameras[name])
        first += len(names)


def read_staged(folder: Path, size_px: int, masks: bool, scene: StagedScene) -> Scenario:
    """In a worker: one scenario out of the staging folder."""
    where = (scene.number, scene.cameras, size_px)
    return Scenario(
        scene.name,
        read_rows(folder, "images", *where),
        read_rows(folder, "masks", *where) if masks else None,
        factors_of(scene.name, scene.cameras),
    )
