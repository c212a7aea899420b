"""Objects Room and CLEVR6, of Multi-Object Datasets: from the bucket or a file of one's own, from
the mirror, or simulated."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import h5py

from sri_cli.data.download import Remote, download
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.source import Options, Simulation, Source
from sri_cli.data.sources.records import SETS, RecordSet, records_job
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.run import Workspace

BUCKET = "https://storage.googleapis.com/multi-object-datasets/"
INSTEAD = "--from simulate makes rooms and tables like them; --from PATH reads a file you have"
# Simulated scenes by default: enough to train on, and the 10,000 test images that FID wants.
SCENES = {"train": 20_000, "val": 1_000, "test": 10_000}


def prepare_multi_object(
    workspace: Workspace,
    name: str,
    asked: Options,
    *,
    source: str = "simulate",
    offline: bool = False,
    out: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare",
) -> Prepared:
    """Make the data file of `objects-room` or `clevr6`, by default at its place in the workspace.

    `source` is simulate, mirror, bucket or a path. Raises SriError for numbers that make no data
    set and for a source that is not there or is something else; see `prepare`.
    """
    asked.check()
    kind = SETS[name]
    path = out or workspace.data_path(name, asked.size_px or kind.size_px)
    how: dict[str, Any] = {"workers": workers, "force": force, "command": command}
    if source == "simulate":
        return prepare(simulated_job(kind, asked), path, **how)
    if asked.views is not None:
        raise SriError("--views is for simulation: here an image is a scene", "leave it out")
    asked.refuse_seed()
    place = Path(source).expanduser()
    if source == "mirror" or (source != "bucket" and is_mirror_file(place)):
        from sri_cli.data.sources.mirror import prepare_mirror

        file = None if source == "mirror" else place
        return prepare_mirror(workspace, name, asked, source=file, offline=offline, out=path, **how)
    if source == "bucket":
        job = records_job(kind, workspace.data_root / "downloads" / Path(kind.file).name, asked)
        if force or not path.exists():  # a finished file does not need its source any more
            fetch(workspace, kind, offline)
        return prepare(job, path, **how)
    return prepare(file_job(kind, place, asked), path, **how)


def fetch(workspace: Workspace, kind: RecordSet, offline: bool) -> Path:
    """The published file, downloaded unless it is there."""
    root = os.environ.get("SRI_BUCKET", BUCKET).rstrip("/")
    path = workspace.data_root / "downloads" / Path(kind.file).name
    return download(Remote(f"{root}/{kind.file}"), path, instead=INSTEAD, offline=offline)


def file_job(kind: RecordSet, path: Path, asked: Options) -> Source:
    """The job of a local file, or of the published one in a folder."""
    if path.is_dir():
        inside = path / Path(kind.file).name
        if not inside.is_file():
            raise SriError(f"{path} holds no {inside.name}", "name the file itself: --from FILE")
        path = inside
    if not path.is_file():
        raise SriError(
            f"--from {path}: no such file", "simulate, mirror, bucket, or a file that exists"
        )
    if h5py.is_hdf5(path):
        from sri_cli.data.sources.efficient_morl import efficient_morl_job

        return efficient_morl_job(kind, path, asked)
    return records_job(kind, path, asked)


def is_mirror_file(path: Path) -> bool:
    """Whether there is a file laid out as the mirror's are."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    from sri_cli.data.sources.mirror import is_mirror

    return is_mirror(path)


def simulated_job(kind: RecordSet, asked: Options) -> Source:
    """Rooms or tables, drawn here."""
    numbers, views = asked.numbers(**SCENES), asked.views or 1
    size = asked.size_px or kind.size_px
    header = Header(
        name=kind.name,
        size=size,
        source="simulated",
        background_labels=kind.background_labels,
        parameters={**numbers, "views": views, "seed": asked.seed},
        preprocessing="none: rendered at this size",
    )
    return Simulation(header, numbers, views, simulator(kind.name, size, views, asked.seed))


def simulator(name: str, size_px: int, views: int, seed: int) -> Any:
    """What makes a scene of its index; picklable."""
    if name == "objects-room":
        from sri_cli.data.simulate.rooms import simulate_room

        return functools.partial(simulate_room, size_px=size_px, views=views, seed=seed)
    from sri_cli.data.simulate.tables import simulate_table

    return functools.partial(simulate_table, size_px=size_px, views=views, seed=seed)
