"""Judging in a terminal, as one does it: keys typed into a real one, what it shows read."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sri_cli.labeling.blocks import fit, half_blocks
from sri_cli.labeling.session import Session
from tests.labeling.terminals import Terminal

PROGRAM = """
import sys
from pathlib import Path
from sri_cli.errors import SriError
from sri_cli.labeling.session import open_session
from sri_cli.labeling.terminal import label_in_terminal
try:
    label_in_terminal(open_session(Path(sys.argv[1]), "Ann"))
except SriError as error:
    print("ended:", error.message)
    sys.exit(error.exit_code)
print("ended: done")
"""
READY = "q=quit"  # the last words of a screen
Open = Callable[[str], Session]


@pytest.fixture
def start(session_folder: Path) -> Callable[..., Terminal]:
    """Judging as Ann in a new terminal; keywords as of `Terminal`."""
    return lambda **how: Terminal(["-c", PROGRAM, str(session_folder)], session_folder, **how)


def press(terminal: Terminal, key: str, text: str) -> str:
    """Type a key and wait for the screen that has `text` in it."""
    terminal.type(key)
    terminal.wait_for(text)
    return terminal.wait_for(READY)


def test_answers_by_the_keys_of_the_page(start: Callable[..., Terminal], open_as: Open) -> None:
    with start() as terminal:
        terminal.wait_for(READY)
        for judged, key in enumerate(("y", "n", "u", "Y"), start=1):
            press(terminal, key, f"{judged} judged")
        said = ["plausible", "implausible", "unsure", "plausible"]
        assert open_as("Ann").verdicts()[:5] == [*said, None]
        press(terminal, "b", "3 judged")
        press(terminal, "\x7f", "2 judged")
        assert open_as("Ann").verdicts()[:3] == ["plausible", "implausible", None]
        press(terminal, "\x1b[D", "you said: not plausible")
        press(terminal, "\x1b[C", "do all blocks touch?")
        terminal.type("q")
        assert terminal.ends() == 75
        assert "2 of 15 pictures are judged" in terminal.text


def test_to_the_end(start: Callable[..., Terminal], open_as: Open) -> None:
    for place in range(13):
        open_as("Ann").answer(place, "plausible", 4.0)
    with start() as terminal:
        assert "14 of 15, 13 judged, about 8 s left" in terminal.wait_for(READY)
        press(terminal, "n", "14 judged")
        press(terminal, "n", "all is judged")
        terminal.type("q")
        assert terminal.ends() == 0
        assert "ended: done" in terminal.text
    assert open_as("Ann").next_place() is None


def test_it_goes_on_after_a_kill(start: Callable[..., Terminal], open_as: Open) -> None:
    with start() as terminal:
        terminal.wait_for(READY)
        press(terminal, "y", "1 judged")
        press(terminal, "n", "2 judged")
        terminal.send(signal.SIGKILL)
        terminal.process.wait(10)
    with start() as terminal:
        assert "3 of 15, 2 judged" in terminal.wait_for(READY)
    assert open_as("Ann").verdicts()[:3] == ["plausible", "implausible", None]


def test_a_paste_or_a_key_without_a_meaning_judges_nothing(
    start: Callable[..., Terminal], open_as: Open
) -> None:
    with start() as terminal:
        terminal.wait_for(READY)
        press(terminal, "yyyynnnn", READY)
        press(terminal, "\x1b[Z", READY)
        press(terminal, "x", READY)
    assert set(open_as("Ann").verdicts()) == {None}


def test_what_another_tab_judged_stands(start: Callable[..., Terminal], open_as: Open) -> None:
    with start() as terminal:
        terminal.wait_for(READY)
        open_as("Ann").answer(0, "unsure")
        press(terminal, "y", "judged elsewhere")
        assert open_as("Ann").verdicts()[0] == "unsure"
        press(terminal, "y", "2 of 15, 1 judged")
    assert open_as("Ann").verdicts()[:2] == ["plausible", None]


def test_examples_and_a_key_that_leaves_them(start: Callable[..., Terminal], open_as: Open) -> None:
    with start() as terminal:
        terminal.wait_for(READY)
        press(terminal, "e", "plausible: because of 0")
        for _ in range(3):
            terminal.type("\x1b[C")
            terminal.wait_for(READY)
        assert "not plausible: because of 3" in terminal.text
        press(terminal, "y", "1 of 15, 0 judged")
    assert set(open_as("Ann").verdicts()) == {None}


@pytest.mark.parametrize("how", ["q", "\x03"])
def test_the_terminal_is_left_as_it_was(start: Callable[..., Terminal], how: str) -> None:
    with start() as terminal:
        before = termios.tcgetattr(terminal.end)
        terminal.wait_for(READY)
        assert termios.tcgetattr(terminal.end) != before
        terminal.type(how)
        assert terminal.ends() == 75
        assert termios.tcgetattr(terminal.end) == before
        assert "\x1b[?1049l" in terminal.shown and "\x1b[?25h" in terminal.shown


def test_it_shows_the_pictures_own_colours(start: Callable[..., Terminal], open_as: Open) -> None:
    with start(columns=60, rows=30) as terminal:
        terminal.wait_for(READY)
        seen = re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", terminal.shown)
        picture = open_as("Ann").picture(0)
        cells = np.array(seen, int).reshape(-1, 2, 3)
        # Twice as large as 16 px: each pixel fills two columns of one row of characters.
        row = cells[:32].reshape(16, 2, 2, 3)
        np.testing.assert_array_equal(row[:, 0, 0], picture[0])
        np.testing.assert_array_equal(row[:, 1, 1], picture[0])


def test_a_window_of_another_size_is_drawn_anew(start: Callable[..., Terminal]) -> None:
    with start(columns=80, rows=40) as terminal:
        terminal.wait_for(READY)
        terminal.shown = ""
        terminal.resize(30, 10)
        assert "1 of 15, 0 judged (reduced)" in terminal.wait_for(READY)


def test_no_terminal(session_folder: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(session_folder)]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "this is no terminal" in ended.stdout


def test_a_terminal_without_colours(start: Callable[..., Terminal]) -> None:
    with start(environment={"TERM": "dumb", "COLORTERM": ""}) as terminal:
        terminal.wait_for("no colours")
        assert terminal.ends() == 2


def test_fitting_keeps_pixels_whole() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    twice = fit(picture, 80, 20)
    np.testing.assert_array_equal(twice.picture[::2, ::2], picture)
    assert twice.picture.shape == (32, 32, 3) and not twice.reduced
    small = fit(picture, 9, 20)
    assert small.picture.shape == (8, 8, 3) and small.reduced
    zoomed = fit(picture, 80, 20, zoomed=True).picture
    np.testing.assert_array_equal(zoomed[::4, ::4], picture[3:13, 3:13])
    for columns, rows in ((1, 1), (0, -3), (3, 200)):
        assert fit(picture, columns, rows).picture.size > 0


def test_an_odd_picture_loses_no_row() -> None:
    picture = np.arange(3 * 3 * 3, dtype=np.uint8).reshape(3, 3, 3)
    console = Console(width=10, force_terminal=True, color_system="truecolor")
    with console.capture() as captured:
        console.print(half_blocks(picture))
    assert captured.get().count("▀") == 6
    assert "38;2;18;19;20;48;2;18;19;20m" in captured.get()
