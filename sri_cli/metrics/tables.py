"""Tables of measurements: one for reading, and the paper's with our runs beside its rows.

Every row of the paper's tables states in its second column whether it is published or measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sri_cli.console import format_table
from sri_cli.metrics.published import (
    Published,
    published_data,
    published_steps,
    published_tables,
)
from sri_cli.metrics.records import (
    METRIC_OF,
    SHUFFLED,
    WITHOUT_SPLIT,
    Measurement,
    file_of,
    identity,
    largest,
    other_features,
    split_of,
)
from sri_cli.metrics.tabular import Table, estimate_words, fixed

# Metric -> heading, decimals, factor (shares are shown in percent).
PAPER_COLUMNS = {
    "fid": ("FID", 1, 1),
    "ari_fg": ("ARI-FG", 3, 1),
    "bits_per_dimension": ("bits/dim", 3, 1),
    "sacc": ("S-Acc %", 1, 100),
}
OWN_COLUMNS = {
    "mbo": ("mBO", 3, 1),
    "miou": ("mIoU", 3, 1),
    "slots_exact": ("slot count exact %", 1, 100),
    "slots_difference": ("slot count off by", 2, 1),
    "kid": ("KID x1000", 2, 1000),
    "other_kid": ("KD x1000, other features", 2, 1000),
    "other_fid": ("FD, other features", 1, 1),
    "stack_fd": ("stack-FD", 2, 1),
    "plausible_by_eye": ("plausible by eye %", 1, 100),
    "sacc_estimate": ("S-Acc estimate %", 1, 100),
    "shapes_difference": ("shapes off by %", 1, 100),
    "order_iou": ("order IoU", 3, 1),
    "order_information": ("order MI", 3, 1),
}
COLUMNS = PAPER_COLUMNS | OWN_COLUMNS
# Columns in which the measurement's name states the protocol.
NAMED = ("fid", "kid", "other_fid", "other_kid", "stack_fd", "sacc", "plausible_by_eye")
COUNTS = ("images", "scenes", "real", "generated", "accepted")  # counts that are shown even when 0
# What a table may need to have explained, by what stands in one of its cells.
LEGEND = {
    "measured": "measured: our runs, n seeds",
    "simulated": "simulated: not the original images",
    "±": "±: standard deviation over seeds",
    "[": "[ ]: 95 % interval",
    "shuffled": "shuffled: slots in random order",
}
# Of a value that is shown times this.
UNITS: dict[float, str] = {1: "", 100: ", %", 1000: ", x1000"}
DOUBTFUL = "†"  # marks a value with a warning
OF_ONE_RUN = ("run", "opened_from", "training_seed", "checkpoint", "model")


def evaluation_text(records: Sequence[Measurement]) -> str:
    """The table for reading and its footnotes."""
    header, *rows = table_rows(records)
    return "\n".join([format_table(header, rows), "", *footnotes(records)])


def table_rows(records: Sequence[Measurement]) -> list[list[str]]:
    """The header, and a row per value with a column per run or folder; a dash for none."""
    subjects = list(dict.fromkeys(map(_subject, records)))
    names = [(Path(path).name, step) for path, step in subjects]
    if len(set(names)) < len(names):
        names = subjects
    titles = [name if step is None else f"{name}, step {step:,}" for name, step in names]
    records = _in_order(records)
    cells: dict[str, dict[tuple[str, int | None], str]] = {}
    for m, label in zip(records, _labels(records), strict=True):
        cells.setdefault(label, {})[_subject(m)] = estimate([m], m["metric"]) + mark([m])
    rows = [[label, *(own.get(one, "-") for one in subjects)] for label, own in cells.items()]
    return [["", *titles], *rows]


def footnotes(records: Sequence[Measurement]) -> list[str]:
    """How values were measured: a line for each split and seed, below it one per protocol."""
    notes: dict[str, dict[str, list[str]]] = {}
    for m in _in_order(records):
        data, where = m["data"], f"seed {m['seed']}"
        if data is not None:
            source = "" if data["source"] == "original" else f" ({data['source']})"
            split = f"{data['split']} split of {data['name']}{source}, {data['image_size']} px"
            where = f"{split}; {where}"
        how = "; ".join([_counts(m), m["protocol"]])
        notes.setdefault(where, {}).setdefault(how, []).append(m["name"])
    lines = []
    for where, protocols in notes.items():
        lines.append(where)
        lines += [f"  {', '.join(dict.fromkeys(names))}: {how}" for how, names in protocols.items()]
    doubts: dict[str, list[str]] = {}
    for m in _in_order(records):
        if m.get("warning"):
            doubts.setdefault(m["warning"], []).append(m["name"])
    for warning, names in doubts.items():
        lines.append(f"{DOUBTFUL} {', '.join(dict.fromkeys(names))}: {warning}")
    return lines


def mark(known: Sequence[Measurement]) -> str:
    """The mark of a value that has a warning, which stands below the table."""
    return DOUBTFUL if any(m.get("warning") for m in known) else ""


def _in_order(records: Sequence[Measurement]) -> list[Measurement]:
    """Metrics of one kind together, whenever they were measured."""
    return sorted(records, key=lambda m: [not m["metric"].startswith(s) for s in METRIC_OF])


def _subject(m: Measurement) -> tuple[str, int | None]:
    """The run and its step, or the folder."""
    subject = m["subject"]
    return subject["images" if subject["kind"] == "images" else "run"], subject.get("step")


def _labels(records: Sequence[Measurement]) -> list[str]:
    """A name for each; if a subject has several values of one name, with what tells them apart."""
    alike: dict[tuple[Any, ...], list[Measurement]] = {}
    for m in records:
        alike.setdefault((value_name(m), _subject(m)), []).append(m)
    apart: dict[str, set[str]] = {}  # name -> facts
    for (label, _), several in alike.items():
        facts = list(map(_facts, several))
        differ = {key for key in facts[0] if len({str(own[key]) for own in facts}) > 1}
        apart.setdefault(label, set()).update(differ)
    labels = []
    for m in records:
        told = [str(value) for key, value in _facts(m).items() if key in apart[value_name(m)]]
        labels.append(value_name(m) + f" ({'; '.join(told)})" * bool(told))
    return labels


def _facts(m: Measurement) -> dict[str, Any]:
    """What values of one name may differ in."""
    data = m.get("data") or {}
    return {
        "split": f"{split_of(m)} split",
        "data": f"{data.get('name')} {str(data.get('sha256'))[:8]}",
        "protocol": m["protocol"],
    }


def value_name(m: Measurement) -> str:
    """The name of a value with its unit."""
    if m["metric"].startswith("term_"):
        return f"{m['name']}, nats"
    return m["name"] + UNITS[_format(m["metric"])[1]]


def _counts(m: Measurement) -> str:
    counts = {what: count for what, count in m["counts"].items() if count or what in COUNTS}
    return ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())


def estimate(known: Sequence[Measurement], column: str) -> str:
    """Mean ± sample standard deviation of several values, or one value [its interval]."""
    values = [m["value"] for m in known if m["value"] is not None]
    if not values:
        return "-"
    if len(values) > 1:
        return f"{rounded(mean(values), column)} ± {rounded(stdev(values), column)}"
    decimals, factor = _format(column)
    low, high = (end and end * factor for end in (known[0].get("low"), known[0].get("high")))
    return estimate_words(values[0] * factor, low, high, decimals)


def rounded(value: float, column: str) -> str:
    """With the column's decimals and unit."""
    decimals, factor = _format(column)
    return fixed(value * factor, decimals)


