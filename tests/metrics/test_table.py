"""Tables: what was not measured is a dash, LaTeX compiles, text fits a terminal."""

from __future__ import annotations

from sri_cli.metrics.table import footnote, format_table, table_rows

ESTIMATE = {"value": -0.0001, "low": -0.02, "high": 0.25}
ORDER = {
    "scenes": 9,
    **{
        w: dict.fromkeys(["iou_over_chance", "mutual_information"], ESTIMATE)
        for w in ("model", "shuffled")
    },
}
FIRST = {"run": "runs/a_b", "step": 10, "images": 5, "data": "x", "split": "test"}
RECORDS = [FIRST | {"ari_fg": 0.12345, "order": ORDER}, FIRST | {"ari_fg": None, "msc_fg": 1.0}]


def test_cells() -> None:
    header, first, second = table_rows(RECORDS)
    assert header[:5] == ["run", "step", "images", "ARI-FG", "mSC-FG"]
    assert first[:5] == ["a_b", "10", "5", "0.123", "-"]
    assert first[5] == "0.000 [-0.020, 0.250]"
    assert second[3:] == ["-", "1.000", "-", "-", "-", "-"]


def test_styles() -> None:
    rows = table_rows(RECORDS)
    markdown = format_table(rows, "markdown").splitlines()
    assert len(markdown) == 4 and len({line.count("|") for line in markdown}) == 1
    latex = format_table(rows, "latex")
    assert r"a\_b" in latex and latex.count(r"\\") == 3
    text = format_table(rows, "text")
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[3].split() == ["ARI-FG", "0.123", "-"]


def test_footnote_says_what_was_left_out() -> None:
    words = footnote(RECORDS[0] | {"without_foreground": 2})
    assert "2 without foreground" in words and "9 new scenes" in words
    assert "foreground" not in footnote(FIRST)
