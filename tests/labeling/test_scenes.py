"""`sri label-sacc` over runs and folders: which images, the same session again, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.data.dataset import DataFile
from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.errors import SriError
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.scenes import catch_trials, prepare_session
from sri_cli.labeling.session import Deck, read_session
from sri_cli.run import Workspace


def begin(workspace: Workspace, *runs: str, folders: tuple[Path, ...] = (), **how: int) -> Path:
    return prepare_session(workspace, runs, folders, **{"num": 4, "catch": 4, **how})


def drawn(workspace: Workspace, *runs: str, **how) -> tuple[Deck, np.ndarray]:
    deck = read_session(begin(workspace, *runs, **how))
    return deck, deck.load_images()


def write_images(folder: Path, count: int, size: int = 32, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def sri(workspace: Workspace, *words: str) -> Result:
    roots = ["--runs-root", str(workspace.runs_root), "--data-root", str(workspace.data_root)]
    return CliRunner().invoke(cli, [*roots, *words])


def test_scenes_are_those_of_sri_sample(workspace: Workspace, trained: TrainedRun) -> None:
    deck, images = drawn(workspace, "tiny", num=5, seed=3, catch=0)
    scenes = sample_scenes(trained.model, 5, 3, 1.0, seed=3)
    np.testing.assert_array_equal(images, np.concatenate([quantise(s.image) for s in scenes]))
    assert [item.index for item in deck.items] == list(range(5))


def test_the_same_settings_continue_a_session(workspace: Workspace) -> None:
    first = begin(workspace, "tiny", "other")
    written = (first / "pictures.npz").stat().st_mtime_ns
    shutil.rmtree(workspace.data_root)
    (workspace.runs_root / "tiny").rename(workspace.runs_root / "renamed")
    assert begin(workspace, "other", "renamed") == first
    assert (first / "pictures.npz").stat().st_mtime_ns == written
    others = [begin(workspace, "renamed")]
    others += [
        begin(workspace, "renamed", "other", **how)
        for how in ({"seed": 1}, {"num": 5}, {"catch": 3})
    ]
    assert len({first, *others}) == 5


def test_real_catch_trials_are_from_the_data_of_the_run(workspace: Workspace) -> None:
    deck, images = drawn(workspace, "tiny", num=2, catch=10)
    test = DataFile(workspace.data_path("demo-towers", 32)).split("test").images
    real = [i for i, item in enumerate(deck.items) if item.catch == "real"]
    assert len(real) == 4
    for i in real:
        np.testing.assert_array_equal(images[i], test[deck.items[i].index])


def test_without_data_all_catch_trials_are_simulated(workspace: Workspace) -> None:
    shutil.rmtree(workspace.data_root)
    deck, _ = drawn(workspace, "tiny", num=2, catch=10)
    assert {item.catch for item in deck.items} == {None, "sound", "floating", "gapped"}


def test_a_folder_beside_a_run(workspace: Workspace, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "theirs", 6)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    deck, images = drawn(workspace, "tiny", folders=(folder,))
    number = next(i for i, model in enumerate(deck.models) if model.name == "theirs")
    mine = [i for i, item in enumerate(deck.items) if item.model == number]
    assert len(mine) == 4
    for i in mine:
        file = folder / f"{deck.items[i].index}.png"
        np.testing.assert_array_equal(images[i], np.asarray(Image.open(file)))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_folders_of_one_name_get_different_names(workspace: Workspace, tmp_path: Path) -> None:
    folders = tuple(write_images(tmp_path / f"{i}" / "same", 3, seed=i) for i in range(2))
    deck, images = drawn(workspace, folders=folders, catch=0)
    assert len({model.name for model in deck.models}) == 2
    assert len(images) == 6, "all where there are fewer than --num"


def test_other_data_than_stacks_gives_a_warning(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], write_small_data: Callable[..., Path]
) -> None:
    rooms = write_small_data(workspace.data_root / "objects-room-32.h5")
    prepare_session(workspace, ["tiny"], (), num=2, catch=2, data=str(rooms))
    assert "Warning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--num", "0"], "--num 0"),
        (["--rater", "a/b"], "a/b"),
        (["--run", "tinny"], "tinny"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "empty"], "empty"),
        (["--images", "mixed"], "mixed"),
        (["--run", "tiny", "--run", "tiny"], "tiny"),
        (["--run", "tiny", "--images", "large"], "48 px"),
        (["--data", "nowhere.h5"], "nowhere.h5"),
        (["--run", "young"], "young"),
        (["--summary"], "labels"),
        (["--summary", "--run", "tiny"], "no scenes"),
        (["--summary", "--images", "empty"], "empty"),
    ],
)
def test_user_errors_write_nothing(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (workspace.runs_root / "young").mkdir()
    write_images(tmp_path / "large", 3, size=48)
    Image.new("RGB", (16, 16)).save(write_images(tmp_path / "mixed", 3) / "small.png")
    shown = sri(workspace, "label-sacc", *words)
    assert shown.exit_code == 2 and shown.stdout == "", shown.output
    error, hint = shown.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and named in error and hint
    assert not (workspace.runs_root / "labels").exists()


def test_a_run_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SriError, match="runs"):
        begin(Workspace(tmp_path / "data", tmp_path / "runs"))


@pytest.fixture
def data(tmp_path: Path, write_small_data: Callable[..., Path]) -> DataFile:
    return DataFile(write_small_data(tmp_path / "demo-towers-16.h5", size=16))


def test_catch_trials_are_half_plausible_and_as_their_index_says(data: DataFile) -> None:
    items, images = catch_trials(10, 3, 16, "demo", data)
    kinds = [item.catch for item in items]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"floating": 3, "gapped": 2, "sound": 1, "real": 4}
    assert sum(bool(item.plausible) for item in items) == 5
    for image, item in zip(images, items, strict=True):
        if item.catch == "real":
            expected = data.split("test").images[item.index]
        else:
            tower = simulate_labelled_tower(item.index, size_px=16, preset="demo", seed=3)
            assert (tower.flaw or "sound", tower.plausible) == (item.catch, item.plausible)
            expected = tower.images[0]
        np.testing.assert_array_equal(image, expected)
    assert [item.sha256 for item in catch_trials(10, 3, 16, "demo", data)[0]] == [
        item.sha256 for item in items
    ]


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_any_number_of_catch_trials(data: DataFile, count: int) -> None:
    items, images = catch_trials(count, 0, 16, "demo", data)
    assert images.shape == (count, 16, 16, 3) and images.dtype == np.uint8
    assert len({item.id for item in items}) == count