def _format(column: str) -> tuple[int, float]:
    """Decimals and factor; without a column, nats have one decimal, scores three."""
    in_nats = column == "negative_elbo" or column.startswith("term_")
    column = column.removesuffix("_attention")
    if column.startswith("shapes_"):
        column = "shapes_difference"
    _, decimals, factor = COLUMNS.get(column, ("", 1 if in_nats else 3, 1))
    return decimals, factor


@dataclass(frozen=True)
class Group:
    """Measurements of runs that differ in the training seed alone, on one data file."""

    measurements: list[Measurement]

    @property
    def subject(self) -> dict[str, Any]:
        """Of the first run, or the folder."""
        return self.measurements[0]["subject"]

    @property
    def data(self) -> dict[str, Any]:
        """The data file and split; empty without any."""
        return self.measurements[0].get("data") or {}

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """The subjects by identity."""
        return {identity(m): m["subject"] for m in self.measurements}

    @property
    def columns(self) -> list[str]:
        """The columns that it has measurements for, in the order of COLUMNS."""
        mine = {column_of(m) for m in self.measurements}
        return [column for column in COLUMNS if column in mine]

    @property
    def name(self) -> str:
        """The recipe and what differs from the paper's runs, or the folder's name."""
        subject, size_px = self.subject, self.data.get("image_size")
        paper = published_data().get(self.data.get("name", ""), {})
        recipe = str(subject.get("recipe") or Path(self.path).name)
        small = [str(subject["size"])] if subject.get("size") else []
        if size_px is not None and (small or size_px != paper.get("size_px")):
            small.append(f"{size_px} px")
        parts = [recipe, " ".join(small)]
        step = subject.get("step")
        if step is not None and step != published_steps(recipe, self.data.get("name", "")):
            parts.append(f"{step:,} step{'s' * (step != 1)}")
        return ", ".join(filter(None, parts))

    @property
    def path(self) -> str:
        """The run or folder, the first of several."""
        return str(self.subject.get("run") or self.subject.get("images"))

    @property
    def origin(self) -> str:
        """measured (simulated, n=3)."""
        count = "images" if "images" in self.subject else f"n={len(self.runs)}"
        return f"measured ({', '.join(filter(None, [self.data.get('source'), count]))})"

    def alike(self, column: str) -> list[list[Measurement]]:
        """The column's measurements; those of one protocol in one list."""
        parts: dict[str, list[Measurement]] = {}
        for m in self.measurements:
            if column_of(m) == column:
                how = json.dumps([m.get(k) for k in ("name", "protocol", "slots", "temperature")])
                parts.setdefault(how, []).append(m)
        return list(parts.values())

    def cell(self, column: str, heading: str) -> str:
        """Values, with the name where it is not the heading; a dash for none."""
        cells = []
        for part in self.alike(column):
            known = [m for m in part if m["value"] is not None]
            if not known:
                continue
            remarks = []
            if column in NAMED and not heading.startswith(known[0]["name"]):
                remarks.append(known[0]["name"])
            if len(known) != len(self.runs):
                remarks.append(f"n={len(known)}")
            shuffled = [m for m in self.measurements if SHUFFLED.get(m["metric"]) == column]
            values = [m["value"] for m in shuffled if m["value"] is not None]
            remarks += [f"shuffled {rounded(mean(values), column)}"] if values else []
            value = estimate(known, column) + mark(known)
            cells.append(value + f" ({', '.join(remarks)})" * bool(remarks))
        return "; ".join(cells) or "-"

    def note(self, name: str) -> str:
        """Where its runs are and what its values are of; `name` is that of its row."""
        note = f"{name}: "
        note += ", ".join(str(one.get("run") or one.get("images")) for one in self.runs.values())
        samples: dict[str, list[str]] = {}
        for column in self.columns:
            for m in self.measurements:
                if column_of(m) == column:
                    samples.setdefault(_counts(m), []).append(m["name"])
        for counts, names in samples.items():
            note += f". {', '.join(dict.fromkeys(names))}: {counts}"
        warnings = dict.fromkeys(m["warning"] for m in self.measurements if m.get("warning"))
        return note + "." + "".join(f" {DOUBTFUL} {warning.rstrip('.')}." for warning in warnings)


