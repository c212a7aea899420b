"""What a user could lose: kills, full disks, cut and altered files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.trained_run import open_run
from sri_cli.models.build import build_model
from sri_cli.run import Workspace, checkpoints_in
from tests.damage import damage, largest_file
from tests.small_cli import start
from tests.small_models import tiny_recipe

RECIPE = tiny_recipe().model_dump(mode="json")


def weights(step: int, numbers: int = 1000) -> dict[str, torch.Tensor]:
    return {"w": torch.full((numbers,), float(step))}


def save(run: Path, step: int, numbers: int = 1000) -> Path:
    state = {"step": step, "moment": torch.full((numbers,), float(step))}
    return checkpoints.save(
        run, step, weights(step, numbers), RECIPE, state, {"data": {"name": "towers"}}
    )


def steps(run: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints_in(run)]


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    tensor = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    path = checkpoints.save(
        tmp_path, 25000, {"w": tensor}, RECIPE, {"x": 3}, {"data": {"name": "towers"}}
    )
    assert path == tmp_path / "checkpoints" / "step-000025000"
    saved = checkpoints.newest_good(tmp_path)
    assert (saved.step, saved.recipe, saved.extra) == (25000, RECIPE, {"data": {"name": "towers"}})
    assert torch.equal(saved.weights()["w"], tensor)
    assert saved.state() == {"x": 3}


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "meta.json"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 10)
    damage(save(tmp_path, 20) / name, how)
    saved = checkpoints.newest_good(tmp_path)
    assert saved is not None and saved.step == 10
    (broken,) = saved.skipped
    assert "step-000000020" in broken.message and name in broken.message
    assert broken.message in capsys.readouterr().err


def test_meta_of_another_format_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path, 10) / "meta.json"
    meta = json.loads(path.read_text())
    meta.pop("sha256")
    meta["format"] = 99
    meta["sha256"] = checkpoints._digest(meta)
    path.write_text(json.dumps(meta))
    with pytest.raises(checkpoints.BrokenCheckpoint, match="format 99"):
        checkpoints.verify(path.parent)


def test_pickled_classes_are_refused(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, weights(1), RECIPE, {"path": Path("x")})
    saved = checkpoints.newest_good(tmp_path)
    with pytest.raises(Exception, match="[Ww]eights"):
        saved.state()


@pytest.mark.parametrize("room", [0, 100, 3000, 5000])
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, room: int) -> None:
    save(tmp_path, 10)
    with largest_file(room), pytest.raises(SriFailure, match="could not write"):
        save(tmp_path, 20, numbers=5000)
    assert os.listdir(tmp_path / "checkpoints") == ["step-000000010"]
    assert checkpoints.newest_good(tmp_path).step == 10


# Forks a child per line of its input; the child writes checkpoints until it is killed.
SAVE_REPEATEDLY = """
import os, sys
from pathlib import Path
import torch
from sri_cli import checkpoint as checkpoints

run = Path(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)
        continue
    for step in range(int(line), 10**6):
        w = {"w": torch.full((100_000,), float(step))}
        checkpoints.save(run, step, w, {}, dict(w))
        checkpoints.prune(run, 3, 10**9)
"""


def test_kill_9_at_any_moment_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    forker = start(str(tmp_path), code=SAVE_REPEATEDLY, stdin=subprocess.PIPE, stderr=None)
    rng = random.Random(0)
    step = 0
    save(tmp_path, step)
    for _ in range(15):
        print(step + 1, file=forker.stdin, flush=True)
        child = int(forker.stdout.readline())
        deadline = time.monotonic() + 30
        while steps(tmp_path)[-1] == step and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        assert forker.stdout.readline() == "gone\n"
        saved = checkpoints.newest_good(tmp_path)
        assert saved is not None and saved.step > step and not saved.skipped
        assert torch.equal(saved.weights()["w"], weights(saved.step, 100_000)["w"])
        step = saved.step
    forker.communicate()
    checkpoints.remove_leftovers(tmp_path)
    assert all(path.name.startswith("step-") for path in (tmp_path / "checkpoints").iterdir())


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    damage(save(tmp_path, 10) / "state.pt", "cut")
    save(tmp_path, 10)
    assert checkpoints.newest_good(tmp_path).step == 10
    assert os.listdir(tmp_path / "checkpoints") == ["step-000000010"]


def test_a_run_loads_and_a_broken_checkpoint_is_skipped_for_an_older_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model(**RECIPE["model"])
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, step, model.state_dict(), RECIPE, {})
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    newest = open_run(workspace, str(tmp_path), device="cpu")
    assert (newest.step, newest.recipe.name, newest.model.training) == (30, "small", False)
    for name, value in model.state_dict().items():
        assert torch.equal(newest.model.state_dict()[name], value)
    broken = checkpoints.checkpoint_path(tmp_path, 20)
    damage(broken / "model.safetensors", "cut")
    assert open_run(workspace, str(broken)).step == 10
    assert "step-000000020" in capsys.readouterr().err


def test_what_was_kept_stays_when_a_later_command_keeps_less(tmp_path: Path) -> None:
    kept = tiny_recipe(keep_every=4).model_dump(mode="json")
    for step in range(0, 10, 2):
        checkpoints.save(tmp_path, step, weights(step), kept, {})
    for step in range(10, 18, 2):
        save(tmp_path, step)
    checkpoints.prune(tmp_path, 2, 10**9)
    assert steps(tmp_path) == [0, 4, 8, 14, 16]


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    assert checkpoints.newest_good(tmp_path) is None
    damage(save(tmp_path, 10) / "meta.json", "cut")
    with pytest.raises(SriError) as caught:
        open_run(Workspace(tmp_path / "data", tmp_path / "runs"), str(tmp_path))
    assert caught.value.exit_code == 2 and caught.value.hint
    save(tmp_path, 20)  # the run is not lost, so its error is another
    with pytest.raises(SriError, match="step-000000010"):
        open_run(
            Workspace(tmp_path / "data", tmp_path / "runs"),
            str(tmp_path / "checkpoints" / "step-000000010"),
        )
