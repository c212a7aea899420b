"""`sri edit` as a user meets it: the file, the words for each system, mistakes in two lines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from tests.small_workspace import write_workspace


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_a_strip_lies_in_the_figures_of_the_run() -> None:
    result = sri("edit", "remove", "--slot", "2", "--num", "3")
    assert result.exit_code == 0, result.output
    title, look = result.stdout.splitlines()
    assert title.startswith("tiny, step 10, demo-towers, simulated: scenes without some")
    assert look == "look: runs/tiny/figures/edit-remove.png"
    assert np.asarray(Image.open(look[6:])).std() > 10


def test_a_picture_of_any_size_is_taken_and_what_was_done_to_it_told() -> None:
    Image.new("L", (50, 70), 120).save("photo.jpg")
    words = ["edit", "--run", "tiny", "exchange", "--image", "photo.jpg", "--out", "new/strip.png"]
    result = sri(*words)
    assert result.exit_code == 0, result.output
    assert "photo.jpg: 50x70 px, its centred square resized to 32 px" in result.stderr
    assert Image.open("new/strip.png").width > 300


@pytest.mark.parametrize(
    ("run", "action", "said"),
    [
        ("other", "exchange", "learns no order"),
        ("other", "reimagine", "no scene variable: new slots follow from those kept alone"),
        ("tiny", "reimagine", "the scene latent (as drawn) and the slots before are kept"),
        ("tiny", "repeat", "it lies upon itself"),
    ],
)
def test_what_an_edit_means_for_a_system_is_told(run: str, action: str, said: str) -> None:
    result = sri("edit", action, "--run", run)
    assert result.exit_code == 0 and said in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["remove", "--slot", "4"], "the slots 1 to 3"),
        (["remove", "--image", "nowhere.png"], "nowhere.png does not exist"),
        (["remove", "--index", "99"], "the images 0 to 15"),
        (["reimagine", "--variants", "0"], "--variants 0"),
        (["remove", "--run", "tinny"], "did you mean tiny?"),
        (["delete"], "'delete' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_two_lines_and_writes_nothing(words: list[str], said: str) -> None:
    result = sri("edit", *words)
    assert result.exit_code == 2 and result.stdout == ""
    assert said in result.stderr
    assert not list(Path("runs").glob("*/figures"))


def test_an_image_of_the_test_split_wants_the_data_file() -> None:
    Path("data/demo-towers-32.h5").unlink()
    result = sri("edit", "remove", "--index", "0")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 2
    assert "sri prepare" in result.stderr


def test_a_full_disk_leaves_nothing_half_written(
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    with largest_file(1000):
        result = sri("edit", "remove", "--out", "strips/a.png")
    assert result.exit_code == 1 and "Error: could not write" in result.stderr
    assert list(Path("strips").iterdir()) == []
