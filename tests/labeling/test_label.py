"""`sri label-sacc` over runs and folders: which pictures, taken up again, and what is refused."""

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
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling import scenes
from sri_cli.labeling.rate import prepared
from sri_cli.labeling.scenes import load
from sri_cli.labeling.sources import Wanted, open_sources
from sri_cli.run import Workspace
from tests.labeling.terminals import Terminal

SMALL = Wanted(num=4, catch=4)


def begin(
    workspace: Workspace,
    *runs: str,
    wanted: Wanted = SMALL,
    folders: tuple[Path, ...] = (),
) -> Path:
    """The folder of the session that these flags mean."""
    sources = open_sources(workspace, runs, folders, wanted)
    return prepared(workspace.runs_root / scenes.FOLDER, sources, wanted)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six pictures of 32 px."""
    return write_pictures(tmp_path / "theirs", 6)


def write_pictures(folder: Path, count: int, size: int = 32, seed: int = 0) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for i in range(count):
        picture = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def sri(workspace: Workspace, *words: str) -> Result:
    roots = ["--runs-root", str(workspace.runs_root), "--data-root", str(workspace.data_root)]
    return CliRunner().invoke(cli, [*roots, *words])


def test_the_scenes_are_those_that_sampling_draws(
    workspace: Workspace, trained: TrainedRun
) -> None:
    deck = load(begin(workspace, "tiny", wanted=Wanted(num=5, seed=3, catch=0)))
    model = trained.model
    drawn = np.concatenate(
        [quantise(scene.image) for scene in sample_scenes(model, 5, 3, 1.0, seed=3)]
    )
    np.testing.assert_array_equal(deck.pictures, drawn)
    assert [card.index for card in deck.cards] == list(range(5))


def test_the_same_command_goes_on_and_another_does_not(workspace: Workspace) -> None:
    first = begin(workspace, "tiny", "other")
    written = (first / "pictures.npz").stat().st_mtime_ns
    assert begin(workspace, "tiny", "other") == first
    assert begin(workspace, "other", "tiny") == first
    assert (first / "pictures.npz").stat().st_mtime_ns == written
    others = [
        begin(workspace, "tiny"),
        begin(workspace, "tiny", "other", wanted=Wanted(num=4, catch=4, seed=1)),
        begin(workspace, "tiny", "other", wanted=Wanted(num=5, catch=4)),
        begin(workspace, "tiny", "other", wanted=Wanted(num=4, catch=3)),
    ]
    assert len({first, *others}) == 5


def test_it_goes_on_without_the_data_and_after_the_run_was_renamed(workspace: Workspace) -> None:
    first = begin(workspace, "tiny")
    shutil.rmtree(workspace.data_root)
    (workspace.runs_root / "tiny").rename(workspace.runs_root / "renamed")
    assert begin(workspace, "renamed") == first


def test_catch_trials_come_from_the_runs_data(workspace: Workspace) -> None:
    deck = load(begin(workspace, "tiny", wanted=Wanted(num=2, catch=10)))
    test = DataFile(workspace.data_path("demo-towers", 32)).split("test").images
    real = [i for i, card in enumerate(deck.cards) if card.catch == "real"]
    assert len(real) == 4
    for i in real:
        np.testing.assert_array_equal(deck.pictures[i], test[deck.cards[i].index])


def test_without_data_it_says_nothing_and_simulates(workspace: Workspace) -> None:
    shutil.rmtree(workspace.data_root)
    deck = load(begin(workspace, "tiny", wanted=Wanted(num=2, catch=10)))
    assert {card.catch for card in deck.cards} == {None, "sound", "floating", "gapped"}


def test_a_folder_beside_a_run(workspace: Workspace, pictures: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    deck = load(begin(workspace, "tiny", folders=(pictures,)))
    number = next(i for i, model in enumerate(deck.models) if model.name == "theirs")
    mine = [i for i, card in enumerate(deck.cards) if card.model == number]
    assert len(mine) == 4
    for i in mine:
        file = pictures / f"{deck.cards[i].index}.png"
        np.testing.assert_array_equal(deck.pictures[i], np.asarray(Image.open(file)))
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before


def test_a_folder_of_fewer_pictures_is_told(
    workspace: Workspace, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begin(workspace, wanted=Wanted(num=100, catch=0), folders=(pictures,))
    assert len(load(folder).cards) == 6
    assert "6 pictures, not 100" in capsys.readouterr().err


def test_a_scene_is_not_stacks_is_warned_of(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], write_small_data: Callable[..., Path]
) -> None:
    rooms = write_small_data(workspace.data_root / "objects-room-32.h5")
    begin(workspace, "tiny", wanted=Wanted(num=2, catch=2, data=str(rooms)))
    assert "S-Acc was made for towers" in capsys.readouterr().err


def test_models_of_one_name_are_told_apart(workspace: Workspace, tmp_path: Path) -> None:
    folders = []
    for i in range(2):
        (tmp_path / f"{i}").mkdir()
        folders.append(write_pictures(tmp_path / f"{i}" / "same", 4, seed=i))
    deck = load(begin(workspace, wanted=SMALL, folders=tuple(folders)))
    assert len({model.name for model in deck.models}) == 2


def test_from_the_command_to_the_summary(workspace: Workspace, tmp_path: Path) -> None:
    words = ["-m", "sri_cli", "label-sacc", "--num", "2", "--catch", "1", "--terminal"]
    with Terminal([*words, "--rater", "Béa"], tmp_path) as terminal:
        for judged, key in enumerate("yyn"):
            terminal.wait_for(f"{judged} judged")
            terminal.wait_for("q=quit")
            terminal.type(key)
        terminal.wait_for("all is judged")
        terminal.wait_for("q=quit")
        terminal.type("q")
        assert terminal.ends() == 0, terminal.text
        assert "Béa" in terminal.text and "tiny, step 10" in terminal.text
    assert (workspace.runs_root / "tiny" / "metrics.jsonl").exists()


def test_stopped_halfway_is_no_summary(workspace: Workspace, tmp_path: Path) -> None:
    words = ["-m", "sri_cli", "label-sacc", "--num", "2", "--catch", "1", "--terminal"]
    with Terminal(words, tmp_path, environment={"LOGNAME": "dora"}) as terminal:
        assert "rater dora, session" in terminal.wait_for("q=quit")  # left out: the login name
        terminal.type("q")
        assert terminal.ends() == 75
        assert "Error: 0 of 3 pictures are judged" in terminal.text
        assert "the same command goes on" in terminal.text
    assert not (workspace.runs_root / "tiny" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num", "0"], "--num 0"),
        (["--rater", "a/b"], "--rater 'a/b': the name has '/' in it"),
        (["--run", "tinny"], "no run tinny (did you mean tiny?)"),
        (["--images", "nowhere"], "--images nowhere is not there"),
        (["--run", "tiny", "--run", "tiny"], "are the same model"),
        (["--data", "nowhere.h5"], "data file nowhere.h5 does not exist"),
        (["--terminal"], "this is no terminal"),
        (["--terminal", "--port", "8765"], "--terminal shows no web page"),
        (["--summary"], "nobody has judged scenes"),
        (["--summary", "--run", "tiny"], "nobody has judged scenes"),
        (["--summary", "--images", "theirs"], "nobody has judged pictures of theirs"),
        (["--summary", "--rater", "Ann"], "--summary shows all"),
        (["--summary", "--num", "7"], "--summary shows all"),
    ],
)
def test_what_is_refused(workspace: Workspace, words: list[str], message: str) -> None:
    shown = sri(workspace, "label-sacc", *words)
    assert shown.exit_code == 2, shown.output
    error, hint = shown.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and message in error
    assert hint
    assert shown.stdout == ""
    assert not (workspace.runs_root / "labels").exists()  # nothing was drawn for it


def test_no_run_or_none_with_weights(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    shown = sri(workspace, "label-sacc")
    assert shown.exit_code == 2 and "no trained run" in shown.stderr
    (workspace.runs_root / "young").mkdir(parents=True)
    shown = sri(workspace, "label-sacc", "--run", "young")
    assert shown.exit_code == 2 and "has no checkpoint yet" in shown.stderr
    assert not (workspace.runs_root / "labels").exists()


def test_pictures_of_several_sizes(workspace: Workspace, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "large", 3, size=48)
    shown = sri(workspace, "label-sacc", "--run", "tiny", "--images", str(other))
    assert shown.exit_code == 2
    assert "32 px" in shown.stderr and "48 px" in shown.stderr
    Image.new("RGB", (32, 32)).save(other / "small.png")
    shown = sri(workspace, "label-sacc", "--images", str(other))
    assert shown.exit_code == 2 and "mixes sizes" in shown.stderr


def test_an_empty_folder(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shown = sri(workspace, "label-sacc", "--images", str(tmp_path / "empty"))
    assert shown.exit_code == 2 and "holds no pictures" in shown.stderr
