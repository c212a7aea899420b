"""`sri figure`: any figure by its name, from one or several runs, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sri_cli.figures.sheet_draw import draw
from sri_cli.figures.sheet_layout import cell_side
from sri_cli.looking.figure_make import make
from sri_cli.looking.figure_names import kind_of
from sri_cli.looking.figure_request import Request, check, format_of, parse_scale
from sri_cli.workspace import Workspace, write_atomic

__all__ = ["Request", "Result", "figure_of_runs"]


class Result(NamedTuple):
    """The file, and notes for the user."""

    path: Path
    notes: list[str]


def figure_of_runs(
    workspace: Workspace, runs: Sequence[str], request: Request, out: Path | None = None
) -> Result:
    """Draw the figure and write it to `out` (None: the first run's figures/NAME.png).

    Raises SriError for what means nothing or does not fit, before anything is drawn.
    """
    kind = kind_of(request.name)
    check(kind, request)
    file_format = format_of(request, out)
    times, px = parse_scale(request.scale)
    made = make(workspace, runs, kind, request)
    scale = times if px is None else px / cell_side(made.side)
    content = draw(made.sheet, file_format, scale, request.captions)
    path = out or made.run_dir / "figures" / f"{kind.name}.{file_format}"
    write_atomic(path, content)
    notes = list(made.notes)
    if file_format == "png" and (scale * cell_side(made.side)) % made.side > 1e-6:
        notes.append(f"--scale {request.scale}: not all pixels of the pictures are equally large")
    return Result(path, notes)
