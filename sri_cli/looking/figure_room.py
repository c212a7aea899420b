"""How many pictures fit on a sheet; told before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sri_cli.errors import SriError
from sri_cli.figures.sheet_blocks import grid_columns
from sri_cli.figures.sheet_layout import columns_that_fit, rows_that_fit
from sri_cli.looking.figure_names import Kind
from sri_cli.looking.figure_request import Request
from sri_cli.looking.figure_scenes import slot_counts, temperatures
from sri_cli.looking.trained import Trained


def check_fits(kind: Kind, request: Request, trained: Sequence[Trained], num: int) -> None:
    """SriError for more pictures than a sheet has room for; it says how many fit."""
    side = max(one.loaded.model.image_size for one in trained)
    slots = max(request.slots or one.loaded.model.num_slots for one in trained)
    across, down = columns_that_fit(side), rows_that_fit(side, kind.name == "failures")

    def fits(count: int) -> bool:
        width, height = extent(kind, count, slots, request, across)
        beside = across // width
        return beside > 0 and math.ceil(len(trained) / beside) * height <= down

    if fits(num):
        return
    most = max((count for count in range(1, num) if fits(count)), default=0)
    asked = f"--num {num}: {kind.name} of {len(trained)} run{'s' * (len(trained) > 1)}"
    if most:
        raise SriError(f"{asked} at {side} px: {most} fit on a sheet", f"--num {most}")
    mend = "name fewer runs" if len(trained) > 1 else f"--slots {max(1, across - 2)}"
    raise SriError(f"{asked} with {slots} slots: not even one fits on a sheet", mend)


def extent(kind: Kind, num: int, slots: int, request: Request, across: int) -> tuple[int, int]:
    """The pictures of one run, across and down."""
    if kind.name in ("samples", "failures"):
        columns = grid_columns(num, across)
        return columns, math.ceil(num / columns)
    if kind.name == "slots":
        return 2 * num, len(slot_counts(slots, request.slots))
    if kind.name == "temperature":
        return num, len(temperatures(request.temperature))
    if kind.name == "rollouts":
        return num, 3
    return slots + (2 if kind.name == "order" else 5), num
