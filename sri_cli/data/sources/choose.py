"""Which source `sri prepare NAME` means: simulated scenes, the mirror, the bucket, or a path."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from sri_cli.data.dataset import SPLITS, DataFile, is_data_file
from sri_cli.data.source import Options, Simulation, Source
from sri_cli.data.sources.hdf5 import Hdf5Source
from sri_cli.data.sources.published import SETS, VARIANTS
from sri_cli.data.sources.shapestacks import OriginalFiles, RawTowers, find_root
from sri_cli.data.sources.tfrecord import RecordSource
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, did_you_mean

WORDS = ("simulate", "mirror", "bucket")  # after --from; everything else is a path


@dataclass(frozen=True)
class SimulatedSet:
    """A data set that can be simulated.

    simulate: the function that makes a scene, imported when needed, because MuJoCo is slow to load;
    scenes: of train, val and test by default; parameters: of that function; views: of a scene, None
    where it has no camera.
    """

    simulate: str
    size_px: int
    scenes: tuple[int, int, int] = (20_000, 1_000, 10_000)
    views: int | None = 1
    background_labels: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: str = "none: rendered at this size"


_TOWERS = "sri_cli.data.simulate.towers:simulate_tower"
_ROOMS = "sri_cli.data.simulate.rooms:simulate_room"
_TABLES = "sri_cli.data.simulate.tables:simulate_table"
_SPRITES = "sri_cli.data.simulate.flat:simulate_sprites"
_TETROMINOES = "sri_cli.data.simulate.flat:simulate_tetrominoes"
_DRAWN = "drawn at a multiple of {} px; resized (Pillow bilinear); masks nearest"
# 10,000 test images are enough for FID, as are 16 views of 640 towers.
SIMULATED = {
    "shapestacks": SimulatedSet(_TOWERS, 64, (1000, 160, 640), 16, 1, {"preset": "original"}),
    "demo-towers": SimulatedSet(_TOWERS, 32, (1500, 250, 250), 4, 1, {"preset": "demo"}),
    "objects-room": SimulatedSet(_ROOMS, 64, background_labels=4),
    "clevr6": SimulatedSet(_TABLES, 96),
    "clevr10": SimulatedSet(_TABLES, 96, parameters={"most": 10}),
    **{
        name: SimulatedSet(
            _SPRITES,
            64,
            views=None,
            parameters={"variant": variant},
            preprocessing=_DRAWN.format(64),
        )
        for variant, name in VARIANTS["multi-dsprites"].items()
    },
    "tetrominoes": SimulatedSet(_TETROMINOES, 32, views=None, preprocessing=_DRAWN.format(35)),
}


def simulated(name: str, options: Options) -> Simulation:
    """A data set simulated here."""
    kind = SIMULATED[name]
    scenes = {s: options.number(s) or n for s, n in zip(SPLITS, kind.scenes, strict=True)}
    seed = {"seed": options.seed}
    views = {} if kind.views is None else {"views": options.views or kind.views}
    header = Header(
        name=name,
        size=options.size_px or kind.size_px,
        source="simulated",
        background_labels=kind.background_labels,
        parameters={**kind.parameters, **scenes, **views, **seed},
        preprocessing=kind.preprocessing,
    )
    simulate = pkgutil.resolve_name(kind.simulate)
    make = functools.partial(simulate, size_px=header.size, **kind.parameters, **views, **seed)
    return Simulation(header, scenes, views.get("views", 1), make)


def choose_source(
    name: str,
    options: Options,
    where: str = "simulate",
    *,
    downloads: Path,
    offline: bool = False,
    preset: str = "original",
    split: str = "default",
    raw: Path | None = None,
    test_set: str | None = None,
    variant: str | None = None,
) -> Source:
    """The source that the options of `sri prepare NAME` mean.

    Args:
        name: A key of SETS.
        where: simulate, mirror, bucket or a path.
        downloads: The folder of downloaded files.
        offline: Use only what was downloaded before.
        preset: original, or demo for the near, plain towers.
        split: Which split lists of the original files of ShapeStacks.
        raw: Write the simulated towers as original files to this folder, then read those.
        test_set: A test set of Objects Room in the bucket, such as six_objects.
        variant: A variant of `name`; None: the one that the file is named after, or the default.

    Raises:
        SriError: Impossible numbers, options that do not go together, or no such source.
    """
    path, simulate = Path(where).expanduser(), where == "simulate"
    name = variant_name(name, variant, path)
    kind = SETS[name]
    unpacked = name == "shapestacks" and where not in WORDS and path.is_dir()
    demo, views = preset == "demo", options.views
    for wrong, problem in (
        (demo and not simulate, "--preset demo is for simulated towers"),
        (
            raw and (demo or not simulate),
            f"--raw {raw} is for simulated towers like the original's",
        ),
        (split != "default" and not unpacked, f"--split {split} is for the original's files"),
        (views and not (simulate or unpacked), f"--views {views} cannot be chosen here"),
        (where == "bucket" and not kind.record_file, f"{name} is not in the bucket"),
        (where == "mirror" and not kind.mirror_file, f"{name} is not in the mirror"),
        (options.test_only and simulate, "--test-only is for files"),
        (test_set and where != "bucket", f"--test-set {test_set} is downloaded from the bucket"),
    ):
        if wrong:
            raise SriError(problem, f"leave it out, or choose another source than --from {where}")
    if simulate:
        scenes = simulated("demo-towers" if demo else name, options)
        return RawTowers(scenes, raw) if raw else scenes
    if unpacked:
        return OriginalFiles(find_root(path), options, split)
    if kind.split is not None:
        options.refuse_seed()
    record_file = Path(kind.record_file).name
    if test_set:
        record_file = f"objects_room_test_{test_set}.tfrecords"
    if where == "mirror":
        return Hdf5Source(kind, downloads / kind.mirror_file, options, remote=True, offline=offline)
    if where == "bucket":
        return RecordSource(kind, downloads / record_file, options, remote=True, offline=offline)
    path = path / record_file if path.is_dir() else path
    if not path.is_file():
        near = did_you_mean(where, WORDS)
        raise SriError(f"--from {where}: {path} does not exist{near}", "name an existing source")
    is_hdf5 = h5py.is_hdf5(path) or not kind.record_file
    if is_hdf5 and is_data_file(path):  # simulated images would pass for published ones
        raise SriError(
            f"--from {where}: {path} is a data file of sri, not a published one",
            DataFile(path).size_hint(options.size_px or kind.size_px),
        )
    return (Hdf5Source if is_hdf5 else RecordSource)(kind, path, options)


def variant_name(name: str, variant: str | None, path: Path) -> str:
    """The data set that a variant of `name` is; see `choose_source`."""
    variants = VARIANTS.get(name, {})
    in_name = [key for key in variants if key in path.name]
    return variants.get(variant or next(iter(in_name), ""), name)