def column_of(m: Measurement) -> str:
    """The column of a measurement, or its metric if it has none."""
    return f"other_{m['metric']}" if other_features(m) else str(m["metric"])


def groups_of(measurements: Iterable[Measurement], by_split: bool) -> list[Group]:
    """Runs that differ in the training seed alone, together; `by_split`: and of one split.

    Of two runs with the same seed the one measured later is in the group, the other in another.
    """

    def seed(m: Measurement) -> Any:
        seed = m["subject"].get("training_seed")
        return identity(m) if seed is None else seed

    parts: dict[str, list[Measurement]] = {}
    for m in measurements:
        setting = {k: v for k, v in m["subject"].items() if k not in OF_ONE_RUN}
        key = json.dumps([setting, file_of(m), split_of(m) if by_split else None], sort_keys=True)
        parts.setdefault(key, []).append(m)
    groups = []
    for part in parts.values():
        while part:
            last = {seed(m): identity(m) for m in part}
            groups.append(Group([m for m in part if last[seed(m)] == identity(m)]))
            part = [m for m in part if last[seed(m)] != identity(m)]
    return groups


def paper_tables(measurements: Iterable[Measurement]) -> list[Table]:
    """The paper's tables that have rows of ours, and a table of all other runs.

    `measurements` are JSON objects of a metrics.jsonl, later ones newer.
    """
    measured = beside_others(largest(measurements))
    tables, shown = [], set()
    for part in published_tables():
        groups = groups_of([m for m in measured if _belongs(m, part)], by_split=part.split is None)
        groups = [group for group in groups if group.columns]
        if groups:
            tables.append(_paper_table(part, groups))
            shown |= {_source(m) for group in groups for m in group.measurements}
    others = [m for m in measured if _source(m) not in shown]
    return tables + ([_other_runs(others)] if others else [])


