"""What stands below a table: the marks, and how each of our rows was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sri_cli.metrics.measured import (
    COLUMNS,
    OWN_COLUMNS,
    SHUFFLED,
    WITHOUT_SPLIT,
    Group,
    Measurement,
    column_of,
    estimate,
    file_of,
    identity,
    number,
    split_of,
)
from sri_cli.metrics.published import PUBLISHED, WORSE, Layout

NamedGroups = Sequence[tuple[str, Sequence[Group]]]  # a row's name, its runs by data set


def notes_of(layout: Layout | None, rows: NamedGroups, unshown: Sequence[Measurement]) -> list[str]:
    """The marks of a table, then a note per row of ours and data set.

    `unshown`: measurements that no cell of any table shows; those of these runs are told here.
    """
    found = [(name, group) for name, some in rows for group in some]
    notes = [*_published(layout), *_measured([group for _, group in found])]
    for name, group in found:
        notes.append(_row(name, group) + _besides(group, unshown))
        unshown = [m for m in unshown if not belongs(m, group)]
    return notes


def _published(layout: Layout | None) -> list[str]:
    if layout is None:
        return []
    cells = [cell for cell in PUBLISHED if cell.table == layout.number]
    note = "published: as printed in the paper"
    if any(cell.taken_over for cell in cells):
        note += "; * taken over from the GENESIS-v2 paper"
    if any(cell.printed == WORSE for cell in cells):
        note += f"; {WORSE}: than SRI, no figure"
    if layout.split is None:
        note += "; the split is not named, FID and bits/dim are those of Table 4 (validation)"
    return [note + "."]


def _measured(found: Sequence[Group]) -> list[str]:
    if not found:
        return []
    marks = ["measured: our runs"]
    if any(len(group.runs) > 1 for group in found):
        marks.append("n runs that differ in the training seed: mean ± sample standard deviation")
    if any(_alone(group) for group in found):
        marks.append("[low, high]: the interval of one run")
    if any(m["metric"] in SHUFFLED for group in found for m in group.measurements):
        marks.append("shuffled: the same with the slots in random order")
    own = [COLUMNS[c][0] for c in OWN_COLUMNS if any(c in group.columns() for group in found)]
    marks += [f"no column of the paper's: {', '.join(own)}"] * bool(own)
    sources = {str(group.data.get("source")) for group in found}
    if "simulated" in sources:
        marks.append("simulated: pictures of our own simulation, not the original data set")
    return ["; ".join(marks) + "."]


def _alone(group: Group) -> bool:
    """Whether a cell shows an interval."""
    parts = [part for column in group.columns() for part in group.alike(column)]
    return any(len(part) == 1 and part[0].get("low") is not None for part in parts)


def _row(name: str, group: Group) -> str:
    here = f"{name} on {_data(group.data)}: {_subjects(group)}."
    ways: dict[str, list[str]] = {}
    for column in group.columns():
        for part in group.alike(column):
            for way in dict.fromkeys(_way(m, len(part) == 1) for m in part):
                ways.setdefault(way + _shuffled(group, column), []).append(part[0]["name"])
    here += "".join(f" {', '.join(names)}: {way}." for way, names in ways.items() if way)
    warnings = dict.fromkeys(m["warning"] for m in group.measurements if m.get("warning"))
    return here + "".join(f" Warning: {warning.rstrip('.')}." for warning in warnings)


def _data(data: dict[str, Any]) -> str:
    words = [data.get("source"), f"{data['image_size']} px" if data.get("image_size") else None]
    return f"{data.get('name', '-')} ({', '.join(filter(None, words))})"


def _subjects(group: Group) -> str:
    subjects = list(group.runs.values())
    if "images" in group.subject:
        count = group.subject.get("count")
        return str(group.subject["images"]) + (f", {count:,} pictures" if count else "")
    seeds = [str(s["training_seed"]) for s in subjects if s.get("training_seed") is not None]
    words = [", ".join(str(s.get("run")) for s in subjects)]
    words += [f"training seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"] * bool(seeds)
    step = group.subject.get("step")
    return "; ".join(words + ([f"step {step:,}"] if step is not None else []))


def _way(m: Measurement, alone: bool) -> str:
    """Counts, split, protocol and, of a lone value, the interval."""
    counts = [f"{count:,} {what.replace('_', ' ')}" for what, count in _counts(m)]
    split = None if m["metric"] in WITHOUT_SPLIT else split_of(m)
    words = [", ".join(counts), f"{split} split" if split else "", m.get("protocol")]
    words += [f"{m['slots']} slots"] if m.get("slots") else []
    words += [m.get("interval")] if alone and m.get("low") is not None else []
    return "; ".join(filter(None, words))


def _counts(m: Measurement) -> list[tuple[str, int]]:
    return [(what, count) for what, count in (m.get("counts") or {}).items() if count]


def _shuffled(group: Group, column: str) -> str:
    found = group.shuffled(column)
    return f"; shuffled {estimate(found, column)}" if found else ""


def _besides(group: Group, unshown: Sequence[Measurement]) -> str:
    """What else is known of these runs; the terms of the loss go without their values."""
    named: dict[str, list[Measurement]] = {}
    for m in unshown:
        if belongs(m, group):
            word = "terms of the loss" if m["metric"].startswith("term_") else m["name"]
            named.setdefault(f"{word} ({split_of(m)})", []).append(m)
    words = [
        label if label.startswith("terms of the loss") else f"{label} {_value(some)}"
        for label, some in named.items()
    ]
    return f" Without a column: {', '.join(words)}." if words else ""


def belongs(m: Measurement, group: Group) -> bool:
    """Whether it is of one of the group's runs, on the same data file."""
    return identity(m) in group.runs and file_of(m) == file_of(group.measurements[0])


def _value(some: Sequence[Measurement]) -> str:
    known = [m for m in some if number(m) is not None]
    return estimate(known, column_of(some[0])) if known else "-"
