"""The paper's tables with our rows, typeset."""

from __future__ import annotations

from collections.abc import Sequence

from sri_cli.metrics.evaluate_runs import show_recorded
from sri_cli.metrics.picture_metrics import Wanted
from sri_cli.metrics.tables import PaperTable, paper_tables
from sri_cli.plotting.sheet import Grid
from sri_cli.run import Workspace


def table_blocks(workspace: Workspace, runs: Sequence[str]) -> list[Grid]:
    """Of all that was measured of the runs (none named: the latest).

    SriError when nothing was.
    """
    known = show_recorded(workspace, runs, (), Wanted()).known
    return [_grid(table) for table in paper_tables(known)]


def _grid(table: PaperTable) -> Grid:
    """Our rows stand out."""
    ours = [i for i, row in enumerate(table.rows) if i and row[1].startswith("measured")]
    return Grid(table.rows, table.caption, table.spans, table.words, frozenset(ours), table.notes)
