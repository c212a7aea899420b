"""A run opened for use: its data file is found, opened once, and not needed for sampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.run import Workspace
from sri_cli.training.trainer import train

SMALL = ["train.batch=4", "model.slots=2", "model.slot_size=8", "model.scene_size=8"]


def test_a_data_file_is_opened_once(trained: TrainedRun, workspace: Workspace) -> None:
    data = trained.open_data()
    assert trained.open_data() is data and data.name == "demo-towers"
    path = str(workspace.data_path("demo-towers", 32))
    assert trained.open_data(path) is trained.open_data(path)
    with pytest.raises(SriError, match="nowhere"):
        trained.open_data("nowhere")


def test_a_run_remembers_its_data_file(
    workspace: Workspace, tmp_path: Path, write_small_data: Callable[..., Path]
) -> None:
    """Also where a name is not enough: a file of the user's own."""
    own = write_small_data(tmp_path / "mine-32.h5")
    recipe = load_recipe("sri-mog-tiny", None, [*SMALL, "train.steps=1"])
    train(recipe, DataFile(own), workspace.runs_root / "mine")
    trained = open_run(workspace, "mine")
    assert (trained.step, trained.checkpoint.name) == (1, "step-000000001")
    assert trained.open_data().path.resolve() == own
    own.unlink()
    trained = open_run(workspace, "mine")
    assert trained.caption == "mine, simulated" and trained.title.startswith("mine, step 1")
    with pytest.raises(SriError, match="mine-32.h5"):
        trained.open_data()
