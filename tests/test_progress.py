"""Progress on stderr: position, rate and remaining time."""

from __future__ import annotations

import io
import os
import sys

import pytest

from sri_cli.console import Progress, counted, counting
from tests.small_cli import start


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr("sri_cli.console.time.monotonic", lambda: now[0])
    return now


def test_one_is_no_plural() -> None:
    assert [counted(n, "scene") for n in (0, 1, 1200)] == ["0 scenes", "1 scene", "1,200 scenes"]


def test_plain_lines_show_rate_and_eta(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(300, 100, "sampling", "image") as shown:
        for done, now in ((150, 120.0), (160, 121.0), (300, 140.0)):
            clock[0] = now
            shown.advance(done)
            shown.show()
    assert capsys.readouterr().err.splitlines() == [
        "sampling: image 150/300  2.5 image/s  60 s left",
        "sampling: image 300/300  5.0 image/s",
    ]


def test_training_shows_its_own_rate_only(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(10, 0, "tiny") as shown:
        clock[0] += 20
        shown.advance(5)
        shown.show("80.0 images/s")
    assert capsys.readouterr().err == "tiny: step 5/10  80.0 images/s  20 s left\n"


def test_images_of_a_cache_do_not_count_in_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with counting("features", 1100) as advance:
        advance(1000)  # in no time
        for _ in range(2):
            clock[0] += 20
            advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["2.5 image/s", "2.5 image/s"]


def test_the_bar_shows_the_rate_and_names_as_they_are(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with Progress(400, 0, "check frames[raw]", "image") as shown:
        clock[0] += 10
        shown.advance(200)
        shown.show("note[b]")
    for text in ("check frames[raw]", "20 image/s", "note[b]"):
        assert text in screen.getvalue()


def test_a_total_known_only_later(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(0, 0, "towers.tar.gz", "MB") as shown:
        for done, total in ((100, 0), (400, 1000)):
            clock[0] += 20
            shown.set_total(total)
            shown.advance(done)
            shown.show()
    assert capsys.readouterr().err.splitlines() == [
        "towers.tar.gz: MB 100  5.0 MB/s",
        "towers.tar.gz: MB 400/1000  10 MB/s  60 s left",
    ]


def test_lines_that_nobody_reads_end_no_work() -> None:
    code = (
        "import sys; from sri_cli.console import Progress, warn\n"
        "with Progress(2, 0, 'x') as shown: shown.note('a'); shown.note('b')\n"
        "warn('c'); sys.exit(75)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    unread = start(code=code, stderr=writer)
    os.close(writer)
    assert unread.wait(60) == 75
