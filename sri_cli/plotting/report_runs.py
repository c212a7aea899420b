"""The runs that a report is about: opened once, with their data, their logs and what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate_runs import recorded
from sri_cli.metrics.measured import newest
from sri_cli.metrics.records import Measurement
from sri_cli.plotting.figure_scenes import Drawn, drawn
from sri_cli.run import Workspace
from sri_cli.training.log import LOG_NAME, read_log


@dataclass(frozen=True)
class Subject:
    """A run; `name` tells it from the others. `data`: its file, or the error why there is none."""

    name: str
    trained: TrainedRun
    data: DataFile | SriError

    @property
    def run_dir(self) -> Path:
        return self.trained.run_dir

    @property
    def slots(self) -> int:
        return int(self.trained.model.num_slots)

    @property
    def size(self) -> int:
        """Of its images, px."""
        return int(self.trained.recipe.model.image_size)

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The records of its training, oldest first; none for a run that was imported."""
        return read_log(self.run_dir) if (self.run_dir / LOG_NAME).is_file() else []

    @cached_property
    def measured(self) -> list[Measurement]:
        """What was measured of this checkpoint, the newest of each kind."""
        return newest(recorded(self.trained))

    def scenes(self, num: int, temperature: float, seed: int = 0) -> Drawn:
        """New scenes with the slots of training."""
        return drawn(self.trained, num, self.slots, temperature, seed)


def subjects(workspace: Workspace, runs: Sequence[str]) -> list[Subject]:
    """The runs (none named: the latest), each once; SriError when one cannot be opened."""
    refs = {run: workspace.find_run(run) for run in runs or (None,)}  # typing errors come first
    opened: dict[tuple[Path, int], TrainedRun] = {}
    for run in refs:
        trained = open_run(workspace, run)
        opened.setdefault((trained.run_dir.resolve(), trained.step), trained)
    return [subject(workspace, one, name) for one, name in zip(*_named(opened), strict=True)]


def subject(workspace: Workspace, trained: TrainedRun, name: str = "") -> Subject:
    """A run that is open already."""
    try:
        data: DataFile | SriError = trained.open_data()
    except SriError as error:
        data = error
    return Subject(name or trained.run_dir.resolve().name, trained, data)


def _named(opened: dict[tuple[Path, int], TrainedRun]) -> tuple[list[TrainedRun], list[str]]:
    """Their folders' names; paths where names are alike, and steps where paths are."""
    folders = [folder for folder, _ in opened]
    names = [folder.name for folder in folders]
    told = []
    for (folder, step), trained in opened.items():
        name = folder.name if names.count(folder.name) == 1 else str(trained.run_dir)
        if folders.count(folder) > 1:
            name += f", step {step:,}"
        told.append(name)
    return list(opened.values()), told
