"""`sri figure`: any figure by its name, from one or several runs, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sri_cli.atomic import write_atomic
from sri_cli.errors import SriError
from sri_cli.plotting.figure_make import make
from sri_cli.plotting.figure_names import kind_of
from sri_cli.plotting.figure_request import Request, check, format_of, parse_scale
from sri_cli.plotting.sheet_draw import draw
from sri_cli.plotting.sheet_panels import cell_side
from sri_cli.run import Workspace

__all__ = ["Request", "Result", "figure_of_runs"]


class Result(NamedTuple):
    """The file, and notes for the user."""

    path: Path
    notes: list[str]


def figure_of_runs(
    workspace: Workspace, runs: Sequence[str], request: Request, out: Path | None = None
) -> Result:
    """Draw the figure and write it to `out` (None: figures/figure-NAME.png of the first run).

    Raises SriError for what means nothing or does not fit, before anything is drawn.
    """
    kind = kind_of(request.name)
    check(kind, request)
    file_format = format_of(request, out)
    times, px = parse_scale(request.scale)
    if px is not None and kind.num is None:
        raise SriError(f"--scale {px}: {kind.name} has no pictures to be {px} px", "--scale 2x")
    made = make(workspace, runs, kind, request)
    scale = times if px is None or made.side is None else px / cell_side(made.side)
    content = draw(made.sheet, file_format, scale, request.captions)
    path = out or made.run_dir / "figures" / f"figure-{kind.name}.{file_format}"
    write_atomic(path, content)
    return Result(path, [*made.notes, *_uneven(made.side, scale, file_format)])


def _uneven(side: int | None, scale: float, file_format: str) -> list[str]:
    """A note where pixels of the pictures are not all as large as each other."""
    if side is None or file_format != "png" or scale * cell_side(side) % side < 1e-6:
        return []
    drawn, least = scale * cell_side(side), side * max(1, int(scale * cell_side(side) // side))
    return [f"pictures of {side} px are drawn {drawn:g} px wide, unevenly: --scale {least} is even"]
