"""Our rows of the paper's tables: which runs share one, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sri_cli.metrics.measured import (
    OWN_COLUMNS,
    SHUFFLED,
    WITHOUT_SPLIT,
    Group,
    Measurement,
    column_of,
    data_of,
    groups,
    split_of,
)
from sri_cli.metrics.published import SIZE_PX, Layout, steps


@dataclass
class Row:
    """A line of a table; runs on several data sets share it where their labels are equal."""

    recipe: str
    name: str
    origin: str
    groups: dict[str, Group] = field(default_factory=dict)  # data set -> its runs


def rows_of(layout: Layout, measured: Sequence[Measurement]) -> list[Row]:
    """The runs that have a figure for one of the table's columns."""
    rows: list[Row] = []
    mine = [m for m in measured if _belongs(layout, m)]
    for group in groups(mine, by_split=layout.split is None):
        data = group.data["name"]
        if not any((data, column) in layout.columns for column in group.columns()):
            continue
        name, origin = _name(group), _origin(group)
        if layout.split is None:
            name += f", {group.data['split']} split"
        free = [r for r in rows if (r.name, r.origin) == (name, origin) and data not in r.groups]
        if not free:
            free = [Row(group.subject["recipe"], name, origin)]
            rows += free
        free[0].groups[data] = group
    order = list(layout.rows.values())
    return _told_apart(sorted(rows, key=lambda row: order.index(row.recipe)))


def other_rows(others: Sequence[Measurement]) -> list[Row]:
    """A row for each group, whatever it is."""
    found = groups(others, by_split=True)
    rows = [Row("", _name(g), _origin(g), {g.data.get("name") or "-": g}) for g in found]
    return _told_apart(rows)


def _belongs(layout: Layout, m: Measurement) -> bool:
    subject, data = m["subject"], data_of(m).get("name")
    column = SHUFFLED.get(m["metric"], column_of(m))
    return (
        subject.get("kind") == "run"
        and subject.get("recipe") in layout.rows.values()
        and data in {name for name, _ in layout.columns}
        and (column in OWN_COLUMNS or (data, column) in layout.columns)
        and (layout.split in (None, split_of(m)) or m["metric"] in WITHOUT_SPLIT)
    )


def _name(group: Group) -> str:
    """The recipe and whatever differs from the paper's runs; a folder's name."""
    subject, data = group.subject, group.data
    size_px, step, data_name = data.get("image_size"), subject.get("step"), data.get("name", "")
    words = [str(subject.get("recipe") or _where(group))]
    small = [str(subject["size"])] if subject.get("size") else []
    if size_px is not None and (small or size_px != SIZE_PX.get(data_name)):
        small.append(f"{size_px} px")
    words += [" ".join(small)] * bool(small)
    if step is not None and step != steps(words[0], data_name):
        words.append(f"{step:,} step{'s' * (step != 1)}")
    return ", ".join(words)


def _origin(group: Group) -> str:
    words = [str(group.data["source"])] if group.data.get("source") else []
    words.append("pictures" if "images" in group.subject else f"n={len(group.runs)}")
    return f"measured ({', '.join(words)})"


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows with equal labels get the start of their data file's hash, or else their run's name."""
    found = []
    for row in rows:
        twins = [_group(r) for r in rows if (r.name, r.origin) == (row.name, row.origin)]
        if len({_hash(group) for group in twins}) == len(twins) > 1:
            row = replace(row, name=f"{row.name}, data {_hash(_group(row))}")
        elif len(twins) > 1:
            row = replace(row, name=f"{row.name}, {_where(_group(row))}")
        found.append(row)
    return found


def _group(row: Row) -> Group:
    return next(iter(row.groups.values()))


def _hash(group: Group) -> str:
    return str(group.data.get("sha256"))[:8]


def _where(group: Group) -> str:
    return Path(str(group.subject.get("run") or group.subject.get("images"))).name
