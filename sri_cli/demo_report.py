"""The demo's report: the page of its run, and what the demo says beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sri_cli.config.schema import Recipe
from sri_cli.console import duration
from sri_cli.device import cpu_model
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.plotting.report import make_subjects, write_report
from sri_cli.run import Workspace

SAMPLES, TEMPERATURE = 64, 0.7


@dataclass(frozen=True)
class Shown:
    """What the demo has made."""

    recipe: Recipe
    trained: TrainedRun
    samples: Path  # folder
    sacc_estimate: float  # of SAMPLES, in [0,1]
    seconds: float
    commands: Sequence[str]


def write_demo_report(workspace: Workspace, shown: Shown, path: Path) -> Path:
    """The report of the demo's run, as `sri report` makes it."""
    return write_report(
        workspace,
        make_subjects([shown.trained]),
        path,
        title="From nothing to new scenes",
        lead=(
            f"sri demo simulated towers of blocks, trained {shown.recipe.name} on them and let"
            f" it draw scenes of its own. Of {SAMPLES} samples at temperature"
            f" {TEMPERATURE:g}, {shown.sacc_estimate:.0%} are plausible stacks by the S-Acc"
            " estimate."
        ),
        facts=[
            ("S-Acc estimate", f"{shown.sacc_estimate:.0%} of {SAMPLES} samples"),
            ("this run of the demo took", duration(shown.seconds)),
            ("processor", cpu_model()),
        ],
        commands=shown.commands,
    )
