"""Training of several runs in charts: errors, KLs, their weights, from each run's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sri_cli.checkpoint import newest_good, no_checkpoint
from sri_cli.config.load import recipe_from_dict
from sri_cli.errors import SriError
from sri_cli.plotting.figure_scenes import system_name
from sri_cli.plotting.sheet import Block, Chart, Legend
from sri_cli.run import Workspace
from sri_cli.training.log import LOG_NAME, read_log

STAGE = "segregation"  # an objective of its own beside the model's
# Caption, quantity in the log (with a / at its end: of the model's own objective), in decades?
CHARTS = (
    ("error", "error_per_element/", False),
    (f"error of {STAGE}", f"error_per_element/{STAGE}", False),
    ("KL, nats", "kl/", True),
    (f"KL of {STAGE}, nats", f"kl/{STAGE}", True),
    ("KL of the scene, nats", "kl_scene", True),
    ("KL of the slots, nats", "kl_slot", True),
    ("cross-order KL, nats", "kl_cross_order", True),
    ("KL of masks, nats", "kl_mask", True),
    ("KL of components, nats", "kl_component", True),
    ("weight of the KL (beta)", "beta/", True),
    (f"weight of {STAGE}'s KL (beta)", f"beta/{STAGE}", True),
)


class Logged(NamedTuple):
    """A run and its log: `name` in the legend, what GECO aims at, records oldest first."""

    name: str
    run_dir: Path
    normalised: bool
    goal: float
    records: list[dict[str, Any]]


def open_logs(workspace: Workspace, runs: Sequence[str | None]) -> list[Logged]:
    """The logs of runs (None: the latest); SriError for one without."""
    found = [_open(workspace, run) for run in runs]
    names = [one.name for one in found]
    return [
        one._replace(name=one.run_dir.name) if names.count(one.name) > 1 else one for one in found
    ]


def _open(workspace: Workspace, run: str | None) -> Logged:
    run_dir = workspace.find_run(run).run_dir
    records = read_log(run_dir) if (run_dir / LOG_NAME).is_file() else []
    if not records:
        raise SriError(
            f"{run_dir} has no log of its training",
            f"name runs that hold a {LOG_NAME} (an imported one has none)",
        )
    checkpoint = newest_good(run_dir)
    if checkpoint is None:
        raise no_checkpoint(run_dir)
    recipe = recipe_from_dict(checkpoint.recipe)
    data = checkpoint.extra.get("source", {}).get("caption", recipe.data)
    name = f"{system_name(recipe.name, recipe.size)}: {data}"
    return Logged(name, run_dir, recipe.model.normalised, recipe.train.geco_target, records)


def curve_blocks(logs: Sequence[Logged]) -> list[Block]:
    """The legend and a chart for each quantity that some run has.

    Errors are compared in one chart where the runs have one kind of likelihood.
    """
    keys = [log.name for log in logs]
    blocks: list[Block] = [Legend(keys)]
    for caption, quantity, log_y in CHARTS:
        lines = {log.name: line for log in logs if (line := _line(log, quantity))}
        if quantity.startswith("error"):
            blocks += _error_charts(caption, [log for log in logs if log.name in lines], lines)
        elif lines:
            blocks.append(Chart(lines, caption, (), log_y, keys))
    return [replace(b, keys=keys) if isinstance(b, Chart) else b for b in blocks]


def _line(log: Logged, quantity: str) -> list[tuple[float, float | None]]:
    """(step, value) of a quantity; empty for a run without it."""
    names = {name for record in log.records for name in record}
    if quantity.endswith("/"):
        own = {name for name in names if name.startswith(quantity)} - {quantity + STAGE}
        quantity = min(own, default=quantity)
    return [(r["step"], r.get(quantity)) for r in log.records] if quantity in names else []


def _error_charts(
    caption: str, logs: Sequence[Logged], lines: dict[str, list[tuple[float, float | None]]]
) -> list[Chart]:
    """With and without the likelihood's constant errors lie far apart."""
    charts = []
    for normalised in sorted({log.normalised for log in logs}, reverse=True):
        alike = [log for log in logs if log.normalised == normalised]
        goals = sorted({log.goal for log in alike})
        words = caption + (", nats/dim" if normalised else " without constant")
        words += f" (goal {', '.join(f'{goal:g}' for goal in goals)})"
        charts.append(Chart({log.name: lines[log.name] for log in alike}, words, goals))
    return charts
