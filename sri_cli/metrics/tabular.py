"""Tables of text as plain text, Markdown or LaTeX; every character appears as it is in the cell."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from sri_cli.console import format_table

WIDTH = 88  # of a note in text
_LATEX = str.maketrans(
    {sign: rf"\{sign}" for sign in "&%_#${}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "†": r"$\dagger$",
    }
)


class Table(NamedTuple):
    """Rows (the header first) with a caption above and notes below.

    The first `left` columns are aligned left, the others right. A figure shades the rows with an
    index in `marked` (0 is the header).
    """

    caption: str
    rows: list[list[str]]
    notes: list[str]
    left: int = 1
    marked: frozenset[int] = frozenset()


def format_tables(tables: Sequence[Table], style: str = "text") -> str:
    """All tables below each other; `style` is `text`, `markdown` or `latex`."""
    one = {"text": _text, "markdown": _markdown, "latex": _latex}[style]
    return "\n\n\n".join(one(table) for table in tables)


def _text(table: Table) -> str:
    notes = [
        textwrap.fill(
            one_line(note),
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,  # paths stay whole
        )
        for note in table.notes
    ]
    header, *rows = ([one_line(cell) for cell in row] for row in table.rows)
    text = format_table(header, rows, table.left)
    return "\n\n".join([one_line(table.caption), text, "\n".join(notes)])


def _markdown(table: Table) -> str:
    notes = "\n".join(f"- {markdown_text(note)}" for note in table.notes)
    rows = markdown_table(table.rows, table.left)
    return f"**{markdown_text(table.caption)}**\n\n{rows}\n\n{notes}"


def _latex(table: Table) -> str:
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.caption)}}}",
            latex_table(table.rows, table.left),
            "",
            r"\raggedright\footnotesize",
            *(latex_text(note) + r"\par" for note in table.notes),
            r"\end{table}",
        ]
    )


def markdown_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first row is the header; the first `left` columns are aligned left."""
    lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]
    rule = "|" + "---|" * left + "---:|" * (len(rows[0]) - left)
    return "\n".join([lines[0], rule, *lines[1:]])


def latex_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A tabular with the rules of the package booktabs."""
    columns = "l" * left + "r" * (len(rows[0]) - left)
    header, *body = map(_latex_row, rows)
    lines = [r"\toprule", header, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}"])


def markdown_text(text: str) -> str:
    """Text with Markdown's markup escaped."""
    text = re.sub(r"([\\`*|<~])", r"\\\1", one_line(text))
    # Inside a word an underscore means nothing.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def latex_text(text: str) -> str:
    """Text outside of mathematics."""
    return one_line(text).translate(_LATEX)


def _latex_row(cells: Sequence[str]) -> str:
    line = " & ".join(map(latex_text, cells)) + r" \\"
    # After the \\ of the line before, [ and * would be taken as its argument.
    return "{}" + line if line.startswith(("[", "*")) else line


def one_line(text: str) -> str:
    """Any run of white space as one blank: a line end would break the table."""
    return " ".join(text.split())


def estimate_words(
    value: float | None, low: float | None, high: float | None, decimals: int = 3
) -> str:
    """value [low, high]; a dash for none."""
    if value is None:
        return "-"
    if low is None or high is None:
        return fixed(value, decimals)
    return f"{fixed(value, decimals)} [{fixed(low, decimals)}, {fixed(high, decimals)}]"


def fixed(value: float, decimals: int) -> str:
    """Rounded, without the sign of a rounded -0.0."""
    return f"{value:z.{decimals}f}"
