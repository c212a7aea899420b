"""`sri edit`: the figure of every action, of new scenes and of images, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.generation.trained_run import open_run
from sri_cli.plotting.edits import edit_note, edit_run
from sri_cli.run import Workspace


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    monkeypatch.chdir(tmp_path)


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, ["edit", *words])


@pytest.mark.parametrize(
    ("action", "rows", "columns"),
    [("remove", 4, 4), ("repeat", 4, 4), ("exchange", 2, 4), ("reimagine", 2, 7)],
)
def test_every_action_draws_its_figure(action: str, rows: int, columns: int) -> None:
    result = sri(action, "--run", "other")
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path == Path(f"runs/other/figures/edit-{action}.png")
    figure = np.asarray(Image.open(path))
    assert 0 < figure.shape[0] - rows * 2 * 132 < 300
    assert 0 < figure.shape[1] - columns * 132 < 320
    before = path.read_bytes()
    assert sri(action, "--run", "other").exit_code == 0 and path.read_bytes() == before


@pytest.mark.parametrize("action", ["remove", "repeat", "exchange", "reimagine"])
def test_every_action_takes_an_image(action: str) -> None:
    words = [action, "--slot", "2", "--index", "3", "--out", "a.pdf"]
    assert sri(*words).exit_code == 0 and Path("a.pdf").is_file()


@pytest.mark.parametrize(("size", "mode", "notes"), [((32, 32), "RGB", 0), ((80, 40), "RGBA", 1)])
def test_an_image_of_any_size_is_brought_to_that_of_the_model(
    workspace: Workspace, size: tuple[int, int], mode: str, notes: int
) -> None:
    Image.new(mode, size, (200, 30, 60, 255)[: len(mode)]).save("photo.png")
    out = Path("new/figure.png")
    path, told = edit_run(workspace, "tiny", "exchange", image=Path("photo.png"), out=out)
    assert path == out and len(told) == notes
    figure = np.asarray(Image.open(out).convert("RGB"))
    assert ((figure == (200, 30, 60)).all(axis=-1)).sum() >= 128 * 128


@pytest.mark.parametrize(
    ("run", "action", "has_note"),
    [
        ("other", "exchange", True),
        ("other", "reimagine", True),
        ("tiny", "reimagine", False),
        ("tiny", "exchange", False),
        ("pair", "repeat", True),
    ],
)
def test_a_note_says_where_an_edit_means_less(
    workspace: Workspace, write_run: Callable[..., None], run: str, action: str, has_note: bool
) -> None:
    write_run(workspace.runs_root / "pair", "genesis")
    assert bool(edit_note(open_run(workspace, run), action)) == has_note
