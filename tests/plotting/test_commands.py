"""Mistakes with `sri figure`, `order`, `edit` and `walk`: exit code 2, and nothing is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner

from sri_cli.cli.main import cli
from sri_cli.run import Workspace

# The message names what is in [], by default the last word; a note after the command is no word.
MISTAKES = """
figure [sampels]
figure
figure samples --run [tinny]
figure samples --out [x.jpg]
figure samples --out [data]
figure samples --num 100000 [page]
figure samples --temp 0
figure samples --seed -1
figure samples [--split] val
figure samples --scale big
figure samples --scale 50x
figure reconstructions --num 60 [page]
figure reconstructions --split [tset]
figure segmentation [--slots] 9
figure order --slots 300 [page]
figure curves --scale 64
figure curves [--num] 9
figure curves [log]
figure table [measured]
order --num 1
order --out [x.jpg]
edit [delete]
edit remove --slot 4
edit remove [--slots] 1
edit remove [--slot] 1 --slot 2 --slot 3
edit remove --slots 40 [page]
edit remove --num 17 [page]
edit remove --image [nowhere.png]
edit remove --image [data/demo-towers-32.h5]
edit remove --index [16]
edit remove --index 1 [--num] 3
edit remove --index 1 [--slots] 4
edit remove --index 1 [--image] a.png
edit remove [--variants] 3
edit remove --out [a.jpg]
edit reimagine --variants 0
edit exchange --num 3
walk --num 37
walk --fps 100
walk --slot 6 --slots 5
walk --between 0 0
walk --between -1 0
walk --between 0 1 [--slot] 1
walk --run other [--between] 0 1
walk --out [a.avi]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_mistakes_end_with_code_2_and_nothing_is_written(line: str, tmp_path: Path) -> None:
    named = re.search(r"\[(.*?)\]", line)
    words = re.sub(r"\[(page|log|measured)\]|[\[\]]", "", line).split()
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    assert (named[1] if named else words[-1]) in result.stderr.lower()
    assert not list(tmp_path.glob("runs/*/figures")) and not list(tmp_path.glob("x*"))


def test_a_test_image_needs_the_data_file() -> None:
    Path("data/demo-towers-32.h5").unlink()
    result = CliRunner().invoke(cli, ["edit", "remove", "--index", "0"])
    assert result.exit_code == 2 and "sri prepare" in result.stderr


@pytest.mark.parametrize("words", ["figure samples --num 1", "edit remove", "walk --frames 6"])
def test_a_full_disk_leaves_nothing_half_written(
    words: str, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    for name in ("a.mp4", "a.gif") if words.startswith("walk") else ("a.png", "a.pdf"):
        with largest_file(1000):
            result = CliRunner().invoke(cli, [*words.split(), "--out", f"out/{name}"])
        assert result.exit_code == 1, result.output
    assert list(Path("out").iterdir()) == []
