"""What our rows of the paper's tables hold: which runs are averaged, what is told of the others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.small_measurements import ARI, BITS, ONE, TINY, measured, printed


def row(measurements: list[dict[str, Any]], start: str) -> list[str]:
    """The cells of the first line of Markdown that begins so."""
    for line in printed(measurements, "markdown").splitlines():
        if line.startswith(f"| {start}"):
            return line.strip("| ").split(" | ")
    raise AssertionError(f"no row {start}")


def test_the_newest_measurement_wins() -> None:
    assert row([*ONE, measured(*BITS, 0.9, "val")], "sri-g ")[3] == "0.900"


def test_a_run_that_moved_is_the_same_run() -> None:
    moved = [m | {"subject": m["subject"] | {"run": "/elsewhere/x0"}} for m in ONE]
    assert "(original, n=1)" in row([*ONE, *moved], "sri-g ")[1]


def test_a_seed_counts_once() -> None:
    """A second run of the same seed is no second seed: it stands in a row of its own."""
    again = measured("fid", "FID-val", 90, "val", run="runs/again")
    lines = printed([ONE[1], again], "markdown").splitlines()
    rows = [line.split(" | ")[:3] for line in lines if line.startswith("| sri-g")]
    assert rows == [
        ["| sri-g, again", "measured (original, n=1)", "90.0"],
        ["| sri-g, x0", "measured (original, n=1)", "81.0"],
    ]


def test_of_two_runs_of_a_seed_the_one_measured_last_counts() -> None:
    first = measured("fid", "FID-val", 70, "val")
    others = [
        measured("fid", "FID-val", 90, "val", run="runs/again"),
        measured("fid", "FID-val", 72, "val", training_seed=1),
    ]
    assert row([first, *others], "sri-g ")[2] == "81.0 ± 12.7"
    assert row([first, *others, first], "sri-g ")[2] == "71.0 ± 1.4"


@pytest.mark.parametrize(
    "other",
    [
        {"step": 400_000},
        {"size": "tiny"},
        {"data": {"sha256": "decaf"}},
        {"data": {"source": "simulated"}},
        {"data": {"image_size": 32}},
    ],
)
def test_only_like_runs_are_averaged(other: dict[str, Any]) -> None:
    second = measured("fid", "FID-val", 90, "val", training_seed=1, **other)
    assert "±" not in printed([ONE[1], second], "markdown").split("- measured")[0]
    rows = [line for line in printed([ONE[1], second]).splitlines() if line.startswith("sri-g")]
    names = {line.split("  ")[0] + line.split("measured")[1][:12] for line in rows[:2]}
    assert len(names) == 2  # and a reader can tell them apart


def test_distances_measured_in_two_ways_are_not_averaged() -> None:
    other = measured("fid", "FID-val(500/500)", 90, "val", training_seed=1)
    assert row([ONE[1], other], "sri-g ")[2] == "81.0 (n=1); 90.0 (FID-val(500/500), n=1)"


@pytest.mark.parametrize("way", [{"protocol": "other"}, {"slots": 5}, {"temperature": 0.5}])
def test_values_measured_in_two_ways_are_not_averaged(way: dict[str, Any]) -> None:
    other = measured(*BITS, 0.9, "val", training_seed=1) | way
    assert "±" not in row([*ONE, other], "sri-g ")[3]


def test_values_that_are_not_defined_are_no_zeros() -> None:
    none = measured("fid", "FID-val", None, "val", training_seed=1)
    assert row([ONE[1], none], "sri-g ")[2] == "81.0 (n=1)"
    assert row([none, measured(*BITS, float("nan"), "val")], "sri-g ")[2:4] == ["-", "-"]


def test_our_own_metrics_have_columns_of_their_own() -> None:
    estimate = measured("sacc_estimate", "S-Acc estimate", 0.62, interval=(0.5, 0.7))
    order = measured("order_iou", "order IoU", 0.31, interval=(0.3, 0.33))
    shuffled = measured("order_iou_shuffled", "order IoU shuffled", 0.001, interval=(0, 0.01))
    random = measured("fid", "FD-random-inception-2k-val", 3.2, "val")
    mine = [*ONE, estimate, order, shuffled, random]
    assert row(mine, "model")[4:] == [
        "S-Acc %",
        "FD, other features",
        "S-Acc estimate %",
        "order IoU",
    ]
    assert row(mine, "sri-g ")[4:] == [
        "-",
        "3.2 (FD-random-inception-2k-val)",
        "62.0 [50.0, 70.0]",
        "0.310 [0.300, 0.330] (shuffled 0.001)",
    ]
    assert row(mine, "(d) full")[4:] == ["72.0", "-", "-", "-"]
    assert "shuffled 0.001 [0.000, 0.010]" in printed(mine, "markdown")


def test_labelled_accuracy_is_in_percent_and_of_no_split() -> None:
    labels = measured("sacc", "S-Acc", 0.72, interval=(0.625, 0.7989))
    assert row([labels, *ONE], "sri-g ")[-1] == "72.0 [62.5, 79.9]"
    assert "Table 2" in printed([labels]) and "Table 3" in printed([labels])
    later = measured("sacc", "S-Acc", 0.75, "val")
    assert row([labels, later, *ONE], "sri-g ")[-1] == "75.0"


def test_data_sets_share_a_row() -> None:
    clevr = {"name": "clevr6", "image_size": 96, "sha256": "beef"}
    both = [measured(*ARI, 0.7), measured(*ARI, 0.9, data=clevr, step=425_000)]
    assert row(both, "sri-g ") == ["sri-g", "measured (original, n=1)"] + (
        ["-", "0.900", "", "", "-", "0.700", "-"]
    )
    text = printed(both)
    assert text.count("\nsri-g  ") == 2 and "Objects Room" not in text


def test_nothing_measured_is_silent() -> None:
    beside = [measured("msc_fg", "mSC-FG", 0.6), measured("term_nll", "nll", 12.0)]
    shown = printed([measured(*ARI, 0.7), *beside], "markdown")
    assert "Without a column: mSC-FG (test) 0.600, terms of the loss (test)." in shown
    alone = printed(beside)
    assert alone.startswith("Other runs") and "mSC-FG (test) 0.600" in alone
    elsewhere = measured("msc_fg", "mSC-FG", 0.5, data=TINY)  # another file: no word of the row's
    assert "Other runs" in printed([measured(*ARI, 0.7), elsewhere])


def test_nats_have_one_decimal() -> None:
    bound = measured("negative_elbo", "-ELBO, nats", 1788.268, interval=(1783.9, 1792.6))
    assert "-ELBO, nats (test) 1788.3 [1783.9, 1792.6]." in printed([bound], "markdown")


def test_what_has_no_column_is_told_once() -> None:
    """SRI-MoG stands in Tables 1 and 2."""
    beside = measured("msc_fg", "mSC-FG", 0.6, recipe="sri-mog")
    shown = printed([measured(*ARI, 0.7, recipe="sri-mog"), beside], "markdown")
    assert shown.count("| sri-mog") == 2 and shown.count("mSC-FG") == 1


def test_notes_stand_in_the_order_of_the_rows() -> None:
    shown = printed([measured(*ARI, 0.7, recipe="sri-mog"), measured(*ARI, 0.6)], "markdown")
    second = shown.split("Table 2")[1]
    assert second.index("- sri-g on") < second.index("- sri-mog on")


def test_demo_towers_are_not_shapestacks() -> None:
    towers = measured(*ARI, 0.9, data={"name": "demo-towers"})
    assert printed([towers]).startswith("Other runs")
