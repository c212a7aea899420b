"""The folders of data and runs, and files that are written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sri_cli.atomic import ensure_folder, write_atomic
from sri_cli.errors import SriError, SriFailure
from sri_cli.run import SHIPPED, RunRef, Workspace, checkpoints_in
from tests.damage import largest_file


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(data_root=tmp_path / "data", runs_root=tmp_path / "runs")


def make_run(workspace: Workspace, name: str, *steps: int, age_sec: float = 0) -> Path:
    run = workspace.runs_root / name
    (run / "checkpoints").mkdir(parents=True)
    for step in steps:
        folder = run / "checkpoints" / f"step-{step:09d}"
        folder.mkdir()
        os.utime(folder, (1e9 - age_sec, 1e9 - age_sec))
    return run


def test_find_data_by_name_and_by_file(workspace: Workspace) -> None:
    workspace.data_root.mkdir()
    path = workspace.data_root / "shapestacks-64.h5"
    path.touch()
    assert workspace.data_path("shapestacks", 64) == path
    assert workspace.find_data("shapestacks", 64) == path
    assert workspace.find_data(str(path), 32) == path
    (workspace.data_root / "areas-².h5").touch()  # a digit, but no number
    assert workspace.data_files() == {"shapestacks": {64: path}}


def test_missing_data_says_how_to_make_it(workspace: Workspace) -> None:
    workspace.data_root.mkdir()
    (workspace.data_root / "shapestacks-32.h5").touch()
    with pytest.raises(SriError, match=r"64\.h5.*32\.h5.*\n.*sri prepare shapestacks --size 64"):
        workspace.find_data("shapestacks", 64)
    with pytest.raises(SriError, match=r"\n.*shapestacks --preset demo --size 32"):
        workspace.find_data("demo-towers", 32)
    with pytest.raises(SriError, match=r"\n.*objects-room --from bucket --test-set six_objects"):
        workspace.find_data("objects-room-six-objects", 64)
    with pytest.raises(SriError, match=r"did you mean clevrtex-camo\?"):
        workspace.find_data("clevrtex-camp", 64)


def test_missing_data_file_and_folder(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SriError, match=r"nothing\.h5"):
        workspace.find_data("nothing.h5", 64)
    with pytest.raises(SriError, match=tmp_path.name):
        workspace.find_data(str(tmp_path), 64)


def test_latest_run_is_the_one_with_the_newest_checkpoint(workspace: Workspace) -> None:
    make_run(workspace, "old", 100, age_sec=50)
    new = make_run(workspace, "new", 5, 10, age_sec=10)
    make_run(workspace, "without")
    assert workspace.find_run() == RunRef(new)
    assert workspace.run_names() == ["new", "old"]


def test_unfinished_checkpoint_does_not_count(workspace: Workspace) -> None:
    run = make_run(workspace, "cut")
    (run / "checkpoints" / ".step-000000005.tmp").mkdir()
    with pytest.raises(SriError, match="runs"):
        workspace.find_run()
    with pytest.raises(SriError, match="cut"):
        workspace.find_run("cut")


def test_run_by_name_folder_and_checkpoint(workspace: Workspace) -> None:
    run = make_run(workspace, "one", 5)
    checkpoint = run / "checkpoints" / "step-000000005"
    assert workspace.find_run("one") == RunRef(run)
    assert workspace.find_run(str(run)) == RunRef(run)
    assert workspace.find_run(str(checkpoint)) == RunRef(run, checkpoint)


def test_a_run_by_the_folder_that_one_is_in(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(workspace, "one", 5).resolve()
    checkpoint = run / "checkpoints" / "step-000000005"
    monkeypatch.chdir(run)
    assert workspace.find_run(".") == RunRef(run)
    assert workspace.find_run("checkpoints/step-000000005") == RunRef(run, checkpoint)
    monkeypatch.chdir(run / "checkpoints")
    assert workspace.find_run("step-000000005") == RunRef(run, checkpoint)
    monkeypatch.chdir(checkpoint)
    assert workspace.find_run(".") == RunRef(run, checkpoint)


def test_unknown_runs(workspace: Workspace) -> None:
    with pytest.raises(SriError, match=r"runs.*\n.*--run pretrained"):
        workspace.find_run()
    make_run(workspace, "towers", 5)
    with pytest.raises(SriError, match=r"twoers .*towers.*\n.*towers"):
        workspace.find_run("twoers")


def test_the_shipped_model_becomes_a_run_that_is_asked_for_by_name_alone(
    workspace: Workspace,
) -> None:
    ref = workspace.find_run("pretrained")
    assert ref.run_dir == workspace.runs_root / "pretrained" and ref.checkpoint is not None
    assert ref.checkpoint == checkpoints_in(ref.run_dir)[-1]
    with pytest.raises(SriError, match=r"runs.*\n.*--run pretrained"):
        workspace.find_run()
    with pytest.raises(SriError, match="pretrained"):
        workspace.find_run("pretraind")
    own = make_run(workspace, "own", 5, age_sec=1000)
    assert workspace.find_run() == RunRef(own)


def test_the_shipped_model_is_made_whole_and_measurements_stay(workspace: Workspace) -> None:
    ref = workspace.find_run("pretrained")
    shipped = {path: path.read_bytes() for path in ref.run_dir.rglob("*") if path.is_file()}
    (ref.checkpoint / "model.safetensors").write_bytes(b"cut")
    (ref.checkpoint / "meta.json").unlink()
    measured = ref.run_dir / "metrics.jsonl"
    torn = shipped[measured][:-1]
    measured.write_bytes(torn[torn.index(b"\n") + 1 :] + b'\n{"one": "of my own"}\n{"torn')
    workspace.find_run("pretrained")
    merged = measured.read_bytes().splitlines()
    assert {b'{"one": "of my own"}', b'{"torn', *shipped[measured].splitlines()} == set(merged)
    assert len(merged) == len(set(merged))
    for path, data in shipped.items():
        assert path == measured or path.read_bytes() == data
    # An older version's model in the same folder is not taken for the shipped one.
    (ref.run_dir / "checkpoints" / "step-999999999").mkdir()
    assert workspace.find_run("pretrained").checkpoint == ref.checkpoint


def test_a_new_shipped_model_takes_the_place_of_the_old_but_not_of_its_output(
    workspace: Workspace,
) -> None:
    ref = workspace.find_run("pretrained")
    old = ref.checkpoint.rename(ref.checkpoint.with_name("step-000900000"))
    sample = ref.run_dir / "samples" / "001" / "grid.png"
    sample.parent.mkdir(parents=True)
    sample.touch()
    assert workspace.find_run("pretrained") == ref
    assert checkpoints_in(ref.run_dir) == [ref.checkpoint]  # also by path and in lists
    assert sample.exists()
    # A run that was trained under this name before it was reserved is kept.
    old.mkdir()
    (old / "state.pt").touch()
    with pytest.raises(SriError, match=r"trained here.*\n.*mv "):
        workspace.find_run("pretrained")
    assert (old / "state.pt").exists()


@pytest.mark.parametrize("name", SHIPPED)
def test_names_of_shipped_models_are_reserved(
    workspace: Workspace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.runs_root.parent)
    for chosen in (name, str(workspace.runs_root / name), f"runs/{name}"):
        with pytest.raises(SriError, match=name):
            workspace.run_dir(chosen)
    make_run(workspace, name, 5)
    assert name not in workspace.run_names()


def test_new_run_by_name_or_path(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.run_dir("mine") == workspace.runs_root / "mine"
    assert workspace.run_dir(str(tmp_path / "x")) == tmp_path / "x"
    assert workspace.run_dir(str(tmp_path / "pretrained")) == tmp_path / "pretrained"


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with largest_file(1000), pytest.raises(SriFailure, match=str(path)):
        write_atomic(path, bytes(5000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SriFailure, match="below"):
        ensure_folder(tmp_path / "file" / "below")
    with pytest.raises(SriFailure):
        ensure_folder(Path("/proc/below"))
