"""Which source `sri prepare NAME` means: simulated scenes, the mirror, the bucket, or a path."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import h5py

from sri_cli.data.source import Options, Scenario, Simulation, Source
from sri_cli.data.sources.hdf5 import Hdf5Source
from sri_cli.data.sources.published import SETS
from sri_cli.data.sources.shapestacks import OriginalFiles, RawTowers, find_root
from sri_cli.data.sources.tfrecord import RecordSource
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, did_you_mean

# Pixels, views, background labels, and scenes in train, val, test: 10,000 images are enough for
# FID, as are 16 views of 640 towers.
SIMULATED = {
    "shapestacks": (64, 16, 1, (1000, 160, 640)),
    "demo-towers": (32, 4, 1, (1500, 250, 250)),
    "objects-room": (64, 1, 4, (20_000, 1_000, 10_000)),
    "clevr6": (96, 1, 1, (20_000, 1_000, 10_000)),
}
PRESETS = {"shapestacks": "original", "demo-towers": "demo"}  # of towers


def simulated(name: str, options: Options) -> Simulation:
    """A data set simulated here; SriError for numbers out of range."""
    options.check()
    size, views, background_labels, defaults = SIMULATED[name]
    size, views, scenes = (
        options.size_px or size,
        options.views or views,
        options.numbers(*defaults),
    )
    preset = {"preset": PRESETS[name]} if name in PRESETS else {}
    header = Header(
        name=name,
        size=size,
        source="simulated",
        background_labels=background_labels,
        parameters={**preset, **scenes, "views": views, "seed": options.seed},
        preprocessing="none: rendered at this size",
    )
    make = functools.partial(
        simulator(name), size_px=size, views=views, seed=options.seed, **preset
    )
    return Simulation(header, scenes, views, make)


def simulator(name: str) -> Callable[..., Scenario]:
    """The function that makes a scene; imported when needed, because MuJoCo is slow to load."""
    if name == "objects-room":
        from sri_cli.data.simulate.rooms import simulate_room

        return simulate_room
    if name == "clevr6":
        from sri_cli.data.simulate.tables import simulate_table

        return simulate_table
    from sri_cli.data.simulate.towers import simulate_tower

    return simulate_tower


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
) -> Source:
    """The source that the options of `sri prepare NAME` mean.

    Args:
        name: shapestacks, objects-room or clevr6.
        where: simulate, mirror, bucket or a path.
        downloads: The folder of downloaded files.
        offline: Use only what was downloaded before.
        preset: original, or demo for the near, plain towers.
        split: Which split lists of the original files of ShapeStacks.
        raw: Write the simulated towers as original files to this folder, then read those.
        test_set: A test set of Objects Room in the bucket, such as six_objects.

    Raises:
        SriError: Impossible numbers, options that do not go together, or no such source.
    """
    options.check()
    kind, path, simulate = SETS[name], Path(where).expanduser(), where == "simulate"
    unpacked = name == "shapestacks" and path.is_dir()
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
        near = did_you_mean(where, ("simulate", "mirror", "bucket"))
        raise SriError(f"--from {where}: {path} does not exist{near}", "name an existing source")
    is_hdf5 = h5py.is_hdf5(path) or not kind.record_file
    return (Hdf5Source if is_hdf5 else RecordSource)(kind, path, options)
