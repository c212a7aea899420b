"""A run from the weights of another: free settings, tensors that do not fit, resuming."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.schema import Recipe
from sri_cli.config.strict_yaml import read_yaml
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.export import commands_of, export
from sri_cli.generation.trained_run import open_run
from sri_cli.metrics.records import run_subject
from sri_cli.run import Workspace
from sri_cli.training.initial_weights import begin_run
from sri_cli.training.trainer import new_step, train
from tests.small_data import write_small_data
from tests.small_models import TINY_MODEL, tiny_recipe

newest = checkpoints.newest_good


def small(**changes: Any) -> Recipe:
    """Keys of the model section go there, others to the training."""
    train = {key: changes.pop(key) for key in ("steps", "batch", "lr") if key in changes}
    return tiny_recipe(TINY_MODEL | changes, **{"steps": 2} | train)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFile:
    return DataFile(write_small_data(tmp_path_factory.mktemp("data") / "towers-32.h5"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, data: DataFile) -> Path:
    """A run at step 2, which `workspace` copies."""
    run = tmp_path_factory.mktemp("runs") / "first"
    train(small(), data, run, command="sri train first")
    return run


@pytest.fixture
def workspace(tmp_path: Path, first: Path) -> Workspace:
    shutil.copytree(first, tmp_path / "runs" / "first")
    return Workspace(tmp_path / "data", tmp_path / "runs")


def test_weights_alone_are_taken_and_only_once(workspace: Workspace) -> None:
    first, run = workspace.runs_root / "first", workspace.runs_root / "second"
    other = DataFile(write_small_data(workspace.data_path("mypics", 32), images=20))
    recipe = small(slots=5, lr=1e-2, batch=2, likelihood="gaussian", steps=1)
    assert begin_run(workspace, "first", recipe, other, run)
    assert open_run(workspace, "second").open_data().path == other.path
    start, source = newest(run), newest(first)
    assert start.step == 0
    assert all(torch.equal(w, source.weights()[name]) for name, w in start.weights().items())
    state, fresh = start.state()["step"], new_step(recipe, torch.device("cpu")).state()
    assert state["optimiser"] == fresh["optimiser"] and state["gecos"] == fresh["gecos"]
    train(recipe, other, run)
    assert begin_run(workspace, str(source.path), recipe, other, run) is None  # another name of it
    earlier = source.path.with_name("step-000000001")
    with pytest.raises(SriError, match=r"\n.*--new"):
        begin_run(workspace, str(earlier), recipe, other, run)
    shutil.rmtree(first)
    assert begin_run(workspace, "first", recipe, other, run) is None
    assert train(small(**recipe_changes(recipe), steps=2), other, run).resumed_from == 1
    started = read_yaml((run / "recipe.yaml").read_text(), "recipe.yaml")["started_from"]
    assert started.items() >= {"run": "first", "step": 2, "data": "towers"}.items()
    assert newest(run).extra["started_from"] == started
    assert run_subject(open_run(workspace, "second"))["started_from"] == ["towers", 2]


def test_the_commands_of_the_weights_come_first(workspace: Workspace, data: DataFile) -> None:
    for source, name in (("first", "second"), ("second", "third")):
        begin_run(workspace, source, small(), data, workspace.runs_root / name)
        train(small(), data, workspace.runs_root / name, command=f"sri train {name}")
    lines = [line.split("#") for line in commands_in(workspace, "third")]
    assert [line[0].strip() for line in lines] == [
        "sri train first",
        "sri train second",
        "sri train third",
    ]
    # Of an earlier checkpoint: none that began later, and the last one ends there.
    train(small(steps=4), data, workspace.runs_root / "third", command="sri train more")
    earlier = workspace.runs_root / "third" / "checkpoints" / "step-000000000"
    begin_run(workspace, str(earlier), small(), data, workspace.runs_root / "fifth")
    ends = [line.rpartition(" UTC, ")[2] for line in commands_in(workspace, "fifth")]
    assert ends == ["steps 0 to 2", "steps 0 to 2", "step 0"]
    assert commands_of(open_run(workspace, str(earlier)), None) == commands_in(workspace, "fifth")
    # Of a source that was killed, the checkpoint's step is the last.
    second = workspace.runs_root / "second" / "command.txt"
    second.write_text("sri train second  # 2026-01-01 00:00 UTC, from step 0\n")
    begin_run(workspace, "second", small(), data, workspace.runs_root / "fourth")
    assert "steps 0 to 2" in commands_in(workspace, "fourth")[0]
    # Of a source that has not trained: those of the weights that it holds.
    begin_run(workspace, "fourth", small(), data, workspace.runs_root / "sixth")
    assert commands_in(workspace, "sixth") == commands_in(workspace, "fourth")


def commands_in(workspace: Workspace, run: str) -> list[str]:
    return (workspace.runs_root / run / "command.txt").read_text().splitlines()


def recipe_changes(recipe: Recipe) -> dict[str, Any]:
    model = {"slots": recipe.model.slots, "likelihood": recipe.model.likelihood}
    return model | {"lr": recipe.train.lr, "batch": recipe.train.batch}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"slot_size": 16}, ["of another shape", "[8", "expected [16", "model.slot_size=8"]),
        (
            {"scene": False, "scene_size": 128},
            ["unexpected: posterior.from_scene.0.bias", "missing: ", "scene=null"],
        ),
        ({"system": "genesis-v2", "scene_size": 128}, ["unexpected", "model.system=sri"]),
        ({"image_size": 64}, ["of another shape", "model.image_size=32"]),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    workspace: Workspace, data: DataFile, changes: dict[str, Any], parts: list[str]
) -> None:
    run = workspace.runs_root / "second"
    with pytest.raises(SriError) as caught:
        begin_run(workspace, "first", small(**changes), data, run)
    text = f"{caught.value.message} {caught.value.hint}"
    assert [part for part in parts if part not in text] == []
    assert not run.exists()


def test_refinement_steps_are_a_setting_and_no_weights(
    workspace: Workspace, data: DataFile
) -> None:
    emorl = {"system": "emorl", "init": "default", "decoder": "big"}
    before = small(**emorl, refinements=3)
    checkpoints.save(
        workspace.runs_root / "emorl",
        1,
        new_step(before, torch.device("cpu")).model.state_dict(),
        before.model_dump(mode="json"),
        {},
    )
    run = workspace.runs_root / "second"
    begin_run(workspace, "emorl", small(**emorl, refinements=1), data, run)
    old, new = newest(workspace.runs_root / "emorl").weights(), newest(run).weights()
    differing = [name for name in new if not torch.equal(new[name], old[name])]
    assert [name.rpartition(".")[2] for name in differing] == ["_extra_state"]


def test_a_later_export_of_the_source_resumes_the_run(
    workspace: Workspace, data: DataFile, tmp_path: Path
) -> None:
    exported, run = tmp_path / "exported", workspace.runs_root / "second"
    export(workspace, "first", exported)
    assert begin_run(workspace, str(exported), small(), data, run)
    train(small(steps=3), data, workspace.runs_root / "first")
    shutil.rmtree(exported)
    export(workspace, "first", exported)
    assert begin_run(workspace, str(exported), small(), data, run) is None
    shutil.copytree(exported, tmp_path / "another")
    with pytest.raises(SriError, match=r"\n.*--new"):
        begin_run(workspace, str(tmp_path / "another"), small(), data, run)


def test_a_run_with_another_start_is_left_alone(workspace: Workspace, data: DataFile) -> None:
    run = workspace.runs_root / "second"
    train(small(steps=1), data, run)
    for source in ("first", "other.pth"):
        with pytest.raises(SriError, match=r"\n.*--new"):
            begin_run(workspace, source, small(), data, run)
    assert newest(run).step == 1
    with pytest.raises(SriError, match="no run frist"):
        begin_run(workspace, "frist", small(), data, workspace.runs_root / "third")
