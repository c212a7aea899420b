"""Tables for reading: a dash for what was not measured, a line per value, a column per run."""

from __future__ import annotations

from typing import Any

from sri_cli.metrics.table import footnotes, table_rows

BASE = {
    "metric": "ari_fg",
    "name": "ARI-FG",
    "value": 0.12345,
    "low": None,
    "high": None,
    "counts": {"images": 5, "without_foreground": 2},
    "subject": {"kind": "run", "run": "runs/a_b", "step": 1000},
    "data": {"name": "x", "image_size": 32, "source": "simulated", "split": "val"},
    "seed": 0,
    "protocol": "strongest decoded mask",
}
OTHER = {"kind": "run", "run": "runs/other", "step": 10}


def record(**more: Any) -> dict[str, Any]:
    return {**BASE, **more}


def test_a_line_per_value_and_a_column_per_run() -> None:
    header, ari, covering = table_rows(
        [
            record(low=-0.0001, high=0.25),
            record(subject=OTHER, value=None),
            record(subject=OTHER, metric="msc_fg", name="mSC-FG", value=1.0),
        ]
    )
    assert header == ["", "a_b, step 1,000", "other, step 10"]
    assert ari == ["ARI-FG", "0.123 [0.000, 0.250]", "-"]
    assert covering == ["mSC-FG", "-", "1.000"]


def test_units() -> None:
    term = record(metric="term_nll", name="nll", value=3 * 32**2, protocol="a part of the bound")
    rows = table_rows(
        [
            term,
            {**term, "metric": "term_seg_kl", "name": "seg kl", "protocol": "no part of the bound"},
            record(metric="sacc_estimate", name="S-Acc estimate", value=0.5, low=0.4, high=0.6),
            record(metric="fid", name="FID(5/9)", value=71.234),
        ]
    )[1:]
    assert rows == [
        ["+ nll, nats (bits/dim)", "3072.0 (1.4427)"],  # 1 nat a value is log2(e) bits
        ["outside the bound: seg kl, nats (bits/dim)", "3072.0 (1.4427)"],
        ["S-Acc estimate, %", "50.0 [40.0, 60.0]"],
        ["FID(5/9)", "71.23"],
    ]


def test_a_folder_of_pictures_bears_its_name() -> None:
    subject = {"kind": "images", "images": "some/where", "count": 5}
    assert table_rows([record(subject=subject)])[0] == ["", "where"]


def test_folders_of_one_name_stay_apart() -> None:
    header, row = table_rows(
        [
            record(subject={"kind": "images", "images": path, "count": 5}, value=value)
            for path, value in (("a/images", 0.25), ("b/images", 0.5))
        ]
    )
    assert header == ["", "a/images", "b/images"] and row == ["ARI-FG", "0.250", "0.500"]


def test_values_of_a_kind_stand_together_whenever_they_were_measured() -> None:
    rows = table_rows(
        [
            record(metric="fid", name="FID-2k"),
            record(subject=OTHER, metric="order_iou", name="order IoU"),
            record(metric="ari_fg_attention", name="ARI-FG attention"),
            record(),
            record(metric="negative_elbo", name="-ELBO"),
        ]
    )
    names = [row[0] for row in rows]
    assert names == ["", "ARI-FG attention", "ARI-FG", "-ELBO", "order IoU", "FID-2k"]
    assert rows[0][1:] == ["a_b, step 1,000", "other, step 10"]


def test_footnotes_tell_counts_split_source_and_protocol_once() -> None:
    none = record(name="FID", seed=1, counts={"images": 0, "without_foreground": 0})
    told = footnotes(
        [record(), record(metric="msc_fg", name="mSC-FG"), record(counts={"n": 1}), none]
    )
    assert told == [
        "val split of x (simulated), 32 px; seed 0",
        "  ARI-FG, mSC-FG: 5 images, 2 without foreground; strongest decoded mask",
        "  ARI-FG: 1 n; strongest decoded mask",
        "val split of x (simulated), 32 px; seed 1",
        "  FID: 0 images; strongest decoded mask",
    ]
