"""Measurements as a table. Markdown and LaTeX: a row per run; text: a column per run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sri_cli.metrics.tabular import aligned, latex_table, markdown_table

STYLES = ("text", "markdown", "latex")
# key of the record -> heading, decimals
COLUMNS = {
    "ari_fg": ("ARI-FG", 3),
    "ari_fg_attention": ("ARI-FG attention", 3),
    "msc_fg": ("mSC-FG", 3),
    "msc_fg_attention": ("mSC-FG attention", 3),
    "negative_elbo": ("-ELBO, nats", 1),
    "bits_per_dimension": ("bits/dim", 4),
}
ORDER_COLUMNS = {"iou_over_chance": "order IoU", "mutual_information": "order MI"}


def table_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The header and one row per record; only columns that some record has."""
    keys = [key for key in COLUMNS if any(key in record for record in records)]
    ordered = any("order" in record for record in records)
    header = ["run", "step", "images", *(COLUMNS[key][0] for key in keys)]
    header += [
        *ORDER_COLUMNS.values(),
        *(f"{n} shuffled" for n in ORDER_COLUMNS.values()),
    ] * ordered
    rows = []
    for record in records:
        row = [Path(record["run"]).name, str(record["step"]), str(record["images"])]
        row += [_number(record.get(key), COLUMNS[key][1]) for key in keys]
        rows.append(row + _order_cells(record.get("order")) * ordered)
    return [header, *rows]


def format_table(rows: Sequence[Sequence[str]], style: str = "text") -> str:
    """Rows of cells, the first being the header and the first cell of each a name."""
    if style == "markdown":
        return markdown_table(rows)
    if style == "latex":
        return latex_table(rows)
    return aligned(list(zip(*rows, strict=True)))  # turned: many metrics fit no terminal's width


def footnote(record: dict[str, Any]) -> str:
    """What was measured, in words."""
    words = f"{record['images']} images of {record['data']}, {record['split']} split"
    if record.get("dynamic_slots"):
        words += "; dynamic slots"
    left_out = record.get("without_foreground", 0)
    if left_out:
        words += f"; {left_out} without foreground left out of ARI-FG and mSC-FG"
    if "order" in record:
        words += (
            f"; order over {record['order']['scenes']} new scenes, shuffled = random slot order"
        )
    return words


def _order_cells(order: dict[str, Any] | None) -> list[str]:
    return [
        estimate_words(None if order is None else order[which][key])
        for which in ("model", "shuffled")
        for key in ORDER_COLUMNS
    ]


def estimate_words(estimate: dict[str, float] | None) -> str:
    """value [low, high]."""
    if estimate is None:
        return "-"
    value, low, high = (_number(estimate[key], 3) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(value: float | None, decimals: int) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "-" if value is None else f"{round(value, decimals) + 0.0:.{decimals}f}"
