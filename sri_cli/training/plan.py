"""What `sri train` was asked to do, resolved before anything is written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.device import device_for, gpu_count
from sri_cli.errors import SriError
from sri_cli.run import Workspace, is_path

if TYPE_CHECKING:
    from sri_cli.training.launch import Job


@dataclass(frozen=True)
class Plan:
    """A recipe for a data set, and where its run lies; the data file may not exist yet."""

    recipe: Recipe
    data: str  # name or file
    run_dir: Path
    device: str
    gpus: int

    def open_data(self, workspace: Workspace) -> DataFile:
        """The data file, checked; SriError when it is missing or broken."""
        return DataFile(workspace.find_data(self.data, self.recipe.model.image_size))

    def job(self, workspace: Workspace, fresh: bool, command: str) -> Job:
        """The training itself, its data found."""
        from sri_cli.training.launch import Job

        path = self.open_data(workspace).path
        return Job(self.recipe, path, self.run_dir, self.device, fresh, command)


def make_plan(
    workspace: Workspace,
    recipe_name: str,
    *,
    data: str | None = None,
    run: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    gpus: str = "auto",
    overrides: Sequence[str] = (),
) -> Plan:
    """Recipe, data and run folder from the words of the command line; SriError for bad ones."""
    words = list(overrides)
    words += [] if steps is None else [f"train.steps={steps}"]
    words += [] if seed is None else [f"train.seed={seed}"]
    file = data is not None and is_path(data)
    chosen = known_name(recipe_name, data) if data is not None and file else data
    recipe = load_recipe(recipe_name, chosen, words)
    stem = Path(data).stem if data is not None and file else recipe.data
    size = "" if recipe.size == "paper" else f"-{recipe.size}"
    # At the end: recipes may be called NAME-tiny.
    run_dir = workspace.run_dir(run or f"{recipe.name}-{stem}{size}")
    return Plan(recipe, data or recipe.data, run_dir, device_for(gpus), gpu_count(gpus))


def known_name(recipe_name: str, file: str) -> str | None:
    """The data set that `file` holds, if the recipe has settings for it; None: its default's."""
    path = Path(file)
    name = DataFile(path).name if path.is_file() else path.stem
    return name if name in data_sets(recipe_name) else None


def dry_run(plan: Plan, workspace: Workspace, steps: int = 3) -> dict[str, Any]:
    """What training would be: recipe, parameters, time per step measured here, expected total.

    `missing` tells of a data file that is still to be made; one that does not fit is an SriError.
    """
    from sri_cli.training.step_timing import StepBench

    missing = data_missing(plan, workspace)
    bench = StepBench(plan.recipe, plan.device, plan.recipe.train.precision)
    seconds = statistics.median(bench.seconds(steps))
    return {
        "recipe": plan.recipe.model_dump(),
        "run": str(plan.run_dir),
        "missing": missing,
        "device": bench.device.type,
        "precision": bench.precision,
        "parameters": bench.parameters,
        "seconds_per_step": seconds,
        "expected_seconds": seconds * plan.recipe.train.steps,
    }


def data_missing(plan: Plan, workspace: Workspace) -> str | None:
    """The note for a data set that is not prepared yet; SriError for a file that is no use."""
    from sri_cli.training.loop import check_data

    if not is_path(plan.data):
        try:
            workspace.find_data(plan.data, plan.recipe.model.image_size)
        except SriError as error:
            return f"{error.message}; {error.hint}"
    check_data(plan.recipe, plan.open_data(workspace))
    return None
