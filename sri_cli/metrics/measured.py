"""Measurements of runs gathered: the newest of each, runs that differ in their seed in one group.

A measurement is a JSON object as in a run's metrics.jsonl.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

Measurement = dict[str, Any]

# column -> heading, decimals, factor (shares are shown in percent)
PAPER_COLUMNS = {
    "fid": ("FID", 1, 1),
    "ari_fg": ("ARI-FG", 3, 1),
    "bits_per_dimension": ("bits/dim", 3, 1),
    "sacc": ("S-Acc %", 1, 100),
}
# No columns of the paper's.
OWN_COLUMNS = {
    "other_fd": ("FD, other features", 1, 1),
    "stack_fd": ("stack-FD", 2, 1),
    "sacc_estimate": ("S-Acc estimate %", 1, 100),
    "order_iou": ("order IoU", 3, 1),
    "order_information": ("order MI", 3, 1),
}
COLUMNS = PAPER_COLUMNS | OWN_COLUMNS
SHUFFLED = {f"{key}_shuffled": key for key in ("order_iou", "order_information")}
# Of generated scenes alone: the split that was named beside them plays no part.
WITHOUT_SPLIT = {"sacc", "sacc_estimate", "order_iou", "order_information", *SHUFFLED}
BEAR_NAMES = ("fid", "other_fd", "stack_fd", "sacc")  # their names tell how they were measured
OF_ONE_RUN = ("run", "training_seed", "checkpoint", "model")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the training seed, measured on one data file."""

    measurements: tuple[Measurement, ...]

    @property
    def subject(self) -> dict[str, Any]:
        return self.measurements[0]["subject"]

    @property
    def data(self) -> dict[str, Any]:
        return data_of(self.measurements[0])

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """The subjects, by what tells them apart."""
        return {identity(m): m["subject"] for m in self.measurements}

    def columns(self) -> list[str]:
        """The columns that this group has measurements for, in the order of COLUMNS."""
        mine = {column_of(m) for m in self.measurements}
        return [column for column in COLUMNS if column in mine]

    def alike(self, column: str) -> list[list[Measurement]]:
        """The measurements of a column; those done in the same way in one list."""
        parts: dict[str, list[Measurement]] = {}
        for m in self.measurements:
            if column_of(m) == column:
                way = [m.get(key) for key in ("name", "protocol", "slots", "temperature")]
                parts.setdefault(json.dumps(way), []).append(m)
        return list(parts.values())

    def shuffled(self, column: str) -> list[Measurement]:
        """The known values of a column's metric with the slots in random order."""
        found = [m for m in self.measurements if SHUFFLED.get(m["metric"]) == column]
        return [m for m in found if number(m) is not None]

    def cell(self, column: str, heading: str = "") -> str:
        """Mean ± standard deviation over seeds; one: the value [its interval]; none: a dash.

        What was not measured as `heading` says bears its own name.
        """
        parts = [self._part(part, column, heading) for part in self.alike(column)]
        return "; ".join(filter(None, parts)) or "-"

    def _part(self, part: Sequence[Measurement], column: str, heading: str) -> str:
        known = [m for m in part if number(m) is not None]
        if not known:
            return ""
        remarks = []
        if column in BEAR_NAMES and known[0]["name"] != heading.removesuffix(" %"):
            remarks.append(known[0]["name"])
        if len(known) != len(self.runs):
            remarks.append(f"n={len(known)}")
        shuffled = self.shuffled(column)
        if shuffled:
            remarks.append(f"shuffled {rounded(mean(m['value'] for m in shuffled), column)}")
        return estimate(known, column) + f" ({', '.join(remarks)})" * bool(remarks)


def newest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """The last of each subject, metric, name, data file and split, in the order they came in."""
    found: dict[tuple[Any, ...], Measurement] = {}
    for m in measurements:
        split = None if m["metric"] in WITHOUT_SPLIT else split_of(m)
        key = (identity(m), m["metric"], m["name"], file_of(m), split)
        found.pop(key, None)
        found[key] = m
    return list(found.values())


def groups(measurements: Iterable[Measurement], by_split: bool) -> list[Group]:
    """Runs that differ in the training seed alone together; `by_split`: and in the split.

    Of two runs with the same seed the newer is in the group, the other in one of its own.
    """
    parts: dict[str, list[Measurement]] = {}
    for m in measurements:
        setting = {k: v for k, v in m["subject"].items() if k not in OF_ONE_RUN}
        key = json.dumps([setting, file_of(m), split_of(m) if by_split else None], sort_keys=True)
        parts.setdefault(key, []).append(m)
    return [group for part in parts.values() for group in _one_run_per_seed(part)]


def _one_run_per_seed(part: Sequence[Measurement]) -> Iterator[Group]:
    while part:
        last = {_seed(m): identity(m) for m in part}
        yield Group(tuple(m for m in part if last[_seed(m)] == identity(m)))
        part = [m for m in part if last[_seed(m)] != identity(m)]


def column_of(m: Measurement) -> str:
    """The column of a measurement, or its metric when it has none."""
    if m["metric"] == "fid" and not m["name"].startswith("FID"):
        return "other_fd"
    return m["metric"]


def identity(m: Measurement) -> str:
    """What was measured: a run's path may change, its weights do not."""
    subject = m["subject"]
    if subject.get("model"):
        return str(subject["model"])
    return json.dumps([subject.get(key) for key in ("run", "checkpoint", "images")])


def data_of(m: Measurement) -> dict[str, Any]:
    return m.get("data") or {}


def split_of(m: Measurement) -> str | None:
    return data_of(m).get("split")


def file_of(m: Measurement) -> tuple[Any, ...]:
    """What tells one data file from another."""
    return tuple(data_of(m).get(key) for key in ("name", "image_size", "source", "sha256"))


def number(m: Measurement) -> float | None:
    """The value; None for one that is not defined."""
    value = m["value"]
    return None if value is None or math.isnan(value) else value


def estimate(known: Sequence[Measurement], column: str) -> str:
    """Values of one column in words."""
    values = [m["value"] for m in known]
    if len(values) > 1:
        return f"{rounded(mean(values), column)} ± {rounded(stdev(values), column)}"
    low, high = known[0].get("low"), known[0].get("high")
    if low is None or high is None:
        return rounded(values[0], column)
    return f"{rounded(values[0], column)} [{rounded(low, column)}, {rounded(high, column)}]"


def rounded(value: float, column: str) -> str:
    """With the column's decimals and unit; without a column, nats with one, scores with three."""
    _, decimals, factor = COLUMNS.get(column, ("", 1 if column == "negative_elbo" else 3, 1))
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value * factor, decimals) + 0.0:.{decimals}f}"


def _seed(m: Measurement) -> Any:
    seed = m["subject"].get("training_seed")
    return identity(m) if seed is None else seed
