"""What `sri eval` prints: a table for reading, or the paper's tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sri_cli.metrics.records import Measurement
from sri_cli.metrics.table import footnotes, table_rows
from sri_cli.metrics.tables import format_paper_tables, paper_tables
from sri_cli.metrics.tabular import aligned


def words(records: Sequence[Measurement]) -> str:
    """A table for reading, and under it how it was measured."""
    rows = table_rows(records)
    return "\n".join(
        [_coloured(rows) if sys.stdout.isatty() else aligned(rows), "", *footnotes(records)]
    )


def _coloured(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    console = Console()
    table = Table(box=box.SIMPLE)
    for i, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def tables(records: Sequence[Measurement], style: str) -> str:
    """The paper's tables with these measurements beside the published ones."""
    return format_paper_tables(paper_tables(records), style)
