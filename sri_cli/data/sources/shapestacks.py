"""ShapeStacks: towers of blocks, simulated by the original's own rules, or read from its files."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import h5py

from sri_cli.data.prepare import Prepared, matching_file, prepare
from sri_cli.data.source import Options, Simulation, Source
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import Workspace

Preset = Literal["original", "demo"]
NAME = "shapestacks"


@dataclass(frozen=True)
class Towers:
    """How many towers, from how many cameras, how large. Scenarios are counted by split."""

    preset: Preset = "original"
    size_px: int = 64
    train: int = 1000
    val: int = 160
    test: int = 640  # x 16 views: the 10,000 test images that FID wants
    views: int = 16
    seed: int = 0

    @property
    def name(self) -> str:
        """The data set's name."""
        return NAME if self.preset == "original" else "demo-towers"

    def scenarios(self) -> dict[str, int]:
        """Scenarios in each split."""
        return {"train": self.train, "val": self.val, "test": self.test}


DEFAULTS: dict[Preset, Towers] = {
    "original": Towers(),
    "demo": Towers("demo", size_px=32, train=1500, val=250, test=250, views=4),
}


@dataclass(frozen=True)
class AskedTowers(Options):
    """Numbers given on the command line; for files, what is left out means all there is."""

    preset: Preset = "original"
    split: str = "default"  # which lists of the original


def choose_towers(asked: AskedTowers) -> Towers:
    """The preset's numbers and what is asked for instead; SriError for those that make no set."""
    asked.check()
    usual = DEFAULTS[asked.preset]
    return Towers(
        asked.preset,
        asked.size_px or usual.size_px,
        **asked.numbers(**usual.scenarios()),
        views=asked.views or usual.views,
        seed=asked.seed,
    )


def towers_job(towers: Towers) -> Source:
    """What `prepare` makes of these numbers."""
    from sri_cli.data.simulate.towers import simulate_tower

    parameters = {key: value for key, value in asdict(towers).items() if key != "size_px"}
    header = Header(
        name=towers.name,
        size=towers.size_px,
        source="simulated",
        background_labels=1,
        parameters=parameters,
        preprocessing="none: rendered at this size",
    )
    make = functools.partial(
        simulate_tower,
        size_px=towers.size_px,
        views=towers.views,
        preset=towers.preset,
        seed=towers.seed,
    )
    return Simulation(header, towers.scenarios(), towers.views, make)


def prepare_shapestacks(
    workspace: Workspace,
    asked: AskedTowers,
    *,
    source: str = "simulate",
    raw: Path | None = None,
    offline: bool = False,
    out: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare shapestacks",
) -> Prepared:
    """Make the data file of towers, by default at its place in the workspace; see `prepare`.

    `source` is simulate, mirror, a folder of original files or of their archives, or a mirror's
    file. `raw`: write the simulated towers as original files there, then read those.
    """
    how: dict[str, Any] = {"workers": workers, "force": force, "command": command}
    if source == "simulate":
        check_split(asked, "simulated towers have none")
        chosen = choose_towers(asked)
        path = out or workspace.data_path(chosen.name, chosen.size_px)
        if raw is not None:
            return prepare_raw(chosen, raw, path, how)
        return prepare(towers_job(chosen), path, **how)
    check_asked(asked, source, raw)
    place = Path(source).expanduser()
    if source == "mirror" or place.is_file():
        check_split(asked, "the mirror has none of them")
        from sri_cli.data.sources.mirror import prepare_mirror

        return prepare_mirror(
            workspace,
            NAME,
            asked,
            source=None if source == "mirror" else place,
            offline=offline,
            out=out,
            **how,
        )
    return prepare_originals(workspace, place, asked, out, how)


def check_asked(asked: AskedTowers, source: str, raw: Path | None) -> None:
    """SriError for what only simulated towers can be, and for a source that is none."""
    simulated = "sri prepare shapestacks --from simulate"
    if asked.preset != "original":
        raise SriError(
            f"--preset {asked.preset} is simulated only, not read from {source}",
            f"{simulated} --preset {asked.preset}",
        )
    if raw is not None:
        raise SriError(
            "--raw writes simulated towers as files; there is nothing to write of others",
            f"{simulated} --raw {raw}",
        )
    if source == "bucket":
        raise SriError(
            "ShapeStacks is not in that bucket, and its own server has been gone since 2026",
            "--from simulate, --from mirror, or --from DIR with files of your own",
        )
    place = Path(source).expanduser()
    if place.name.endswith((".tar.gz", ".tgz", ".tar", ".zip")):
        raise SriError(
            f"--from {source} is one archive, the data set has several",
            f"name the folder that holds them: --from {place.parent}",
        )
    if source != "mirror" and not place.exists():
        near = did_you_mean(source, ("simulate", "mirror"))
        raise SriError(f"no folder {source}{near}", "--from simulate, mirror, or a folder's path")
    if place.is_file() and os.access(place, os.R_OK) and not h5py.is_hdf5(place):
        raise SriError(
            f"--from {source} is not an HDF5 file, as the mirror's is",
            "of shapestacks --from takes that file, or a folder with the original's files or"
            " archives: --from DIR",
        )
    if asked.views is not None and (source == "mirror" or place.is_file()):
        raise SriError(f"--views cannot be chosen with --from {source}", "leave it out")
    asked.check()


def check_split(asked: AskedTowers, why: str) -> None:
    """SriError for lists of the original where there are none."""
    if asked.split != "default":
        raise SriError(
            f"--split {asked.split} names lists of the original's files; {why}",
            "leave it out, or --from DIR with the original's files",
        )


def prepare_originals(
    workspace: Workspace, folder: Path, asked: AskedTowers, out: Path | None, how: dict[str, Any]
) -> Prepared:
    """The data file of a folder of the original's files or of their archives."""
    from sri_cli.data.sources.shapestacks_files import files_job, resizing_of
    from sri_cli.data.sources.shapestacks_places import find_originals

    asked.refuse_seed()
    path = out or workspace.data_path(NAME, resizing_of(asked).size)
    root = find_originals(folder)
    return prepare(files_job(root, asked, asked.split), path, **how)


def prepare_raw(towers: Towers, folder: Path, path: Path, how: dict[str, Any]) -> Prepared:
    """Write the towers' files, as far as they are missing, and the data file that they make."""
    from sri_cli.data.sources.shapestacks_files import files_job
    from sri_cli.data.sources.shapestacks_raw import raw_header, write_raw

    if towers.preset != "original":
        raise SriError(
            f"--raw writes towers as the original's files, not --preset {towers.preset}",
            "leave out --raw, or --preset",
        )
    if path.suffix != ".h5":
        return prepare(towers_job(towers), path)  # which refuses the name, before the rendering
    if path.exists() and not how["force"]:
        matching_file(raw_header(towers), path)
    began = time.monotonic()
    root = write_raw(towers, folder, how["workers"], how["command"])
    prepared = prepare(files_job(root, Options(size_px=towers.size_px)), path, **how)
    return replace(prepared, seconds=time.monotonic() - began)  # the rendering is most of it
