"""ShapeStacks: towers of blocks, here simulated by the original's own rules (`--from simulate`)."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sri_cli.data.job import MAX_SCENARIOS, Job, simulation_job
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.workspace import Workspace

Preset = Literal["original", "demo"]
MOST_VIEWS = 16  # as many cameras as the original has
SMALLEST_PX, LARGEST_PX = 8, 512


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
        return "shapestacks" if self.preset == "original" else "demo-towers"

    def scenarios(self) -> dict[str, int]:
        """Scenarios in each split."""
        return {"train": self.train, "val": self.val, "test": self.test}


DEFAULTS: dict[Preset, Towers] = {
    "original": Towers(),
    "demo": Towers("demo", size_px=32, train=1500, val=250, test=250, views=4),
}


def choose_towers(
    preset: Preset = "original",
    *,
    size_px: int | None = None,
    scenes: int | None = None,
    val_scenes: int | None = None,
    test_scenes: int | None = None,
    views: int | None = None,
    seed: int = 0,
) -> Towers:
    """The preset's numbers and what is asked for instead.

    `scenes` counts training scenarios; validation and test then get a sixth each, 2 at least.
    """
    sixth = None if scenes is None else max(2, scenes // 6)
    asked: dict[str, Any] = {
        "size_px": size_px,
        "train": scenes,
        "val": sixth if val_scenes is None else val_scenes,
        "test": sixth if test_scenes is None else test_scenes,
        "views": views,
        "seed": seed,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    towers = replace(DEFAULTS[preset], **given)
    check(towers)
    return towers


def check(towers: Towers) -> None:
    """SriError for numbers that make no data set."""
    ranges = {
        "scenes": (towers.train, 1, MAX_SCENARIOS),
        "val-scenes": (towers.val, 1, MAX_SCENARIOS),
        "test-scenes": (towers.test, 1, MAX_SCENARIOS),
        "views": (towers.views, 1, MOST_VIEWS),
        "size": (towers.size_px, SMALLEST_PX, LARGEST_PX),
        "seed": (towers.seed, 0, 2**31 - 1),
    }
    for name, (value, least, most) in ranges.items():
        if not least <= value <= most:
            raise SriError(f"--{name} {value} is out of range", f"choose {least} to {most:,}")


def towers_job(towers: Towers) -> Job:
    """What `prepare` makes of these numbers."""
    from sri_cli.data.simulate.towers import TowerSettings, simulate_scenario

    settings = TowerSettings(towers.size_px, towers.views, towers.preset, towers.seed)
    parameters = {key: value for key, value in asdict(towers).items() if key != "size_px"}
    header = Header(
        name=towers.name,
        size=towers.size_px,
        source="simulated",
        background_labels=1,
        parameters=parameters,
        preprocessing="none: rendered at this size",
    )
    make = functools.partial(simulate_scenario, settings)
    return simulation_job(header, towers.scenarios(), towers.views, make)


def prepare_shapestacks(
    workspace: Workspace,
    towers: Towers | None = None,
    *,
    source: str = "simulate",
    out: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare shapestacks",
) -> Prepared:
    """Make the towers' data file, by default at its place in the workspace; see `prepare`."""
    check_source(source)
    towers = towers or Towers()
    check(towers)
    path = out or workspace.data_path(towers.name, towers.size_px)
    return prepare(towers_job(towers), path, workers=workers, force=force, command=command)


def check_source(source: str) -> None:
    """SriError unless the towers are to be simulated: all that this version can do."""
    if source == "simulate":
        return
    what = "" if source in ("mirror", "bucket") else "original files in "
    raise SriError(
        f"--from {source} is not available yet: this version cannot read {what}{source}",
        "simulate the towers: sri prepare shapestacks --from simulate",
    )
