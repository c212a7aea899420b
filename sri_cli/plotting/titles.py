"""Titles of runs in figures."""

from __future__ import annotations

from collections.abc import Sequence

from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.published import system_name


def title_of(run: TrainedRun, data: bool = True, step: bool = True) -> str:
    """System and run, with its data and its step where asked for, for captions of figures."""
    title = f"{system_name(run.recipe.name, run.recipe.size)} ({run.run_dir.name})"
    title += f": {run.caption}" if data else ""
    return f"{title}; step {run.step:,}" if step else title


def titles_of(runs: Sequence[TrainedRun]) -> tuple[list[str], list[str]]:
    """The titles of runs in one figure, and what of data and step is the same for several."""
    several = len(runs) > 1
    data = several and len({run.caption for run in runs}) == 1
    step = several and len({run.step for run in runs}) == 1
    shared = [runs[0].caption] * data + [f"step {runs[0].step:,}"] * step
    return [title_of(run, not data, not step) for run in runs], shared
