"""A cell's signs come out as they went in: no style takes them as markup, none breaks the table."""

from __future__ import annotations

import pytest

from sri_cli.metrics.tabular import (
    aligned,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)

ROWS = [["run", "ARI-FG"], ["a_b|c", "0.5 ± 0.1"], ["[d]\ne", "-"]]


def test_text() -> None:
    assert aligned(ROWS).splitlines() == [
        "run       ARI-FG",
        "a_b|c  0.5 ± 0.1",
        "[d] e          -",
    ]


def test_markdown() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| run | ARI-FG |",
        "|---|---:|",
        r"| a_b\|c | 0.5 ± 0.1 |",
        "| [d] e | - |",
    ]


def test_latex() -> None:
    assert latex_table(ROWS).splitlines() == [
        r"\begin{tabular}{lr}",
        r"run & ARI-FG \\",
        r"\hline",
        r"a\_b\textbar{}c & 0.5 $\pm$ 0.1 \\",
        r"{}[d] e & - \\",  # without {} LaTeX would read [d] as the height of the line before
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50 % & #1_{x}$", r"50 \% \& \#1\_\{x\}\$"),
        ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c"),
        (r"C:\new", r"C:\textbackslash{}new"),
        ("p < 0.1 > q", r"p \textless{} 0.1 \textgreater{} q"),
    ],
)
def test_latex_signs(text: str, latex: str) -> None:
    assert latex_text(text) == latex


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("sri_mog_2", "sri_mog_2"),
        ("_old_ and __x__", r"\_old\_ and \_\_x\_\_"),
        ("52.6*", r"52.6\*"),
        (r"a\|b", r"a\\\|b"),
        ("<b> ~x~ `y`", r"\<b> \~x\~ \`y\`"),
    ],
)
def test_markdown_signs(text: str, markdown: str) -> None:
    assert markdown_text(text) == markdown
