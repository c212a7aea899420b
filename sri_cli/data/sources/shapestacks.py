"""ShapeStacks, towers of blocks: simulated by the original's rules, or from published files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sri_cli.data.source import Options, Simulation, Source
from sri_cli.data.sources.hdf5 import Hdf5Source
from sri_cli.data.sources.published import SETS
from sri_cli.data.sources.shapestacks_files import NAME, OriginalFiles, find_root
from sri_cli.data.sources.shapestacks_raw import RawTowers
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, did_you_mean

Preset = Literal["original", "demo"]
# Name, image size, views and scenes in train, val, test; 640 x 16 views are enough for FID.
PRESETS: Mapping[Preset, tuple[str, int, int, tuple[int, int, int]]] = {
    "original": (NAME, 64, 16, (1000, 160, 640)),
    "demo": ("demo-towers", 32, 4, (1500, 250, 250)),
}


def simulated_towers(options: Options, preset: Preset = "original") -> Simulation:
    """Towers simulated here; SriError for numbers out of range."""
    from sri_cli.data.simulate.towers import simulate_tower

    options.check()
    name, size, views, numbers = PRESETS[preset]
    size, views, scenes = options.size_px or size, options.views or views, options.numbers(*numbers)
    header = Header(
        name=name,
        size=size,
        source="simulated",
        background_labels=1,
        parameters={"preset": preset, **scenes, "views": views, "seed": options.seed},
        preprocessing="none: rendered at this size",
    )
    make = functools.partial(
        simulate_tower, size_px=size, views=views, preset=preset, seed=options.seed
    )
    return Simulation(header, scenes, views, make)


def choose_source(
    options: Options,
    where: str = "simulate",
    *,
    downloads: Path,
    preset: Preset = "original",
    split: str = "default",
    raw: Path | None = None,
    offline: bool = False,
) -> Source:
    """The source that the options of `sri prepare shapestacks` mean; SriError if there is none.

    Args:
        where: simulate, mirror, a file of the mirror, or a folder of original files.
        downloads: The folder of files from the mirror.
        split: Which split lists of the original files.
        raw: Write the simulated towers as original files to this folder, then read those.
    """
    path = Path(where).expanduser()
    check_options(options, where, preset, split, raw)
    if where == "mirror":
        path = downloads / SETS[NAME].mirror_file
        return Hdf5Source(SETS[NAME], path, options, remote=True, offline=offline)
    if path.is_file():
        return Hdf5Source(SETS[NAME], path, options)
    if where != "simulate":
        return OriginalFiles(find_root(path), options, split)
    towers = simulated_towers(options, preset)
    return towers if raw is None else RawTowers(towers, raw)


def check_options(
    options: Options, where: str, preset: Preset, split: str, raw: Path | None
) -> None:
    """SriError for options that do not go together, and for a source that does not exist."""
    path = Path(where).expanduser()
    simulated, from_mirror = where == "simulate", where == "mirror" or path.is_file()
    if where == "bucket":
        raise SriError(
            "ShapeStacks is not in that bucket, and its own server is gone",
            "--from simulate, --from mirror, or --from DIR with files of your own",
        )
    if not (simulated or from_mirror or path.is_dir()):
        near = did_you_mean(where, ("simulate", "mirror"))
        raise SriError(f"no folder {where}{near}", "--from simulate, mirror, or a folder")
    if not simulated and (preset != "original" or raw is not None):
        option = f"--preset {preset}" if raw is None else f"--raw {raw}"
        raise SriError(
            f"{option} is for simulated towers, not for --from {where}",
            f"sri prepare shapestacks --from simulate {option}",
        )
    if raw is not None and preset != "original":
        raise SriError(f"--raw cannot write --preset {preset}", "leave out one of them")
    if split != "default" and (simulated or from_mirror):
        raise SriError(
            f"--split {split} is a split list of the original files, which --from {where} lacks",
            "leave it out, or --from DIR with the original files",
        )
    if options.views is not None and from_mirror:
        raise SriError(f"--views cannot be chosen with --from {where}", "leave it out")
