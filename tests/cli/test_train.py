"""`sri train` as a user meets it: flags, messages, exit codes, signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from sri_cli.errors import SriError
from sri_cli.run import Workspace
from sri_cli.training.importing import describe_source
from sri_cli.training.log import read_log
from sri_cli.training.run_folder import resolve_run
from tests.damage import largest_file
from tests.small_cli import finish, sri, sri_json, start, wait_until
from tests.small_data import write_small_data
from tests.tracker_readers import READERS, mlflow_run

SMALL = (
    *("size=tiny", "model.slots=3", "model.slot_size=8", "model.scene_size=8"),
    *("train.batch=4", "train.log_every=1", "train.checkpoint_every=2", "train.precision=fp32"),
)


@pytest.fixture
def folder(here: Path) -> Path:
    """A working folder with the data set of the small recipe alone."""
    write_small_data(here / "data" / "shapestacks-32.h5")
    return here


def words(*more: str) -> list[str]:
    return ["train", "--recipe", "sri-mog", *more, *SMALL]


def test_train_then_train_further(folder: Path) -> None:
    first = sri(*words("--steps", "2"), code=0)
    run = Path("runs/sri-mog-shapestacks-tiny")
    assert first.stdout.splitlines() == [
        f"step 2: {run}/checkpoints/step-000000002",
        f"next: sri sample --run {run}",
    ]
    assert "cpu" in first.stderr and "fp32" in first.stderr
    result = sri_json(*words("--steps", "3"))
    assert (result["resumed_from"], result["step"], result["run"]) == (2, 3, str(run))
    assert result["record"]["step"] == 3
    assert yaml.safe_load((run / "recipe.yaml").read_text())["train"]["steps"] == 3


def test_the_recipe_is_an_argument_and_new_starts_another_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ("train", *SMALL, "sri-mog", "--steps", "1")
    for _ in range(3):
        assert sri(*recipe, "--new").exit_code == 0
    runs = [f"sri-mog-shapestacks-tiny{end}" for end in ("", "-2", "-3")]
    assert sorted(path.name for path in (folder / "runs").iterdir()) == runs
    assert sri_json(*recipe)["run"] == f"runs/{runs[0]}"
    assert sri(*recipe, "--new", "--run", "./mine").exit_code == 0
    refused = sri(*recipe, "--new", "--run", "./mine")
    assert refused.exit_code == 2 and refused.stderr.strip().endswith("--run ./mine-2")
    assert not (folder / "mine-2").exists()
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert "torchrun" in sri(*recipe, "--new", "--run", "unused", code=2).stderr


def test_a_target_that_no_image_reaches_is_noted(folder: Path) -> None:
    for std, target, noted in (("0.8", "0.5655", True), ("0.8", "0.7", False)):
        chosen = (*words("--new"), f"model.std={std}", f"train.geco_target={target}")
        assert ("Note" in sri(*chosen, "--steps", "1", code=0).stderr) == noted


def test_any_prepared_file_by_name_at_its_own_size(folder: Path) -> None:
    """The recipe has settings for ShapeStacks alone, at 64 px."""

    def trained_on(*more: str) -> tuple[dict[str, object], str]:
        small = [word for word in SMALL if word != "size=tiny"]  # which sets an image size
        shown = sri("train", "sri-sa", "--steps", "1", *small, *more, code=0)
        run = Path(shown.stdout.split()[2]).parent.parent
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        assert recipe["data"] == recipe["trained_on"]["name"]
        return recipe, shown.stderr

    write_small_data(folder / "data" / "mypics-32.h5")
    recipe, notes = trained_on("--data", "mypics")
    assert recipe["trained_on"].items() >= {"file": "mypics-32.h5", "image_size": 32}.items()
    assert (recipe["data"], recipe["model"]["image_size"]) == ("mypics", 32)
    assert "model.std=0.7 train.geco_target=0.5655" in notes and "model.slots" not in notes
    assert "sri prepare show mypics" in notes
    assert "prepare show" not in trained_on("--data", "mypics")[1]  # it resumes
    write_small_data(folder / "data" / "demo-towers-32.h5")
    assert trained_on("--data", "demo-towers-32")[0]["data"] == "demo-towers"  # the file's name
    notes = trained_on("--data", "mypics", "--new", "model.std=1.4")[1]
    assert "out of reach" in notes and "sri prepare show mypics" in notes
    chosen = "model.std=0.5", "train.geco_target=1"
    assert "Note" not in trained_on("--data", "demo-towers", *chosen)[1]
    recipe, notes = trained_on()
    assert recipe["model"]["image_size"] == 32 and "64 px" in notes


@pytest.mark.parametrize(
    ("sizes", "more", "parts"),
    [
        ((32, 96), [], ["mypics-32.h5", "mypics-96.h5"]),
        ((48,), [], ["48 px", "32, 64, 96, 128 px", "--name mypics", "--size 32"]),
        ((32,), ["model.image_size=64"], ["32 px", "model.image_size=32"]),
        ((64,), ["size=tiny"], ["64 px", "model.image_size=64"]),
        ((64,), ["--data", "mypisc"], ["did you mean mypics?", "prepare folder"]),
        ((64,), ["--recipe", "sri-mog"], ["sri-g: an override is KEY=VALUE"]),
    ],
)
def test_data_that_do_not_decide_or_fit(
    folder: Path, sizes: tuple[int, ...], more: list[str], parts: list[str]
) -> None:
    for size in sizes:
        write_small_data(folder / "data" / f"mypics-{size}.h5", size=size)
    shown = sri("train", "sri-g", "--data", "mypics", "--dry-run", *more, code=2)
    assert [part for part in parts if part not in shown.stderr] == []


def test_the_size_of_the_users_recipe_counts(folder: Path) -> None:
    for name, size in (("near", 32), ("far", 64), ("other", 32)):
        write_small_data(folder / "data" / f"{name}-{size}.h5", size=size)
    recipe = {"name": "mine", "data": "near", "model": {"system": "sri"}}
    recipe |= {"train": {"geco_target": 0.5}, "datasets": {"near": {}, "far": {}}}
    recipe["datasets"] = {"near": {"model": {"image_size": 64}}, "far": {}}
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    workspace = Workspace(Path("data"), Path("runs"))
    with pytest.raises(SriError, match="near-32.h5 have 32 px, the recipe is for 64 px"):
        resolve_run(workspace, "mine.yaml", data="near")
    assert resolve_run(workspace, "mine.yaml", data="far")[0].model.image_size == 64
    assert resolve_run(workspace, "mine.yaml", data="other")[0].model.image_size == 32


def test_a_file_of_another_name_has_the_settings_of_its_data_set(folder: Path) -> None:
    write_small_data(folder / "data" / "clevr6-32.h5").rename("data/mine-32.h5")
    workspace = Workspace(Path("data"), Path("runs"))
    recipe, data, run = resolve_run(workspace, "sri-mog", data="mine")
    assert (recipe.data, recipe.model.std, recipe.model.slots) == ("clevr6", 0.1, 7)
    assert (data, recipe.model.image_size, run.name) == ("mine", 32, "sri-mog-mine")
    imported = resolve_run(workspace, "sri-mog", data="mine", follow=False)[0]
    assert imported.model.image_size == 32
    source = describe_source(workspace, imported, "mine")
    assert source["file"] == str(folder / "data" / "mine-32.h5")


def test_run_seed_and_data_file(folder: Path) -> None:
    other = write_small_data(folder / "mine.h5")
    more = ("--seed", "7", "--threads", "2", "--data", str(other), "--run", "here/x")
    sri(*words("--steps", "1", *more), code=0)
    assert read_log(folder / "here/x")[-1]["threads"] == 2
    assert yaml.safe_load((folder / "here/x/recipe.yaml").read_text())["train"]["seed"] == 7
    assert sri(*words("--steps", "1", "--data", str(other))).exit_code == 0
    assert (folder / "runs/sri-mog-mine-tiny").is_dir()


def test_dry_run_measures_and_writes_nothing(folder: Path) -> None:
    shown = sri(*words("--dry-run"), code=0)
    for part in ("slot_size: 8", "parameters ", "time per step ", "expected total "):
        assert part in shown.stdout
    assert not (folder / "runs").exists()
    result = sri_json(*words("--dry-run", "--steps", "1000"))
    assert result["expected_seconds"] == pytest.approx(1000 * result["seconds_per_step"])
    assert result["parameters"] > 1000 and result["missing"] is None
    assert result["threads"] >= 1 and result["busy_cores"] >= 0
    (folder / "data" / "shapestacks-32.h5").unlink()
    assert "data/shapestacks-32.h5" in sri(*words("--dry-run"), code=0).stderr


def test_a_missing_gpu(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    # Before the weights of step 0 are written, from which the next plain command would go on.
    for more in ([], ["--init-from", "pretrained"], ["--dry-run"]):
        assert "no GPU" in sri(*words("--gpus", "1", *more), code=2).stderr
        assert not (folder / "runs").exists()


def test_more_gpus_than_a_launcher_started_processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in ({"RANK": "0", "WORLD_SIZE": "1"} | address).items():
        monkeypatch.setenv(name, value)
    more = ("--gpus", "8", "--init-from", "nothing", "--dry-run")
    assert "env -u RANK -u WORLD_SIZE" in sri(*words(*more), code=2).stderr
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert "RANK" not in sri(*words(*more), code=2).stderr


def test_a_full_disk_exits_1_in_one_line(folder: Path) -> None:
    assert sri(*words("--steps", "2")).exit_code == 0
    with largest_file(100_000):
        full = sri(*words("--steps", "4"))
    assert full.exit_code == 1, full.output
    assert full.stderr.splitlines()[-2].startswith("Error: could not write runs/")
    names = [path.name for path in (folder / "runs").glob("*/checkpoints/*")]
    assert names == ["step-000000002"]
    with largest_file(4000):  # beyond what TensorBoard begins with
        new = start(*words("--steps", "2", "--run", "other", "--tracker", "tensorboard"))
        shown = finish(new, code=1)[1]
    assert "Error: could not write" in shown and "Traceback" not in shown
    assert sri(*words("--steps", "4")).exit_code == 0


def test_sigterm_exits_75_and_the_same_command_resumes_exactly(folder: Path) -> None:
    stopped = start(*words("--steps", "400", "--run", "stopped"))
    log = folder / "runs/stopped/log.jsonl"
    wait_until(log.exists, stopped)
    stopped.send_signal(signal.SIGTERM)
    said = finish(stopped, 75, 240)[1].splitlines()[-1]
    step = read_log(log)[-1]["step"]
    assert said.startswith(f"Stopped at step {step}; checkpoint saved. Resume with: ")
    assert "sri train --recipe sri-mog --steps 400 --run stopped" in said
    last = str(step + 2)
    for run in ("stopped", "whole"):
        assert sri(*words("--steps", last, "--run", run)).exit_code == 0
    ends = [read_log(folder / "runs" / run) for run in ("stopped", "whole")]
    assert [r["loss"] for r in ends[0]] == [r["loss"] for r in ends[1]]
    assert len(ends[0]) == step + 2


@pytest.mark.slow
def test_four_trackers_hold_every_step_once_after_a_stop_and_a_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow in its default store, a database in the current folder."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # the process of other tests
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, last = folder / "runs" / "mine", 300
    words = ["train", "sri-g", *SMALL, "train.log_every=10", "train.checkpoint_every=40"]
    words += ["train.preview_every=100", "--run", "mine", "--steps", str(last), "--threads", "1"]
    words += [word for name in READERS for word in ("--tracker", name)]

    def train(until: int | None, stop: signal.Signals) -> int:
        with start(*words, stdout=None, stderr=None) as process:
            if until is not None:
                wait_until(lambda: read_steps(run) and read_steps(run)[-1] >= until, process)
                process.send_signal(stop)
            return process.wait()

    assert train(110, signal.SIGTERM) == 75
    assert train(230, signal.SIGKILL) == -signal.SIGKILL
    assert train(None, signal.SIGTERM) == 0
    steps = read_steps(run)
    for name, read in READERS.items():
        held, images = read(run)
        # A kill -9 may lose the record that MLflow was being sent; none may be there twice.
        missing = [step for step in steps if step not in dict(held)]
        assert len(missing) <= (name == "mlflow"), name
        assert [step for step, _ in held] == [step for step in steps if step not in missing], name
        assert images == ([] if name == "csv" else [100, 200, 300]), name
    assert steps[-1] == last and mlflow_run(run).info.status == "FINISHED"


def read_steps(run: Path) -> list[int]:
    """The steps in the log of a run, which need not exist."""
    return [one["step"] for one in read_log(run)] if (run / "log.jsonl").is_file() else []
