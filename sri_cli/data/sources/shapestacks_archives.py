"""ShapeStacks from its archives, which are never unpacked: `--from DIR` with shapestacks-*.tar.gz.

Each archive is read once from its begin to its end. Its pictures come in any order, so they are
cut, shrunk and staged (shapestacks_staging.py), and the data file is written from there.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sri_cli.data.archives import members
from sri_cli.data.dataset import SPLITS
from sri_cli.data.job import Job, Rows, Survey
from sri_cli.data.parallel import available_cores
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.scenario import Scenario
from sri_cli.data.sources.asked import Asked
from sri_cli.data.sources.shapestacks_files import (
    SIMULATED,
    resizing_of,
    simulated_parameters,
)
from sri_cli.data.sources.shapestacks_names import (
    LIST_FILES,
    Lists,
    factors_of,
    header_of,
    read_lists,
)
from sri_cli.data.sources.shapestacks_places import Archives
from sri_cli.data.sources.shapestacks_reader import Reader
from sri_cli.data.sources.shapestacks_staging import Staging, read_rows
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, did_you_mean

MOST_LIST_BYTES = 16_000_000
LIST_MEMBER = re.compile(r"(?:^|/)splits/([^/]+)/[^/]+\.txt$")


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
    began = time.monotonic()
    with staging:
        reader = Reader(archives, lists, resizing, staging, command)
        reader.read_all(workers or available_cores())
        job = staged_job(header, lists, staging.folder, reader.cameras(asked.views))
        prepared = prepare(job, path, **how)
        staging.remove()
    return replace(prepared, seconds=time.monotonic() - began)  # the reading is most of it


def read_meta(meta: Path, split: str, asked: Asked) -> tuple[Lists, dict[str, Any] | None]:
    """The split lists, and the parameters when the files were simulated."""
    wanted = {f"splits/{split}/{file}": file for file in LIST_FILES.values()}
    found: dict[str, bytes] = {}
    simulated = None
    there: set[str] = set()  # the names of all lists

    def is_wanted(name: str) -> bool:
        if list_name := LIST_MEMBER.search(name):
            there.add(list_name[1])
        return name.endswith((*wanted, SIMULATED))

    for member, data in members(meta, is_wanted, most_bytes=MOST_LIST_BYTES):
        if member.name.endswith(SIMULATED):
            simulated = simulated_parameters(data, f"{meta}: {member.name}")
        else:
            found["/".join(member.name.split("/")[-3:])] = data
    missing = [name for name in wanted if name not in found]
    if missing:
        known, hint = sorted(there), "get the archive again"
        if known and split not in known:
            hint = f"there is {', '.join(known)}"
        near = did_you_mean(split, [name for name in known if name != split])
        raise SriError(f"{meta} has no split list {missing[0]}{near}", hint)
    texts = {file: found[name] for name, file in wanted.items()}
    return read_lists(texts, f"{meta}: splits/{split}", split, asked), simulated


def identity(archives: Archives, header: Header) -> dict[str, Any]:
    """What staged rows are of; archives by name, size and time, for reading them takes too long."""
    parts = [path for path in (archives.iseg, archives.rgb) if path is not None]
    stats = {path.name: path.stat() for path in parts}
    archive = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    scenarios = header.parameters["scenarios_sha256"]
    return {"archives": archive, "scenarios": scenarios, "preprocessing": header.preprocessing}


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