def beside_others(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Values in which no split plays a part take one that the other values of their subject have,
    so that these stand in one row."""
    splits: dict[tuple[Any, ...], set[str]] = {}
    for m in measurements:
        if m["metric"] not in WITHOUT_SPLIT and (split := split_of(m)):
            splits.setdefault((identity(m), file_of(m)), set()).add(split)

    def beside(m: Measurement) -> Measurement:
        known = splits.get((identity(m), file_of(m)), set())
        if m["metric"] not in WITHOUT_SPLIT or not known or split_of(m) in known:
            return m
        return {**m, "data": {**m["data"], "split": min(known)}}

    return list(map(beside, measurements))


def _source(m: Measurement) -> tuple[Any, ...]:
    """What was measured, and against which images."""
    return identity(m), file_of(m), None if m["metric"] in WITHOUT_SPLIT else split_of(m)


def _belongs(m: Measurement, part: Published) -> bool:
    column = SHUFFLED.get(m["metric"], column_of(m))
    return (
        m["subject"].get("recipe") in part.recipes.values()
        and (m.get("data") or {}).get("name") == part.data
        and column in {*OWN_COLUMNS, *part.columns}
        and (part.split in (None, split_of(m)) or m["metric"] in WITHOUT_SPLIT)
    )


def _paper_table(part: Published, groups: Sequence[Group]) -> Table:
    have = {column for group in groups for column in group.columns}
    columns = [*part.columns, *(column for column in OWN_COLUMNS if column in have)]
    headings = [_heading(column, part.split) for column in columns]
    rows = [["model", "origin", *headings]]
    names = _row_names(groups, with_split=part.split is None)
    for row, recipe in part.recipes.items():
        if row in part.cells:
            padding = ["-"] * (len(columns) - len(part.columns))
            rows.append([row, "published", *part.cells[row], *padding])
        for group, name in zip(groups, names, strict=True):
            if group.subject["recipe"] == recipe:
                cells = map(group.cell, columns, headings)
                rows.append([name, group.origin, *cells])
    title = published_data()[part.data]["title"]
    caption = f"The paper's Table {part.number}, {title}: {part.caption}"
    note = "published: as printed in the paper (*: taken over from the GENESIS-v2 paper)"
    if part.split is None:
        note += (
            "; worse: than SRI, no figure; the split is not named, FID and bits/dim are those of"
            " Table 4 (validation)"
        )
    return Table(caption, rows, [f"{note}.", *_notes(rows, groups, names)], left=2)


def _other_runs(others: Sequence[Measurement]) -> Table:
    groups = groups_of(others, by_split=True)
    have = {column for group in groups for column in group.columns}
    columns = [column for column in COLUMNS if column in have] or list(PAPER_COLUMNS)
    headings = [_heading(column, None) for column in columns]
    names = _row_names(groups)
    rows = [["model", "origin", "data", *headings]]
    for group, name in zip(groups, names, strict=True):
        data = ", ".join(filter(None, [group.data.get("name") or "-", group.data.get("split")]))
        rows.append([name, group.origin, data, *map(group.cell, columns, headings)])
    caption = "Other runs: of recipes, data sets or splits that the paper's tables do not have"
    return Table(caption, rows, _notes(rows, groups, names), left=3)


def _row_names(groups: Sequence[Group], with_split: bool = False) -> list[str]:
    """Names of rows; equal ones get the hash of their data file, or the name of their run, or its
    folder."""
    names = [group.name for group in groups]
    if with_split:
        names = [f"{name}, {g.data['split']} split" for name, g in zip(names, groups, strict=True)]
    where = [(group.data.get("name"), group.data.get("source")) for group in groups]
    keys = list(zip(names, where, strict=True))
    hashes = [str(group.data.get("sha256"))[:8] for group in groups]
    unique = []
    for name, group, key, data in zip(names, groups, keys, hashes, strict=True):
        twins = [i for i, own in enumerate(keys) if own == key]
        if len(twins) > 1:
            runs = [Path(path).name for path in {groups[i].path for i in twins}]
            run = Path(group.path)
            whose = run.name if runs.count(run.name) == 1 else str(run)
            is_alone = [hashes[i] for i in twins].count(data) == 1
            name += f", data {data}" if is_alone else f", {whose}"
        unique.append(name)
    return unique


def _notes(
    rows: Sequence[Sequence[str]], groups: Sequence[Group], names: Sequence[str]
) -> list[str]:
    """The legend of what is in the table, then a note for each of our rows."""
    text = " ".join(cell for row in rows[1:] for cell in row)
    legend = [words for sign, words in LEGEND.items() if sign in text]
    own = [heading for heading, _, _ in OWN_COLUMNS.values() if heading in rows[0]]
    legend += [f"not in the paper: {', '.join(own)}"] if own else []
    notes = [group.note(name) for group, name in zip(groups, names, strict=True)]
    return [f"{'; '.join(legend)}.", *notes]


def _heading(column: str, split: str | None) -> str:
    name = COLUMNS[column][0]
    return f"{name}-{split}" if column == "fid" and split not in (None, "test") else name
