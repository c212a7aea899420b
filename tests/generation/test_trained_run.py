"""A run opened for use and its data file; the shipped model and its records."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.hub import CONFIG
from sri_cli.plotting.report_commands import prepare_words
from sri_cli.run import SHIPPED, Workspace
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train
from tests.small_cli import sri, sri_json
from tests.small_data import write_small_data

SMALL = ["size=tiny", "train.batch=4", "model.slots=2", "model.slot_size=8", "model.scene_size=8"]
MEASURED = {"stack_fd", "sacc_estimate", "order_iou", "ari_fg", "negative_elbo"}


def test_a_data_file_is_opened_once(trained: TrainedRun, workspace: Workspace) -> None:
    data = trained.open_data()
    assert trained.open_data() is data and data.name == "demo-towers"
    path = str(workspace.data_path("demo-towers", 32))
    assert trained.open_data(path) is trained.open_data(path)
    with pytest.raises(SriError, match="nowhere"):
        trained.open_data("nowhere")


def test_a_run_remembers_its_data_file(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a name is not enough: a file of the user's own."""
    own = write_small_data(tmp_path / "mine-32.h5")
    recipe = load_recipe("sri-mog", None, [*SMALL, "train.steps=1"])
    train(recipe, DataFile(own), workspace.runs_root / "mine")
    trained = open_run(workspace, "mine")
    assert (trained.step, trained.checkpoint.name) == (1, "step-000000001")
    assert trained.open_data().path.resolve() == own
    assert "Note" not in capsys.readouterr().err
    own.unlink()
    write_small_data(own, images=20)
    open_run(workspace, "mine").open_data()
    assert "other images" in capsys.readouterr().err
    write_small_data(workspace.data_root / "mine-32.h5", images=20)
    own.unlink()
    open_run(workspace, "mine").open_data()
    assert "other images" in capsys.readouterr().err  # found by its name
    (workspace.data_root / "mine-32.h5").unlink()
    trained = open_run(workspace, "mine")
    assert trained.caption == "mine, simulated" and trained.title.startswith("mine, step 1")
    with pytest.raises(SriError, match="mine-32.h5"):
        trained.open_data()


def test_a_file_moves_with_the_data_folder(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    usual = workspace.data_path("demo-towers", 32)
    trained.extra["source"] = {"file": str(usual.with_name("more.h5"))}
    shutil.copy(usual, usual.with_name("more.h5"))
    workspace.data_root.rename(tmp_path / "moved")
    moved = replace(trained, workspace=replace(workspace, data_root=tmp_path / "moved"), _files={})
    assert moved.open_data().path == tmp_path / "moved" / "more.h5"
    assert moved.open_data("demo-towers").path == tmp_path / "moved" / usual.name


# The shipped model


def test_the_first_command_of_all_samples_towers(empty: Workspace) -> None:
    sri("sample", "--run", "pretrained", "--num", "4", "--slots", "7", "--temp", "0.7", code=0)
    assert len(list(Path("runs/pretrained/samples").glob("[0-9]*/grid.png"))) == 1
    trained = open_run(empty, "pretrained")
    s = trained.model.image_size
    for scene in sample_scenes(trained.model, 16, trained.model.num_slots):
        saturation = scene.image.amax(1) - scene.image.amin(1)  # 0 is grey
        towers = saturation[:, s // 4 :, s // 4 : 3 * s // 4]
        corners = saturation[:, : s // 8, :: s - 1]
        assert (towers.amax((1, 2)) > 0.5).float().mean() > 0.9
        assert corners.mean() < 0.1


def test_its_measurements_are_of_this_very_model(empty: Workspace) -> None:
    sri("eval", "--recorded", "--run", "pretrained", "--json", code=0)
    records = (SHIPPED["pretrained"] / "metrics.jsonl").read_text().splitlines()
    measured = {m["metric"]: m for m in map(json.loads, records)}
    assert set(measured) >= MEASURED
    record = measured["order_iou"]
    words = ["--num", str(record["counts"]["scenes"]), "--seed", str(record["seed"])]
    found = sri_json("order", "--run", "pretrained", *words)
    assert found["model"]["iou_over_chance"]["value"] == pytest.approx(record["value"], abs=0.005)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_records_how_it_was_made(empty: Workspace, name: str) -> None:
    ref, folder = empty.find_run(name), SHIPPED[name]
    meta = checkpoints.verify(folder, CONFIG)
    commands = (folder / "command.txt").read_text().splitlines()
    assert meta.extra["commands"] == commands
    verbs = [" ".join(words.split()[:2]) for words in commands]
    # Tables started from rooms, whose data are prepared there, too.
    assert verbs[0] == "sri prepare" and verbs[-1] == "sri train"
    assert {*verbs} == {"sri prepare", "sri train"}
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_text() for path in files if path.suffix not in (".safetensors", ".png")]
    assert not [text for text in texts if re.search(r'[" ]/[a-z]+/', text)]  # no local paths
    assert sum(path.stat().st_size for path in files) < 8_000_000
    weights = meta.weights()
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {torch.float16}
    assert read_log(ref.run_dir / "log.jsonl")[-1]["step"] == meta.step
    with pytest.raises(SriError):  # no training state
        meta.state()


def test_without_its_data_the_command_that_makes_them_is_named(empty: Workspace) -> None:
    result = sri("figure", "reconstructions", "--run", "pretrained", code=2)
    side = load_recipe(str(SHIPPED["pretrained"] / "recipe.yaml")).model.image_size
    assert f"data/demo-towers-{side}.h5" in result.stderr
    assert f"sri prepare shapestacks --preset demo --size {side}" in result.stderr


def test_data_of_another_name_are_made_in_the_data_folder(
    workspace: Workspace, empty: Workspace
) -> None:
    """However the file was found, the command works on any machine."""
    other = shutil.copy(usual := workspace.data_path("demo-towers", 32), usual.with_name("more.h5"))
    words = prepare_words(empty, DataFile(Path(other).resolve()))
    assert words is not None and words.endswith(f" --out {usual.parent.name}/more.h5")
