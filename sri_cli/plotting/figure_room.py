"""Which runs stand where on a sheet, and how many pictures fit; told before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.plotting.figure_names import Kind
from sri_cli.plotting.figure_request import Request
from sri_cli.plotting.figure_scenes import slot_counts, system_name, temperatures
from sri_cli.plotting.sheet_blocks import grid_columns
from sri_cli.plotting.sheet_layout import columns_that_fit, rows_that_fit, side_by_side

GRIDS = ("samples", "failures")  # scenes in rows as long as one likes
BESIDE_SLOTS = {"order": 2, "segmentation": 5}  # columns beside those of the slots
Anything = TypeVar("Anything")


def check_fits(kind: Kind, request: Request, trained: Sequence[TrainedRun], num: int) -> None:
    """SriError for more pictures than a sheet has room for; it says how many fit."""
    if _fits(kind, request, trained, num):
        return
    most = max((n for n in range(1, num) if _fits(kind, request, trained, n)), default=0)
    runs = f"{len(trained)} run{'s' * (len(trained) > 1)}"
    asked = f"--num {num}: {kind.name} of {runs}, pictures of {_side(trained)} px"
    if most:
        raise SriError(f"{asked}: {most} fit on a sheet", f"--num {most}")
    mend = (
        "name fewer runs" if len(trained) > 1 else f"--slots {columns_that_fit(_side(trained)) - 2}"
    )
    raise SriError(f"{asked}: not even one fits on a sheet", mend)


def columns_of(trained: Sequence[TrainedRun], num: int) -> int:
    """How many scenes of a grid stand side by side in each run's block."""
    return grid_columns(num, columns_that_fit(_side(trained)) // len(data_sets(trained)))


def data_sets(trained: Sequence[TrainedRun]) -> list[str]:
    """What the runs were trained on, each once."""
    return list(dict.fromkeys(one.caption for one in trained))


def by_data(
    trained: Sequence[TrainedRun], blocks: Sequence[Anything]
) -> list[list[Anything | None]]:
    """The runs' blocks with a row for each system and a column for each data set."""
    data = data_sets(trained)
    rows: dict[tuple[str, int], list[Anything | None]] = {}
    for one, block in zip(trained, blocks, strict=True):
        recipe, column = one.recipe, data.index(one.caption)
        system, again = system_name(recipe.name, recipe.size), 0
        # A second run of a system on the same data has a row of its own.
        while rows.setdefault((system, again), [None] * len(data))[column] is not None:
            again += 1
        rows[system, again][column] = block
    return list(rows.values())


def _fits(kind: Kind, request: Request, trained: Sequence[TrainedRun], num: int) -> bool:
    side, runs = _side(trained), len(trained)
    across, down = columns_that_fit(side), rows_that_fit(side, kind.name == "failures")
    sizes = [_extent(kind, request, one, num, columns_of(trained, num)) for one in trained]
    width, height = map(max, zip(*sizes, strict=True))
    if width > across:
        return False
    if kind.name == "samples" and len(data_sets(trained)) > 1:
        return len(by_data(trained, trained)) * height <= down
    beside = 1 if kind.name == "slots" else side_by_side(runs, across // width)
    return math.ceil(runs / beside) * height <= down


def _extent(
    kind: Kind, request: Request, one: TrainedRun, num: int, columns: int
) -> tuple[int, int]:
    """The pictures of a run, across and down."""
    usual = one.model.num_slots
    if kind.name in GRIDS:
        return columns, math.ceil(num / columns)
    if kind.name == "slots":
        return 2 * num, len(slot_counts(usual, request.slots))
    if kind.name == "temperature":
        return num, len(temperatures(request.temperature))
    if kind.name == "rollouts":
        return num, 3
    return (request.slots or usual) + BESIDE_SLOTS[kind.name], num


def _side(trained: Sequence[TrainedRun]) -> int:
    """The side of the largest pictures, px."""
    return int(max(one.model.image_size for one in trained))
