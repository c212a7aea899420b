"""What a study leaves: a table, a small summary to keep, and two figures."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.plotting.figure_draw import Request, figure_of_runs
from sri_cli.run import Workspace
from sri_cli.studies.file import Study
from sri_cli.studies.runs import Stand
from sri_cli.studies.table import values_of, verdicts_of
from sri_cli.studies.worker import MACHINE

SUMMARY = "summary.json"
FIGURES = {"samples": (18, 12, 9, 6, 4, 2, 1), "order": (4, 3, 2, 1)}  # scenes, as many as fit
VALUE = ("value", "low", "high")  # of a measurement: each run's own
HOW = ("name", "counts", "protocol", "warning")  # told once, for all runs


def summary_of(study: Study, stands: Sequence[Stand], data: DataFile) -> dict[str, Any]:
    """All that is worth keeping without the weights, as JSON."""
    protocol = study.protocol
    how = {key: {k: m[k] for k in HOW} for one in stands for key, m in one.measured.items()}
    return {
        "study": protocol.name,
        "protocol_sha256": study.digest(),
        "sri": __version__,
        "python": platform.python_version(),
        "data": data_of(study, data),
        "steps": protocol.steps,
        "batch": protocol.batch,
        "seeds": protocol.seeds,
        "systems": {
            system: {"recipe": study.sources[system], "recipe_sha256": study.recipe_digest(system)}
            for system in protocol.systems
        },
        "runs": [_run(one, how) for one in stands],
        "how": how,
        "values": {
            measure: {
                system: [values.get((system, seed)) for seed in protocol.seeds]
                for system in protocol.systems
            }
            for measure, values in values_of(study, stands).items()
        },
        "claims": [asdict(one) for one in verdicts_of(study, stands)],
    }


def data_of(study: Study, data: DataFile) -> dict[str, Any]:
    """The data file that was studied, and how it is made."""
    return {
        "name": data.name,
        "size": data.size,
        "source": data.source,
        "sha256": str(data.attrs["sha256"]),
        "images": data.counts,
        "prepare": study.protocol.data.prepared_by,
    }


def _run(one: Stand, how: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`how`: what is the same for all runs, by key."""
    path = one.cell.run_dir / MACHINE
    metrics = {}
    for key, m in one.measured.items():
        others = {k: m[k] for k in HOW if m[k] != how[key][k]}
        metrics[key] = {k: m[k] for k in VALUE if m[k] is not None} | others
    return {
        "system": one.cell.system,
        "seed": one.cell.seed,
        "step": one.step,
        "train_seconds": round(one.seconds, 1),
        "diverged": one.diverged,
        "machine": json.loads(path.read_text("utf-8")) if path.is_file() else None,
        "model": next((m["subject"]["model"] for m in one.measured.values()), None),
        "metrics": metrics,
    }


def write_summary(summary: dict[str, Any], folder: Path) -> Path:
    """Whole or not at all."""
    path = folder / SUMMARY
    write_atomic(path, (json.dumps(summary, indent=1) + "\n").encode())
    return path


def draw_figures(
    workspace: Workspace, study: Study, stands: Sequence[Stand], folder: Path
) -> tuple[list[Path], list[str]]:
    """Samples and order of all systems side by side, of the first seed that has most of them.

    The same noise for all. The files, and what is to be said.
    """
    by_seed: dict[int, list[str]] = {seed: [] for seed in study.protocol.seeds}
    for one in stands:
        if one.trained:
            by_seed[one.cell.seed].append(str(one.cell.run_dir))
    runs = max(by_seed.values(), key=len)
    paths, notes = [], []
    for name, numbers in FIGURES.items() if runs else ():
        try:
            paths.append(_draw(workspace, runs, name, numbers, folder / f"{name}.png"))
        except SriError as error:
            notes.append(f"no figure of {name}: {error.message}")
    return paths, notes


def _draw(
    workspace: Workspace, runs: Sequence[str], name: str, numbers: Sequence[int], out: Path
) -> Path:
    """With as many scenes as fit on a sheet."""
    for num in numbers:
        try:
            return figure_of_runs(workspace, runs, Request(name, num=num, seed=0), out).path
        except SriError as error:
            if num == numbers[-1] or "fit" not in error.message:
                raise
    raise AssertionError("the last number returns or raises")
