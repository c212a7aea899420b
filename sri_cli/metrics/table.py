"""Measurements as a table for reading: a line per value, a column per run or folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sri_cli.metrics.records import Measurement

PART, NO_PART = "a part of the bound", "no part of the bound"  # a loss term's protocol ends so
PERCENT = ("sacc_estimate", "sacc")
ALWAYS = ("images", "scenes", "real", "generated", "accepted")  # counts that are told when 0, too
# How keys of measurements begin, in the order of a table.
KINDS = (
    *("ari_fg", "msc_fg", "negative_elbo", "bits_per_dimension", "term_"),
    *("order_iou", "order_information", "sacc", "stack_fd", "fid"),
)
DECIMALS = {
    "negative_elbo": 1,
    "bits_per_dimension": 4,
    "fid": 2,
    "stack_fd": 2,
    **dict.fromkeys(PERCENT, 1),
}


def in_order(records: Sequence[Measurement]) -> list[Measurement]:
    """Values of one kind beside each other, whenever they were measured."""

    def place(record: Measurement) -> int:
        kind = (i for i, start in enumerate(KINDS) if record["metric"].startswith(start))
        return next(kind, len(KINDS))

    return sorted(records, key=place)


def table_rows(records: Sequence[Measurement]) -> list[list[str]]:
    """The header and a row per value; a dash where a run has none."""
    titles = _titles(records)
    found = {(label(record), _whose(record)): cell(record) for record in records}
    names = list(dict.fromkeys(label(record) for record in in_order(records)))
    rows = [[name, *(found.get((name, subject), "-") for subject in titles)] for name in names]
    return [["", *titles.values()], *rows]


def _whose(record: Measurement) -> tuple[str, int | None]:
    """The run and its step, or the folder."""
    subject = record["subject"]
    return subject["images" if subject["kind"] == "images" else "run"], subject.get("step")


def _titles(records: Sequence[Measurement]) -> dict[tuple[str, int | None], str]:
    """A heading for each run or folder: its name, or the whole path where names are alike."""
    subjects = list(dict.fromkeys(_whose(record) for record in records))
    names = [Path(path).name for path, _ in subjects]
    alike = len(set(zip(names, (step for _, step in subjects), strict=True))) < len(subjects)
    return {
        (path, step): (path if alike else name) + ("" if step is None else f", step {step:,}")
        for (path, step), name in zip(subjects, names, strict=True)
    }


def label(record: Measurement) -> str:
    """The name of a value, with its unit where it has one."""
    if record["metric"].startswith("term_"):
        sign = "+" if record["protocol"].endswith(PART) else "outside the bound:"
        return f"{sign} {record['name']}, nats (bits/dim)"
    return record["name"] + (", %" if record["metric"] in PERCENT else "")


def cell(record: Measurement) -> str:
    """value [low, high]."""
    metric, value = record["metric"], record["value"]
    if metric.startswith("term_") and value is not None:
        dimensions = 3 * record["data"]["image_size"] ** 2
        return f"{number(value, 1)} ({number(value / dimensions / math.log(2), 4)})"
    factor, decimals = 100 if metric in PERCENT else 1, DECIMALS.get(metric, 3)
    value, low, high = (end and end * factor for end in (value, record["low"], record["high"]))
    return estimate_words(value, low, high, decimals)


def estimate_words(
    value: float | None, low: float | None, high: float | None, decimals: int = 3
) -> str:
    """value [low, high], a dash for none."""
    words = number(value, decimals)
    if value is None or low is None or high is None:
        return words
    return f"{words} [{number(low, decimals)}, {number(high, decimals)}]"


def number(value: float | None, decimals: int) -> str:
    """Rounded; a dash for none."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "-" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def footnotes(records: Sequence[Measurement]) -> list[str]:
    """What was measured how: under each split and seed, a line for values of one protocol."""
    told: dict[str, dict[str, list[str]]] = {}
    for record in in_order(records):
        told.setdefault(_where(record), {}).setdefault(_how(record), []).append(record["name"])
    lines = []
    for where, ways in told.items():
        lines.append(where)
        lines += [f"  {', '.join(dict.fromkeys(names))}: {how}" for how, names in ways.items()]
    return lines


def _where(record: Measurement) -> str:
    data, seed = record["data"], f"seed {record['seed']}"
    if data is None:
        return seed
    source = "" if data["source"] == "original" else f" ({data['source']})"
    return f"{data['split']} split of {data['name']}{source}, {data['image_size']} px; {seed}"


def _how(record: Measurement) -> str:
    counts = {what: count for what, count in record["counts"].items() if count or what in ALWAYS}
    words = [f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()]
    return "; ".join([", ".join(words), record["protocol"]])
