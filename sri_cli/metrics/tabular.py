"""Cells to tables of text, Markdown and LaTeX; every sign is shown as it stands in the cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    }
)


def aligned(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Columns padded with spaces: the first `words` flush left, the others flush right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < words else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """The first row is the header; all but the first `words` columns are flush right."""
    lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]
    rule = "|" + "---|" * words + "---:|" * (len(rows[0]) - words)
    return "\n".join([lines[0], rule, *lines[1:]])


def latex_table(rows: Sequence[Sequence[str]], words: int = 1, above: Sequence[str] = ()) -> str:
    """A plain tabular; needs no package. `above`: finished lines over the header."""
    places = "l" * words + "r" * (len(rows[0]) - words)
    header, *body = map(latex_row, rows)
    lines = [*above, header, r"\hline", *body]
    return "\n".join([rf"\begin{{tabular}}{{{places}}}", *lines, r"\end{tabular}"])


def markdown_text(text: str) -> str:
    """Text for a cell or a paragraph: what Markdown would take as markup is escaped."""
    text = re.sub(r"([\\`*|<~])", r"\\\1", one_line(text))
    # Inside a word an underscore means nothing.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def latex_text(text: str) -> str:
    """Text outside of mathematics."""
    return one_line(text).translate(_LATEX)


def latex_row(cells: Sequence[str]) -> str:
    """A line of a tabular."""
    line = " & ".join(map(latex_text, cells)) + r" \\"
    # After the \\ of the line before, [ and * would be taken as its argument.
    return "{}" + line if line.startswith(("[", "*")) else line


def one_line(text: str) -> str:
    """Any run of blanks and line ends as one blank: a line end would break the table."""
    return " ".join(text.split())
