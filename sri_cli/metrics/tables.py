"""The paper's Tables 1 to 4, our runs under the published rows; all others in a table of their own.

Every row says in its second column whether it is published or measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sri_cli.metrics.measured import (
    COLUMNS,
    OWN_COLUMNS,
    PAPER_COLUMNS,
    SHUFFLED,
    Measurement,
    column_of,
    newest,
)
from sri_cli.metrics.paper_notes import belongs, notes_of
from sri_cli.metrics.paper_rows import Row, other_rows, rows_of
from sri_cli.metrics.paper_text import PaperTable, format_paper_tables
from sri_cli.metrics.published import DATA, LAYOUTS, PUBLISHED, Layout

__all__ = ["PaperTable", "format_paper_tables", "paper_tables"]

Column = tuple[str, str]  # data set, column of `measured.COLUMNS`


def paper_tables(measurements: Iterable[Measurement]) -> list[PaperTable]:
    """Tables 1 to 4 with their published rows and ours, then whatever has no place in them.

    `measurements`: JSON objects of a metrics.jsonl, later ones newer. Only the tables that have a
    row of ours.
    """
    measured = newest(measurements)
    rows = {layout.number: rows_of(layout, measured) for layout in LAYOUTS}
    ours = [group for some in rows.values() for row in some for group in row.groups.values()]
    shown = {id(m) for group in ours for m in group.measurements}
    unshown = [m for m in measured if id(m) not in shown]
    others = [m for m in unshown if not any(belongs(m, group) for group in ours)]
    tables = []
    for layout in LAYOUTS:
        if rows[layout.number]:
            tables.append(_table(layout, rows[layout.number], unshown))
            unshown = _not_of(rows[layout.number], unshown)  # told in the table's notes
    return [*tables, *([_other_runs(others)] if others else [])]


def _not_of(rows: Sequence[Row], unshown: Sequence[Measurement]) -> list[Measurement]:
    here = [group for row in rows for group in row.groups.values()]
    return [m for m in unshown if not any(belongs(m, group) for group in here)]


def _table(layout: Layout, ours: Sequence[Row], unshown: Sequence[Measurement]) -> PaperTable:
    columns = _with_own(layout.columns, ours)
    headings = [_heading(column, layout.split) for _, column in columns]
    lines = [["model", "origin", *headings]]
    for name, recipe in layout.rows.items():
        lines.append([name, "published", *_printed(layout.number, name, columns)])
        lines += [_measured(row, columns, headings) for row in ours if row.recipe == recipe]
    several = len({data for data, _ in columns}) > 1
    measured = {data for row in ours for data in row.groups}
    return PaperTable(
        number=layout.number,
        caption=f"The paper's Table {layout.number}: {layout.caption}",
        rows=lines,
        spans=["", "", *(DATA[data] if several else "" for data, _ in columns)],
        shown=[name for data, name in DATA.items() if data in measured],
        notes=notes_of(layout, [(row.name, list(row.groups.values())) for row in ours], unshown),
    )


def _printed(table: int, row: str, columns: Sequence[Column]) -> list[str]:
    cells = [cell for cell in PUBLISHED if (cell.table, cell.row) == (table, row)]
    found = {(cell.data, cell.metric): cell.text for cell in cells}
    return [found.get(column, "-") for column in columns]


def _measured(row: Row, columns: Sequence[Column], headings: Sequence[str]) -> list[str]:
    cells = [
        row.groups[data].cell(column, heading) if data in row.groups else ""
        for (data, column), heading in zip(columns, headings, strict=True)
    ]
    return [row.name, row.origin, *cells]


def _with_own(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The paper's columns, and after those of a data set our own that some run has there."""
    found = []
    for data in dict.fromkeys(data for data, _ in columns):
        here = {c for row in rows if data in row.groups for c in row.groups[data].columns()}
        found += [column for column in columns if column[0] == data]
        found += [(data, column) for column in OWN_COLUMNS if column in here]
    return found


def _other_runs(others: Sequence[Measurement]) -> PaperTable:
    rows = other_rows(others)
    have = {column for row in rows for group in row.groups.values() for column in group.columns()}
    columns = [column for column in COLUMNS if column in PAPER_COLUMNS or column in have]
    headings = [_heading(column, None) for column in columns]
    unshown = [m for m in others if SHUFFLED.get(m["metric"], column_of(m)) not in COLUMNS]
    lines = [["model", "origin", "data", *headings]]
    for row in rows:
        ((data, group),) = row.groups.items()
        words = ", ".join(filter(None, [data, group.data.get("split")]))
        cells = [group.cell(c, heading) for c, heading in zip(columns, headings, strict=True)]
        lines.append([row.name, row.origin, words, *cells])
    return PaperTable(
        number=None,
        caption="Other runs: of recipes, data sets or splits that the paper's tables do not have",
        rows=lines,
        spans=[""] * len(lines[0]),
        shown=[],
        notes=notes_of(None, [(row.name, list(row.groups.values())) for row in rows], unshown),
        words=3,
    )


def _heading(column: str, split: str | None) -> str:
    name = COLUMNS[column][0]
    return f"{name}-{split}" if column == "fid" and split not in (None, "test") else name
