"""The paper's tables as text, Markdown or LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sri_cli.metrics.tabular import (
    aligned,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    one_line,
)

WIDTH = 88  # of a note in text


@dataclass(frozen=True)
class PaperTable:
    """A table of cells with the notes that stand below it."""

    number: int | None  # None: not one of the paper's
    caption: str
    rows: list[list[str]]  # the header first; '-': no figure; '': the row's runs are on other data
    spans: list[str]  # per column: the data set's name, '' where one heading says all
    shown: list[str]  # data sets that text shows
    notes: list[str]
    words: int = 2  # leading columns of words


def format_paper_tables(tables: Sequence[PaperTable], style: str = "text") -> str:
    """All tables below each other; no table: an empty text."""
    one = {"text": _text, "markdown": _markdown, "latex": _latex}[style]
    return "\n\n\n".join(one(table) for table in tables)


def _text(table: PaperTable) -> str:
    """A terminal is too narrow for all data sets side by side: they stand below each other."""
    blocks = []
    for name in table.shown if any(table.spans) else [""]:
        rows = aligned(_of_data_set(table, name), table.words)
        blocks.append(f"{name}\n{rows}" if name else rows)
    notes = [
        textwrap.fill(
            one_line(note),
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,  # a path is copied whole
        )
        for note in table.notes
    ]
    return "\n\n".join([one_line(table.caption), *blocks, "\n".join(notes)])


def _of_data_set(table: PaperTable, name: str) -> list[list[str]]:
    """The columns of one data set, without the rows of runs on others."""
    places = [i for i, span in enumerate(table.spans) if span in ("", name)]
    rows = [[row[i] for i in places] for row in table.rows]
    return [row for row in rows if any(row[table.words :])]


def _markdown(table: PaperTable) -> str:
    header = [" ".join(filter(None, pair)) for pair in zip(table.spans, table.rows[0], strict=True)]
    notes = "\n".join(f"- {markdown_text(note)}" for note in table.notes)
    rows = markdown_table([header, *table.rows[1:]], table.words)
    return f"**{markdown_text(table.caption)}**\n\n{rows}\n\n{notes}"


def _latex(table: PaperTable) -> str:
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.caption)}}}",
            latex_table(table.rows, table.words, _spanning(table.spans)),
            "",
            r"\raggedright\footnotesize",
            *(latex_text(note) + r"\par" for note in table.notes),
            r"\end{table}",
        ]
    )


def _spanning(spans: Sequence[str]) -> list[str]:
    """The data sets' names over their columns."""
    if not any(spans):
        return []
    runs = [(name, len(list(same))) for name, same in groupby(spans)]
    cells = [
        rf"\multicolumn{{{count}}}{{c}}{{{latex_text(name)}}}" if name else " & " * (count - 1)
        for name, count in runs
    ]
    return [" & ".join(cells) + r" \\"]
