"""Resume, stop, roll back: a run in parts is, bit by bit, the run in one."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.config.schema import Recipe
from sri_cli.config.strict_yaml import read_yaml
from sri_cli.data import loader
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.model_metrics import SplitTask, bound_scores
from sri_cli.metrics.records import Context
from sri_cli.plotting.previews import draw_preview
from sri_cli.rng import retry_seed
from sri_cli.run import Workspace
from sri_cli.signals import is_ignored
from sri_cli.training import run_folder
from sri_cli.training.log import read_log
from sri_cli.training.trainer import new_step, train
from tests.damage import damage, largest_file
from tests.small_data import write_small_data
from tests.small_models import TINY_MODEL, one_of_each_system, small_encoder
from tests.small_models import tiny_recipe as small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFile:
    return DataFile(write_small_data(tmp_path_factory.mktemp("data") / "towers-32.h5"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: DataFile) -> Path:
    """Six steps without a break."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(small(), data, run)
    return run


def records(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the machine, or on previews."""

    def repeats(key: str) -> bool:
        return key not in {"time", "images_per_second", "memory_mb"} and not key.startswith("val/")

    return [{k: v for k, v in record.items() if repeats(k)} for record in read_log(run)]


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts and lists by dotted name."""
    for key, value in enumerate(tree) if isinstance(tree, list) else tree.items():
        if isinstance(value, dict | list):
            yield from leaves(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value


def assert_same_run(run: Path, other: Path) -> None:
    """Equal records at every step, and at the end equal weights and training state."""
    assert records(run) == records(other)
    ends = []
    for saved in (checkpoints.newest_good(run), checkpoints.newest_good(other)):
        ends.append(dict(leaves({"weights": saved.weights(), "step": saved.step, **saved.state()})))
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        same = torch.equal(value, ends[1][key]) if torch.is_tensor(value) else value == ends[1][key]
        assert same, key


def steps(run: Path) -> list[int]:
    return [int(p.name[5:]) for p in checkpoints.checkpoints_in(run)]


def test_a_run_leaves_everything_in_its_folder(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"recipe.yaml", "command.txt", "log.jsonl", "checkpoints"} <= names
    assert steps(whole) == [2, 4, 6]
    records = read_log(whole)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    expected = {
        "loss",
        "nll",
        "nll_per_element",
        "error_per_element/segregation",
        "beta/imagination",
    }
    expected |= {"lr", "images_per_second", "memory_mb", "skipped", "time"}
    assert expected <= records[-1].keys()
    last = records[-1]
    assert last["nll_per_element"] == pytest.approx(last["nll"] / (3 * 32 * 32))
    assert last["memory_mb"] > 10 and last["images_per_second"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_the_same_command_resumes(
    tmp_path: Path, data: DataFile, whole: Path, number: signal.Signals
) -> None:
    def stop_at_three(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            for _ in range(2):  # by whoever sent it to all processes, and by a wrapper
                os.kill(os.getpid(), number)

    if is_ignored(number):
        pytest.skip("nohup has the tests ignore it")
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"step 3.*\n.*sri train --recipe x"):
        train(small(), data, tmp_path, command="sri train --recipe x", on_record=stop_at_three)
    assert steps(tmp_path) == [2, 3]
    assert signal.getsignal(number) is before
    train(small(), data, tmp_path)
    assert_same_run(tmp_path, whole)


def test_previews_change_no_bit_of_a_training(tmp_path: Path, data: DataFile, whole: Path) -> None:
    def stop_at_three(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    recipe = small(preview_every=2)
    with pytest.raises(Interrupted):
        train(recipe, data, tmp_path, preview=draw_preview, on_record=stop_at_three)
    train(recipe, data, tmp_path, preview=draw_preview)
    assert_same_run(tmp_path, whole)
    names = {path.name for path in (tmp_path / "previews").iterdir()}
    assert names == {f"{name}-{n:09d}.png" for name in ("samples", "order") for n in (2, 4, 6)}
    log = read_log(tmp_path)
    assert [record["step"] for record in log if "val/kl_slot" in record] == [2, 4, 6]
    # The last of them as `sri eval` measures the finished model, for the images are all there are.
    trained = open_run(Workspace(tmp_path / "data", tmp_path), str(tmp_path), device="cpu")
    task = SplitTask(trained, data, "val", 64, seed=0)
    measured = bound_scores(task, Context({}, {"split": "val"}, 0))
    (bound,) = [one["value"] for one in measured if one["metric"] == "negative_elbo"]
    assert log[-1]["val/negative_elbo"] == pytest.approx(bound, rel=1e-6)


def test_a_preview_that_fails_ends_no_training_but_a_full_disk_does(
    tmp_path: Path, data: DataFile, capsys: pytest.CaptureFixture[str]
) -> None:
    def preview(run: TrainedRun, file: DataFile) -> tuple[dict[str, bytes], dict[str, float]]:
        assert not run.model.training
        if run.step == 2:
            raise SriFailure("not finite")
        return {"samples": bytes(10_000_000)}, {}

    recipe = small(preview_every=2, steps=3)
    assert train(recipe, data, tmp_path, preview=preview).step == 3
    assert "Note: no preview of step 2: not finite" in capsys.readouterr().err
    with largest_file(5_000_000), pytest.raises(SriFailure, match="samples-000000004"):
        train(small(preview_every=2), data, tmp_path, preview=preview)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, data: DataFile, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(steps=5), data, tmp_path)
    damage(checkpoints.checkpoint_path(tmp_path, 5) / "state.pt", "flipped")
    outcome = train(small(), data, tmp_path)
    assert outcome.resumed_from == 4
    assert "step-000000005: state.pt" in capsys.readouterr().err
    assert_same_run(tmp_path, whole)


def test_a_changed_recipe_stops_with_the_differences(tmp_path: Path, data: DataFile) -> None:
    train(small(steps=1), data, tmp_path)
    changes = r"train\.lr 0\.001 -> 0\.002.*train\.seed 0 -> 4.*\n.*--run"
    with pytest.raises(run_folder.RunChanged, match=changes):
        train(small(lr=2e-3, seed=4), data, tmp_path)


def test_a_small_run_is_trained_further_by_its_own_schedule(tmp_path: Path, data: DataFile) -> None:
    def of_size_small(steps: int, decay: int) -> Recipe:
        return small(steps=steps, lr_decay_steps=decay).model_copy(update={"size": "small"})

    train(of_size_small(1, 1), data, tmp_path)
    with pytest.raises(run_folder.RunChanged) as caught:
        train(of_size_small(2, 2), data, tmp_path)
    hint = caught.value.hint or ""
    assert "--new" in hint and "train.lr_decay_steps=1" in hint
    assert train(of_size_small(2, 1), data, tmp_path).step == 2


def test_other_logging_and_more_steps_are_no_change(tmp_path: Path, data: DataFile) -> None:
    train(small(steps=1), data, tmp_path)
    free = {"log_every": 2, "checkpoint_every": 7, "keep_checkpoints": 1, "precision": "bf16"}
    assert train(small(**free), data, tmp_path).resumed_from == 1


def test_another_data_file_is_a_change(tmp_path: Path, data: DataFile) -> None:
    train(small(steps=1), data, tmp_path)
    fewer = DataFile(write_small_data(tmp_path / "fewer-32.h5", images=12))
    with pytest.raises(run_folder.RunChanged, match="data file.images 16 -> 12"):
        train(small(), fewer, tmp_path)
    other = DataFile(write_small_data(tmp_path / "other-32.h5", seed=1))
    with pytest.raises(run_folder.RunChanged, match="data file.content"):
        train(small(), other, tmp_path)


def test_the_same_images_in_another_file_under_another_name_are_no_change(
    tmp_path: Path, data: DataFile
) -> None:
    train(small(steps=1), data, tmp_path)
    moved = DataFile(write_small_data(tmp_path / "elsewhere-32.h5"))
    assert moved.name != data.name
    assert train(small(steps=2), moved, tmp_path).resumed_from == 1
    recipe = read_yaml((tmp_path / "recipe.yaml").read_text(), "recipe.yaml")
    assert recipe["data"] == recipe["trained_on"]["name"] == "elsewhere"


def test_the_crop_of_a_folder_is_in_the_checkpoint_and_no_change(
    tmp_path: Path, data: DataFile
) -> None:
    cropped = DataFile(data.path)
    cropped.source = "folder"
    cropped.attrs["parameters"]["crop"] = 24
    for file, steps, crop in ((data, 1, None), (cropped, 2, 24), (data, 3, None)):
        train(small(steps=steps), file, tmp_path)
        assert checkpoints.newest_good(tmp_path).extra["data"].get("crop") == crop


def test_every_command_of_a_run_is_in_its_history(tmp_path: Path, data: DataFile) -> None:
    (tmp_path / "command.txt").write_text("sri train of version 0.1\n")

    def killed(record: dict[str, Any]) -> None:
        if record["step"] == 5:
            raise KeyError

    for last, command in ((1, "a"), (2, "b"), (2, "c"), (3, "b"), (4, "c")):  # c: nothing to do
        train(small(steps=last), data, tmp_path, command=f"sri train {command}")
    with pytest.raises(KeyError):
        train(small(), data, tmp_path, command="sri train d", on_record=killed)
    run_folder.begin_command(tmp_path, "sri train e", 4)  # of a process that is killed
    run_folder.begin_command(tmp_path, "sri train f", 6)
    lines = [line.partition("  # ") for line in run_folder.read_commands(tmp_path)]
    assert [(command, text.rpartition(" UTC, ")[2]) for command, _, text in lines] == [
        ("sri train of version 0.1", ""),
        ("sri train a", "steps 0 to 1"),
        ("sri train b", "steps 1 to 3"),  # one line for the same command again
        ("sri train c", "steps 3 to 4"),
        ("sri train d", "step 4"),
        ("sri train e", "steps 4 to 6"),
        ("sri train f", "from step 6"),
    ]


def test_a_finished_run_stays_as_it_is(
    tmp_path: Path, data: DataFile, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small(steps=2), data, tmp_path)
    before, recipe = records(tmp_path), (tmp_path / "recipe.yaml").read_text()
    assert train(small(steps=1, precision="bf16"), data, tmp_path).step == 2
    assert records(tmp_path) == before
    assert (tmp_path / "recipe.yaml").read_text() == recipe
    assert "at step 2" in capsys.readouterr().err


def test_the_first_line_does_not_wait_for_the_first_record(
    tmp_path: Path,
    data: DataFile,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sri_cli.console.FIRST_SHOWN_SEC", 0.0)
    train(small(log_every=3, checkpoint_every=3), data, tmp_path)
    line = next(line for line in capsys.readouterr().err.splitlines() if "step 1/6" in line)
    assert "error 0." in line and "images/s" in line and line.endswith(" left")
    first, last = read_log(tmp_path)  # what was shown early is part of the record all the same
    losses = [record["loss"] for record in read_log(whole)]
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [first["loss"], last["loss"]] == pytest.approx(means, rel=1e-6)


def test_two_trainings_never_share_a_folder(tmp_path: Path, data: DataFile) -> None:
    with run_folder.open_run(tmp_path), pytest.raises(SriError, match="another sri train"):
        train(small(), data, tmp_path)


def test_old_checkpoints_are_deleted_but_every_nth(tmp_path: Path, data: DataFile) -> None:
    train(small(checkpoint_every=1, keep_checkpoints=2, keep_every=3), data, tmp_path)
    assert steps(tmp_path) == [3, 5, 6]


def test_checkpoints_to_keep_are_written_between_the_usual_ones(
    tmp_path: Path, data: DataFile
) -> None:
    train(small(checkpoint_every=4, keep_checkpoints=1, keep_every=3), data, tmp_path)
    assert steps(tmp_path) == [3, 6]


def test_images_of_another_size(tmp_path: Path, data: DataFile) -> None:
    recipe = small(TINY_MODEL | {"image_size": 64})
    with pytest.raises(SriError, match=r"32 px.* 64 px.*\n."):
        train(recipe, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def poison(monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    """NaN in the noise of every (seed, step) that `where` accepts."""
    draw = loader.draw_noise

    def poisoned(specs: Any, batch: int, seed: int, step: int, rows: slice | None = None) -> Any:
        noise = draw(specs, batch, seed, step, rows)
        if where(seed, step):
            noise["posterior"][0] = math.nan
        return noise

    monkeypatch.setattr(loader, "draw_noise", poisoned)


def test_divergence_rolls_back_to_new_noise(
    tmp_path: Path,
    data: DataFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison(monkeypatch, lambda seed, step: seed == 0 and step >= 4)
    outcome = train(small(steps=16), data, tmp_path)
    assert outcome.step == 16
    notes = capsys.readouterr().err
    assert notes.count("Note: diverged") == 1 and "(1 of 3)" in notes
    assert [record["step"] for record in read_log(tmp_path)] == list(range(1, 17))
    again = train(small(steps=18), data, tmp_path)  # a resume keeps the new noise
    assert again.step == 18 and read_log(tmp_path)[-1]["skipped"] == 0


def test_a_signal_saves_no_diverging_state(
    tmp_path: Path,
    data: DataFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison(monkeypatch, lambda seed, step: seed == 0 and step >= 8)
    take, recipe = loader.Prefetcher.at, small(steps=20, log_every=20, checkpoint_every=4)

    def stopped(feed: loader.Prefetcher, step: int) -> Any:
        if step == 13:  # the sixth that is not finite
            os.kill(os.getpid(), signal.SIGTERM)
        return take(feed, step)

    with monkeypatch.context() as context:
        context.setattr(loader.Prefetcher, "at", stopped)
        with pytest.raises(Interrupted, match="step 12 remains"):
            train(recipe, data, tmp_path)
    assert steps(tmp_path)[-1] == 12
    # Also for who starts several processes, whose results the launcher does not fetch then.
    assert "Note: diverged at step 14, which is not saved: 6 of" in capsys.readouterr().err
    assert train(recipe, data, tmp_path).resumed_from == 12
    assert steps(tmp_path)[-1] == 20


def test_repeated_divergence_ends_the_run(
    tmp_path: Path,
    data: DataFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poison(monkeypatch, lambda seed, step: step >= 4)
    text = r"losses or gradients that are not finite.*3 roll-backs.*\n.*train\.lr"
    with pytest.raises(Diverged, match=text):
        train(small(steps=40, checkpoint_every=4, keep_checkpoints=100), data, tmp_path)
    assert capsys.readouterr().err.count("Note: diverged") == 3
    assert all(w.isfinite().all() for w in checkpoints.newest_good(tmp_path).weights().values())


def test_a_roll_back_that_helped_does_not_count_against_the_next(
    tmp_path: Path, data: DataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sri_cli.training.trainer.WINDOW_STEPS", 2)
    bad = {retry_seed(0, attempt): 10 * attempt + 4 for attempt in range(4)}
    poison(monkeypatch, lambda seed, step: step >= bad.get(seed, 1000))
    assert train(small(steps=44), data, tmp_path).step == 44


def test_divergence_before_the_first_checkpoint_starts_over(
    tmp_path: Path, data: DataFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda seed, step: True)
    recipe = small(steps=3, checkpoint_every=9)
    with pytest.raises(Diverged, match=r"step 3.*\n.*nothing is saved"):
        train(recipe, data, tmp_path / "new")
    assert steps(tmp_path / "new") == []
    # The weights that a run began with are a checkpoint.
    start = new_step(recipe, torch.device("cpu"))
    checkpoints.save(
        tmp_path / "started",
        0,
        start.model.state_dict(),
        recipe.model_dump(mode="json"),
        {"step": start.state(), "attempt": 0},
        {"started_from": {"run": "x", "step": 1}},
    )
    with pytest.raises(Diverged, match=r"step 3.*\n.*the checkpoint of step 0 remains"):
        train(recipe, data, tmp_path / "started")


SHORT = [
    *("size=tiny", "model.slots=2", "model.slot_size=8", "train.batch=2"),
    *("train.precision=fp32", "train.log_every=1", "train.checkpoint_every=100"),
    # These begin or end after the stop, which comes at step 2.
    "train.lr_warmup=3",
]


def small_recipe(name: str, steps: int) -> Recipe:
    words = [*SHORT, f"train.steps={steps}", *small_encoder(name)]
    if name != "slot-vae":
        words.append("train.geco_warmup=3")
    if load_recipe(name).model.likelihood == "mog":
        words.append("train.gaussian_warmup_steps=3")
    if name == "emorl":
        words += ["train.late_refinements=1", "train.late_refinements_from=3"]
    return load_recipe(name, None, words)


@pytest.mark.parametrize("name", one_of_each_system())
def test_two_and_three_steps_are_five(tmp_path: Path, data: DataFile, name: str) -> None:
    train(small_recipe(name, 5), data, tmp_path / "whole")
    train(small_recipe(name, 2), data, tmp_path / "parts")
    assert train(small_recipe(name, 5), data, tmp_path / "parts").resumed_from == 2
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    assert not any(record["skipped"] for record in records(tmp_path / "whole"))
