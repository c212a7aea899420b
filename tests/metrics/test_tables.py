"""Tables of measurements: what is averaged, what each cell shows, and the published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.metrics.published import published_steps, published_tables
from sri_cli.metrics.records import largest, read_records
from sri_cli.metrics.tables import (
    footnotes,
    paper_tables,
    table_rows,
)
from sri_cli.metrics.tabular import latex_table, latex_text, markdown_table, markdown_text
from tests.small_measurements import ARI, BITS, TINY, measured, printed

ONE = [
    measured(*BITS, 0.8312, "val", interval=(0.8301, 0.8323)),
    measured("fid", "FID-val", 81.04, "val"),
]
OTHER = {"run": "runs/other", "step": 10, "model": "b"}


def row(measurements: list[dict[str, Any]], start: str) -> list[str]:
    """The cells of the first row of the last table that begins so."""
    return next(row for row in paper_tables(measurements)[-1].rows if row[0].startswith(start))


def our_names(measurements: list[dict[str, Any]]) -> list[str]:
    """The names of our rows in the last table."""
    rows = paper_tables(measurements)[-1].rows
    return [row[0] for row in rows if row[1].startswith("measured")]


# Published figures --------------------------------------------------------------------------


def published(table: int, row: str, data: str, column: str) -> str:
    (part,) = (p for p in published_tables() if (p.number, p.data) == (table, data))
    return part.cells[row][part.columns.index(column)]


def test_published_figures() -> None:
    cells = [
        (part, cell) for part in published_tables() for row in part.cells.values() for cell in row
    ]
    assert len([cell for _, cell in cells if cell != "-"]) == 6 + 41 + 12 + 13
    assert sum(cell.endswith("*") for _, cell in cells) == 8
    assert {(part.number, part.split) for part, _ in cells} == {
        (1, None),
        (2, "test"),
        (3, "val"),
        (4, "val"),
    }
    for part in published_tables():
        assert all(len(row) == len(part.columns) for row in part.cells.values())
        assert part.cells.keys() <= part.recipes.keys()
    assert published(2, "GENESIS", "objects-room", "fid") == "62.8*"
    assert published(2, "SRI-EMORL", "clevr6", "fid") == "48.9"
    assert published(2, "GENESIS-v2-MoG", "shapestacks", "sacc") == "59"
    assert published(1, "SRI-SA", "shapestacks", "ari_fg") == "worse"
    assert published(4, "GENESIS + scene", "shapestacks", "bits_per_dimension") == "1.051"


@pytest.mark.parametrize(
    "name", sorted({recipe for table in published_tables() for recipe in table.recipes.values()})
)
def test_recipes_are_shipped_with_the_papers_steps_and_sizes(name: str) -> None:
    assert name in recipe_names()
    for data in {part.data for part in published_tables()} & set(data_sets(name)):
        recipe = load_recipe(name, data)
        assert recipe.train.steps == published_steps(name, data)
        assert recipe.model.image_size == (96 if data == "clevr6" else 64)


# Our rows -----------------------------------------------------------------------------------


def test_published_rows_and_ours() -> None:
    (table,) = paper_tables(ONE)
    assert table.rows == [
        ["model", "origin", "FID-val", "bits/dim", "S-Acc %"],
        ["(a) no scene variable", "published", "132.9", "0.836", "31.7"],
        ["(b) no alignment", "published", "123.2", "0.845", "43.7"],
        ["(c) no cross-order KL", "published", "106.3", "0.833", "61.3"],
        ["(d) full", "published", "75.0", "0.829", "72.0"],
        ["sri-g", "measured (original, n=1)", "81.0", "0.831 [0.830, 0.832]", "-"],
    ]
    assert "Table 3, ShapeStacks" in table.caption
    (note,) = (note for note in table.notes if note.startswith("sri-g: "))
    for fact in ("runs/x0", "320 images"):
        assert fact in note
    assert max(map(len, table.notes)) < 200  # footnotes, not protocols


def test_mean_and_standard_deviation_over_seeds() -> None:
    seeds = [
        measured("fid", "FID-val", fid, "val", training_seed=seed)
        for seed, fid in enumerate((70, 72, 77))
    ]  # 73 and sqrt((9 + 1 + 16) / 2)
    assert row(seeds, "sri-g")[1:3] == ["measured (original, n=3)", "73.0 ± 3.6"]


def test_newest_measurement_of_the_same_weights_counts() -> None:
    later = measured(*BITS, 0.9, "val")
    later["subject"] = later["subject"] | {"run": "/elsewhere/x0"}
    assert row([*ONE, later], "sri-g")[1:4] == ["measured (original, n=1)", "81.0", "0.900"]


def test_a_smaller_sample_never_replaces_a_larger_one() -> None:
    large, small = (
        measured(*BITS, value, "val") | {"counts": {"images": images}}
        for value, images in ((0.8, 1000), (0.9, 320))
    )
    assert largest([large, small]) == largest([small, large]) == [large]
    assert row([large, small], "sri-g")[3] == "0.800"
    again = large | {"value": 0.7}
    assert largest([large, again]) == [again]  # equal samples: the last one
    empty = large | {"value": None, "counts": {"images": 2000}}
    assert largest([large, empty]) == [large]
    real = [
        measured("stack_fd", f"stack-FD({n}/{n})", n, "val")
        | {"counts": {"real": n, "generated": n}}
        for n in (2000, 500)
    ]
    assert largest(real) == real[:1]  # the name states the sample
    dynamic = small | {"protocol": "dynamic slots"}
    assert largest([large, dynamic]) == [large, dynamic]


def test_the_last_count_of_people_counts_and_so_do_the_last_labels() -> None:
    """A second rater makes fewer scenes for each; a file prepared anew has other labels."""
    one, two = (
        measured("sacc", "S-Acc", value) | {"counts": {"scenes": scenes, "raters": raters}}
        for value, scenes, raters in ((1.0, 120, 1), (0.5, 100, 2))
    )
    assert largest([one, two]) == [two]
    unknown = measured(*ARI, 0.3) | {"counts": {"images": 1000}}
    old = measured(*ARI, 0.1, data={"labels": "aa"}) | {"counts": {"images": 1000}}
    new = measured(*ARI, 0.8, data={"labels": "bb"}) | {"counts": {"images": 320}}
    assert largest([old, new]) == [new] and largest([unknown, new]) == [unknown]
    assert largest([new, {**new, "counts": {"images": 10}}]) == [new]


def test_a_table_of_one_split_does_not_hide_the_other() -> None:
    ablation = {"recipe": "sri-g-no-scene"}
    of_test = measured(*ARI, 0.5, "test", **ablation)
    of_val = measured("fid", "FID-val", 132.9, "val", **ablation)
    order = measured("order_iou", "order IoU", 0.3, "test", **ablation)
    captions = [table.caption for table in paper_tables([of_test, of_val, order])]
    assert len(captions) == 2 and "Table 3" in captions[0]
    (cells,) = paper_tables([of_test, of_val, order])[1].rows[1:]
    assert "0.500" in cells and not any("132.9" in cell or "0.300" in cell for cell in cells)


def test_values_of_one_name_are_told_apart() -> None:
    both = [measured(*ARI, 0.5), measured(*ARI, 0.25) | {"protocol": "dynamic slots"}]
    other = measured(*ARI, 0.125, run="runs/other", model="b")
    assert table_rows([*both, other]) == [
        ["", "x0, step 500,000", "other, step 500,000"],
        ["ARI-FG (some protocol)", "0.500", "0.125"],
        ["ARI-FG (dynamic slots)", "0.250", "-"],
    ]
    assert [line[0] for line in table_rows([both[0], measured(*ARI, 0.1, "val")])[1:]] == [
        "ARI-FG (test split)",
        "ARI-FG (val split)",
    ]


def test_a_seed_counts_once() -> None:
    """A second run of the same seed is in a row of its own; the last measured joins the others."""
    first = measured("fid", "FID-val", 70, "val")
    again = measured("fid", "FID-val", 90, "val", run="runs/again")
    other = measured("fid", "FID-val", 72, "val", training_seed=1)
    assert row([first, again], "sri-g, again")[2] == "90.0"
    assert row([first, again], "sri-g, x0")[2] == "70.0"
    assert row([first, again, other], "sri-g")[2] == "81.0 ± 12.7"
    assert row([first, again, other, first], "sri-g")[2] == "71.0 ± 1.4"
    assert our_names([first, again, other]) == ["sri-g, again", "sri-g, x0"]
    below = [
        measured("fid", "FID-val", fid, "val", run=f"runs/{study}/x")
        for study, fid in (("a", 70), ("b", 90))
    ]
    assert our_names(below) == ["sri-g, runs/b/x", "sri-g, runs/a/x"]


@pytest.mark.parametrize(
    "other",
    [
        {"step": 400_000},
        {"size": "tiny"},
        {"started_from": ["x", 10]},
        {"data": {"sha256": "decaf"}},
        {"data": {"source": "simulated"}},
        {"data": {"image_size": 32}},
    ],
)
def test_only_like_runs_are_averaged(other: dict[str, Any]) -> None:
    second = measured("fid", "FID-val", 90, "val", training_seed=1, **other)
    (table,) = paper_tables([ONE[1], second])
    ours = [row for row in table.rows if row[0].startswith("sri-g")]
    assert {row[2] for row in ours} == {"81.0", "90.0"}
    assert len({(row[0], row[1]) for row in ours}) == 2  # and a reader can tell them apart


@pytest.mark.parametrize("how", [{"protocol": "other"}, {"slots": 5}, {"temperature": 0.5}])
def test_values_of_two_protocols_are_not_averaged(how: dict[str, Any]) -> None:
    other = measured(*BITS, 0.9, "val", training_seed=1) | how
    assert "±" not in row([*ONE, other], "sri-g")[3]
    counts = measured("fid", "FID-val(500/500)", 90, "val", training_seed=1)
    assert row([ONE[1], counts], "sri-g")[2] == "81.0 (n=1); 90.0 (FID-val(500/500), n=1)"


def test_undefined_values_are_not_zeros() -> None:
    none = measured("fid", "FID-val", None, "val", training_seed=1)
    assert row([ONE[1], none], "sri-g")[2] == "81.0 (n=1)"
    assert row([none, measured(*BITS, None, "val")], "sri-g")[2:4] == ["-", "-"]


def test_metrics_that_the_paper_does_not_have() -> None:
    mine = [
        *ONE,
        measured("sacc_estimate", "S-Acc estimate", 0.62, interval=(0.5, 0.7)),
        measured("order_iou", "order IoU", 0.31, interval=(0.3, 0.33)),
        measured("order_iou_shuffled", "order IoU shuffled", 0.001, interval=(0, 0.01)),
        measured("fid", "FD-random-inception-2k-val", 3.2, "val"),
    ]
    header = ["S-Acc %", "FD, other features", "S-Acc estimate %", "order IoU"]
    assert row(mine, "model")[4:] == header
    assert row(mine, "sri-g")[4:] == [
        "-",
        "3.2 (FD-random-inception-2k-val)",
        "62.0 [50.0, 70.0]",
        "0.310 [0.300, 0.330] (shuffled 0.001)",
    ]
    assert row(mine, "(d) full")[4:] == ["72.0", "-", "-", "-"]


def test_labelled_accuracy_is_in_percent_and_of_no_split() -> None:
    labels = measured("sacc", "S-Acc", 0.72, interval=(0.625, 0.7989))
    assert row([labels, *ONE], "sri-g")[-1] == "72.0 [62.5, 79.9]"
    assert [table.caption.split(",")[0] for table in paper_tables([labels])] == [
        "The paper's Table 2",
        "The paper's Table 3",
    ]


def test_a_value_of_no_split_stands_beside_the_others() -> None:
    labels = measured("sacc", "S-Acc", 0.72, recipe="mine")
    fid = measured("fid", "FID-val", 81.04, "val", recipe="mine")
    ((name, _, data, *cells),) = paper_tables([labels, fid])[0].rows[1:]
    assert (name, data, cells) == ("mine", "shapestacks, val", ["81.0 (FID-val)", "72.0"])
    both = [labels, fid, measured(*ARI, 0.5, recipe="mine")]
    rows = paper_tables(both)[0].rows[1:]
    assert {row[2]: row[-1] for row in rows} == {
        "shapestacks, val": "-",
        "shapestacks, test": "72.0",
    }


def test_small_simulated_runs_say_so() -> None:
    tiny = measured("fid", "FID(500/500)", 171.23, data=TINY, size="tiny", step=2000)
    tiny["warning"] = "500 images are too few."
    assert row([tiny], "sri-g, ")[:3] == [
        "sri-g, tiny 32 px, 2,000 steps",
        "measured (simulated, n=1)",
        "171.2† (FID(500/500))",
    ]
    shown = printed([tiny], "markdown")
    assert "† 500 images are too few." in shown and "simulated: " in shown


def test_other_runs_have_a_table_of_their_own() -> None:
    towers = measured(*ARI, 0.9, data={"name": "demo-towers"})
    folder = {
        "metric": "fid",
        "name": "FID-2k",
        "value": 44,
        "counts": {"real": 2000, "generated": 2000},
        "subject": {"kind": "images", "images": "/p/theirs", "count": 2000},
        "data": {"name": "my_set", "image_size": 64, "source": "folder", "split": "test"},
    }
    (table,) = paper_tables([towers, folder])
    assert table.rows == [
        ["model", "origin", "data", "FID", "ARI-FG"],
        [
            "sri-g, 64 px, 500,000 steps",
            "measured (original, n=1)",
            "demo-towers, test",
            "-",
            "0.900",
        ],
        ["theirs, 64 px", "measured (folder, images)", "my_set, test", "44.0 (FID-2k)", "-"],
    ]
    assert paper_tables([]) == [] and printed([]) == ""
    assert paper_tables([measured("msc_fg", "mSC-FG", 0.6)])[0].rows[1][3:] == ["-"] * 4


# The table for reading ----------------------------------------------------------------------


def test_a_row_per_value_and_a_column_per_run() -> None:
    rows = table_rows(
        [
            measured("fid", "FID-2k", 71.234, run="runs/a_b", step=1000),
            measured(*ARI, 0.12345, interval=(-0.0001, 0.25), run="runs/a_b", step=1000),
            measured(*ARI, None, **OTHER),
            measured("sacc_estimate", "S-Acc estimate", 0.5, interval=(0.4, 0.6), **OTHER),
            measured("negative_elbo", "-ELBO, nats", 1788.268, **OTHER),
            measured("term_nll", "nll", 12.345, **OTHER),
        ]
    )
    assert rows == [
        ["", "a_b, step 1,000", "other, step 10"],
        ["ARI-FG", "0.123 [0.000, 0.250]", "-"],
        ["-ELBO, nats", "-", "1788.3"],
        ["nll, nats", "-", "12.3"],
        ["S-Acc estimate, %", "-", "50.0 [40.0, 60.0]"],
        ["FID-2k", "71.2", "-"],
    ]


def test_folders_of_one_name_stay_apart() -> None:
    records = [
        measured(*ARI, value, kind="images", images=path, step=None)
        for path, value in (("a/images", 0.25), ("b/images", 0.5))
    ]
    assert table_rows(records) == [["", "a/images", "b/images"], ["ARI-FG", "0.250", "0.500"]]
    assert table_rows(records[:1])[0] == ["", "images"]


def test_footnotes_have_counts_split_source_and_protocol_once() -> None:
    record = measured(*ARI, 0.5, "val", data=TINY) | {"counts": {"images": 0, "without": 0}}
    assert footnotes([record, record | {"name": "mSC-FG"}, record | {"seed": 1}]) == [
        "val split of shapestacks (simulated), 32 px; seed 0",
        "  ARI-FG, mSC-FG: 0 images; some protocol",
        "val split of shapestacks (simulated), 32 px; seed 1",
        "  ARI-FG: 0 images; some protocol",
    ]


# Text, Markdown and LaTeX -------------------------------------------------------------------

ROWS = [["run", "ARI-FG"], ["a_b|c", "0.5 ± 0.1"], ["[d]\ne", "-"]]


def test_styles() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| run | ARI-FG |",
        "|---|---:|",
        r"| a_b\|c | 0.5 ± 0.1 |",
        "| [d] e | - |",
    ]
    assert latex_table(ROWS).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"run & ARI-FG \\",
        r"\midrule",
        r"a\_b\textbar{}c & 0.5 $\pm$ 0.1 \\",
        r"{}[d] e & - \\",  # without {} LaTeX would read [d] as the height of the line before
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("text", "latex", "markdown"),
    [
        ("50 % & #1_{x}$", r"50 \% \& \#1\_\{x\}\$", r"50 % & #1\_{x}$"),
        ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c", r"a\~b^c"),
        (r"C:\new", r"C:\textbackslash{}new", r"C:\\new"),
        ("p < 0.1 > q", r"p \textless{} 0.1 \textgreater{} q", r"p \< 0.1 > q"),
        ("sri_mog_2*", r"sri\_mog\_2*", r"sri_mog_2\*"),
        ("_old_ and `y`", r"\_old\_ and `y`", r"\_old\_ and \`y\`"),
    ],
)
def test_signs_stay_as_they_are(text: str, latex: str, markdown: str) -> None:
    assert latex_text(text) == latex and markdown_text(text) == markdown


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_every_style_has_all_cells_and_notes(style: str) -> None:
    shown = printed(ONE, style)
    for text in ("sri-g", "81.0", "0.831", "132.9", "published: as printed", "320 images"):
        assert text in shown
    if style == "latex":
        assert r"\caption{The paper's" in shown and shown.count("{") == shown.count("}")


def test_lines_that_are_no_measurement_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = measured(*ARI, 0.5)
    spoiled: list[dict[str, Any]] = [{"schema": 1}, whole | {"schema": 2}, whole | {"value": "x"}]
    spoiled += [{k: v for k, v in whole.items() if k != key} for key in ("counts", "protocol")]
    spoiled += [whole | {"subject": {"kind": "run"}}, whole | {"data": {}}, whole | {"counts": [1]}]
    lines = [json.dumps(one) for one in [*spoiled, whole]] + ["NaN", "[]", '{"schema": 1, "me']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_records(tmp_path) == [whole]
    assert capsys.readouterr().err.count("\n") == 1
