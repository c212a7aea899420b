"""`sri runs`: what a list of runs says, what differs between two, and what is removed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sri_cli import checkpoint as checkpoints
from sri_cli.run import Workspace, checkpoints_in, lock_run
from tests.damage import damage
from tests.small_cli import finish, sri, sri_json, start
from tests.small_data import write_run
from tests.small_measurements import ARI, TINY, measured

pytestmark = pytest.mark.usefixtures("here")


def add_checkpoint(run: Path, step: int, **changed: Any) -> None:
    """Another checkpoint with the weights of the newest, with changes of the train section."""
    found = checkpoints.newest_good(run)
    recipe = {**found.recipe, "train": found.recipe["train"] | changed}
    extra = {"data": {"name": "demo-towers", "images": 24, "content": "0"}}
    checkpoints.save(run, step, found.weights(), recipe, {}, extra)


def measurement(step: int, value: float, images: int, **other: str) -> str:
    subject = {"run": "tiny", "model": "m", "checkpoint": f"step-{step:09d}", "step": step}
    record = measured(*ARI, value, data={"name": "demo-towers", **TINY, **other}, **subject)
    return json.dumps(record | {"counts": {"images": images}}) + "\n"


def listed(*words: str) -> dict[str, dict[str, Any]]:
    return {one["run"]: one for one in sri_json("runs", "ls", *words)["runs"]}


def test_what_a_list_says_of_a_run(workspace: Workspace) -> None:
    run = workspace.runs_root / "tiny"
    add_checkpoint(run, 20, steps=50)
    (run / "log.jsonl").write_text(
        '{"step": 20, "nll_per_element": 0.5, "kl/a": 1.0, "kl/b": 2.0}\n{"step": 30, "torn'
    )
    lines = [measurement(10, 0.1, 900), measurement(20, 0.2, 100), measurement(20, 0.3, 50)]
    (run / "metrics.jsonl").write_text("".join(lines))
    one = listed()["tiny"]
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    expected = {"recipe": "sri-mog", "size": "tiny", "data": "demo-towers", "step": 20, "steps": 50}
    expected |= {"training": False, "bytes": size, "checkpoints": 2, "error": 0.5, "kl": 3.0}
    assert expected.items() <= one.items()
    assert [m["value"] for m in one["metrics"]] == [0.2]  # of the newest, the largest sample
    text = sri("runs", "ls").stdout
    assert "20/50" in text and "ARI-FG 0.200" in text


def test_the_list_shows_what_was_measured_of_the_runs_own_test_images(
    workspace: Workspace,
) -> None:
    run = workspace.runs_root / "tiny"
    add_checkpoint(run, 20)
    others = [{"split": "train"}, {"name": "shapestacks"}]
    lines = [measurement(20, 0.2, 100), *(measurement(20, 0.7, 900, **other) for other in others)]
    (run / "metrics.jsonl").write_text("".join(lines))
    assert len(listed()["tiny"]["metrics"]) == 3
    assert "ARI-FG 0.200" in sri("runs", "ls").stdout


def test_a_run_that_has_just_begun_is_training(workspace: Workspace) -> None:
    run = workspace.runs_root / "study-x" / "sri-mog-seed-0"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: sri-mog\ndata: mine\ntrain: {steps: 9}\n")
    (run / "log.jsonl").write_text('{"step": 4}\n')
    with lock_run(run, ""):
        during = listed()["study-x/sri-mog-seed-0"]
        assert (during["training"], during["step"], during["steps"]) == (True, 4, 9)
    after = listed()["study-x/sri-mog-seed-0"]
    assert (after["training"], after["step"], after["checkpoints"]) == (False, 0, 0)


def test_an_unfinished_recipe_hides_no_other_run(workspace: Workspace) -> None:
    draft = workspace.runs_root / "draft"
    draft.mkdir()
    (draft / "recipe.yaml").write_text("name: mine\ntrain:\n")
    runs = listed()
    assert runs["draft"]["steps"] is None and "tiny" in runs
    assert sri("runs", "ls").exit_code == 0


def test_orders_of_a_list(workspace: Workspace) -> None:
    add_checkpoint(workspace.runs_root / "other", 20)
    log = workspace.runs_root / "tiny" / "log.jsonl"
    log.write_text('{"step": 1, "nll_per_element": 1}\n')
    os.utime(log, (2e9, 2e9))
    keys = ("date", "name", "step", "size", "error")
    orders = {key: list(listed("--sort", key)) for key in keys}
    assert orders["date"] == orders["error"] == ["tiny", "other"]
    assert orders["name"] == orders["step"] == orders["size"] == ["other", "tiny"]


def test_the_list_imports_neither_torch_nor_numpy(workspace: Workspace) -> None:
    code = f"""
