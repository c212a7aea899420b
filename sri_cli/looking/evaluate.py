"""`sri eval`: measure one run or several, keep the records, word the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sri_cli.looking.progress import counting
from sri_cli.looking.trained import Trained, open_data, open_run
from sri_cli.metrics.evaluate import append_record, evaluate, parse_metrics, planned
from sri_cli.metrics.table import footnote, format_table, table_rows
from sri_cli.workspace import Workspace


def evaluate_runs(
    workspace: Workspace,
    runs: Sequence[str],
    metrics: str,
    data: str | None = None,
    split: str = "test",
    num: int = 320,
    seed: int = 0,
    dynamic_slots: bool = False,
) -> list[dict[str, Any]]:
    """A record per run (none named: the latest), appended to its metrics.jsonl."""
    names = parse_metrics(metrics)
    named: Sequence[str | None] = runs or [None]
    trained = [open_run(workspace, run, dynamic_slots) for run in named]
    return [evaluate_one(workspace, one, names, data, split, num, seed) for one in trained]


def evaluate_one(
    workspace: Workspace,
    trained: Trained,
    metrics: Sequence[str],
    data: str | None = None,
    split: str = "test",
    num: int = 320,
    seed: int = 0,
) -> dict[str, Any]:
    """The record of one run, appended to its metrics.jsonl."""
    loaded = trained.loaded
    file = open_data(workspace, loaded, data)
    with counting("measuring", planned(metrics, min(num, file.counts.get(split, num)))) as advance:
        record = evaluate(loaded, file, metrics, split, num, seed, advance=advance)
    if getattr(getattr(loaded.model, "segregate", None), "dynamic_slots", False):
        record["dynamic_slots"] = True
    append_record(loaded.run_dir, record)
    return record


def words(records: Sequence[dict[str, Any]], style: str) -> str:
    """The table, and under it what was measured."""
    notes = list(dict.fromkeys(footnote(record) for record in records))
    return "\n".join([format_table(table_rows(records), style), "", *notes])
