"""What `sri train` was asked to do, resolved before anything is written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli.data.store import DataFile
from sri_cli.errors import SriError
from sri_cli.recipe.load import data_sets, load_recipe
from sri_cli.recipe.schema import Recipe
from sri_cli.workspace import Workspace, is_path


@dataclass(frozen=True)
class Plan:
    """A recipe for a data set, and where its run lies; the data file may not exist yet."""

    recipe: Recipe
    data: str  # name or file
    run_dir: Path
    device: str

    def open_data(self, workspace: Workspace) -> DataFile:
        """The data file, checked; SriError when it is missing or broken."""
        return DataFile(workspace.find_data(self.data, self.recipe.model.image_size))


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
    run_dir = workspace.run_dir(run or f"{recipe.name}-{stem}")
    return Plan(recipe, data or recipe.data, run_dir, device_for(gpus))


def known_name(recipe_name: str, file: str) -> str | None:
    """The data set that `file` holds, if the recipe has settings for it; None: its default's."""
    path = Path(file)
    name = DataFile(path).name if path.is_file() else path.stem
    return name if name in data_sets(recipe_name) else None


def device_for(gpus: str) -> str:
    """--gpus to a device name; several GPUs come in a later version."""
    if gpus == "auto":
        return "auto"
    if not gpus.isdecimal():
        raise SriError(f"--gpus {gpus}: not a number of GPUs", "--gpus auto, 0 or 1")
    if int(gpus) > 1:
        raise SriError(f"--gpus {gpus}: training on several GPUs comes later", "--gpus 1")
    return "cuda" if gpus == "1" else "cpu"


def dry_run(plan: Plan, steps: int = 3) -> dict[str, Any]:
    """What training would be: recipe, parameters, time per step measured here, expected total."""
    from sri_cli.training.measure import StepBench

    bench = StepBench(plan.recipe, plan.device, plan.recipe.train.precision)
    seconds = statistics.median(bench.seconds(steps))
    return {
        "recipe": plan.recipe.model_dump(),
        "run": str(plan.run_dir),
        "device": bench.device.type,
        "precision": bench.precision,
        "parameters": bench.parameters,
        "seconds_per_step": seconds,
        "expected_seconds": seconds * plan.recipe.train.steps,
    }