import sys
from sri_cli.cli.main import cli
try: cli.main(['--runs-root', {str(workspace.runs_root)!r}, 'runs', 'ls'])
except SystemExit: print(*({{'torch', 'numpy', 'h5py', 'pydantic'}} & set(sys.modules)))
"""
    shown = finish(start(code=code))[0]
    *_, imported = shown.split("\n")[:-1]
    assert "tiny" in shown and imported == ""


def test_what_differs_between_two_runs(workspace: Workspace) -> None:
    for name in ("tiny", "other"):
        run = workspace.runs_root / name
        (run / "command.txt").write_text(f"sri train {name}\n")
        lines = ((10, len(name)), (20, 8), (30, 9))  # 30: after the newest checkpoint
        text = "".join(f'{{"step": {n}, "nll_per_element": {e}}}\n' for n, e in lines)
        (run / "log.jsonl").write_text(text)
    add_checkpoint(workspace.runs_root / "tiny", 20, lr=0.5)
    (workspace.runs_root / "tiny" / "metrics.jsonl").write_text(measurement(20, 0.2, 100))
    found = sri_json("runs", "diff", "tiny", "other")
    assert found["steps"] == [20, 10]
    assert found["settings"]["model.system"] == ["sri", "genesis-v2"]
    assert found["settings"]["train.lr"][0] == "0.5"
    assert found["settings"]["model.order"] == ["greedy", "-"]  # without effect in the other
    assert found["settings"]["data.images"] == ["24", "-"]
    assert not {"train.batch", "data", "data.file"} & found["settings"].keys()
    assert found["training"]["error"] == [8, 5]
    assert [len(own) for own in found["metrics"]] == [1, 0]
    assert found["commands"] == [["sri train tiny"], ["sri train other"]]
    text = sri("runs", "diff", "tiny", "other").stdout
    assert "ARI-FG" in text and "sri train other" in text
    earlier = str(checkpoints_in(workspace.runs_root / "tiny")[0])
    found = sri_json("runs", "diff", earlier, "tiny")
    assert {"train.lr", "data.images", "data.content"} == set(found["settings"])
    assert found["training"]["error"] == [4, 8]
    assert sri("runs", "diff", "tiny", "nothing").exit_code == 2


def test_removal_follows_no_link_and_says_what_was_freed(
    workspace: Workspace, tmp_path: Path
) -> None:
    runs, outside = workspace.runs_root, tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (runs / "tiny" / "linked").symlink_to(outside)
    size = sum(p.stat().st_size for p in (runs / "tiny" / "checkpoints").rglob("*") if p.is_file())
    assert sri("runs", "rm", "tiny").exit_code == 2  # nobody can confirm
    assert (runs / "tiny" / "checkpoints").is_dir()
    result = sri("runs", "rm", "tiny", "other", "--yes", code=0)
    assert f"{size:,}" in result.stdout
    assert not list(runs.iterdir()) and (outside / "kept").is_file()


def test_what_is_not_removed(workspace: Workspace, tmp_path: Path) -> None:
    runs = workspace.runs_root
    write_run(tmp_path / "elsewhere" / "run")
    (runs / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    (runs / "beside").symlink_to(tmp_path / "elsewhere")
    (runs / "notes").mkdir()
    elsewhere = str(tmp_path / "elsewhere" / "run")
    for name in ("linked", "beside/run", elsewhere, "notes", "nothing", ".", "..", str(runs)):
        assert sri("runs", "rm", "tiny", name, "--yes").exit_code == 2, name
    with lock_run(runs / "other", ""):
        assert "other" in sri("runs", "rm", "tiny", "other", "--yes", code=2).stderr
    left = [elsewhere, runs / "tiny", runs / "other"]
    assert all(checkpoints.newest_good(Path(run)) is not None for run in left)


def test_a_study_is_removed_with_its_runs(workspace: Workspace) -> None:
    study = workspace.runs_root / "study-x"
    write_run(study / "a")
    write_run(study / "b")
    (study / "study.json").write_text("{}")
    with lock_run(study / "b", ""):
        assert sri("runs", "rm", "study-x", "--yes").exit_code == 2
    assert checkpoints_in(study / "a") and sri("runs", "rm", "study-x/a", "--yes").exit_code == 0
    assert not (study / "a").exists() and checkpoints_in(study / "b")
    assert len(sri("runs", "rm", "study-x/b", "study-x", "--yes", code=0).stdout.splitlines()) == 1
    assert not study.exists()


def test_runs_that_a_study_links_to_stay(workspace: Workspace, tmp_path: Path) -> None:
    study, others = workspace.runs_root / "study-x", [tmp_path / "b", tmp_path / "folder" / "c"]
    write_run(study / "a")
    for run in others:
        write_run(run)
        add_checkpoint(run, 20)
    for name in ("b", "folder"):
        (study / name).symlink_to(tmp_path / name)
    for words in (["--old-checkpoints"], []):
        assert sri("runs", "rm", "study-x", "--yes", *words).exit_code == 0
        assert [len(checkpoints_in(run)) for run in others] == [2, 2]
    assert not study.exists()


def test_a_stopped_removal_says_what_may_be_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sri_cli.runs.shutil.rmtree", stop)
        result = sri("runs", "rm", "tiny", "--yes")
    assert result.exit_code == 130 and str(workspace.runs_root / "tiny") in result.stderr
    assert sri("runs", "rm", "tiny", "--yes").exit_code == 0


def test_only_old_checkpoints_are_removed(workspace: Workspace) -> None:
    run = workspace.runs_root / "tiny"
    add_checkpoint(run, 20)
    add_checkpoint(run, 30)
    damage(checkpoints_in(run)[-1] / "model.safetensors", "cut")
    links = {"best": "step-000000020", "first": "step-000000010", "loop": "loop"}
    for link, target in links.items():
        (run / "checkpoints" / link).symlink_to(target)
    assert sri("runs", "rm", "tiny", "--old-checkpoints", "--yes").exit_code == 0
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert left == {"step-000000020", "best"}
