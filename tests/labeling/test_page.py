"""The labelling page in a real browser: judging, undoing, crashes, two tabs, the grid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sri_cli
from sri_cli.labeling.session import Session, open_session
from tests.small_browser import Page, chromium
from tests.small_client import Client, Process, answers_on_disk, labelling

LEFT, RIGHT, DOWN, BACKSPACE = "\ue012", "\ue014", "\ue015", "\ue003"
ENTER, ESCAPE, SPACE, TAB = "\ue007", "\ue00c", "\ue00d", "\ue004"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def tab(driver: Any) -> Iterator[Page]:
    """An empty tab of a browser without cookies."""
    driver.switch_to.new_window("tab")
    driver.delete_all_cookies()
    page = Page(driver)
    page.complaints()
    yield page
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])


@pytest.fixture
def page(tab: Page, stranger: Client) -> Page:
    """The page of a session of 15 pictures, none judged."""
    tab.open(stranger.access.url).at(0)
    return tab


@pytest.fixture
def verdicts(session_folder: Path) -> Callable[[], list[str | None]]:
    """What is on disk."""
    return lambda: open_session(session_folder, "ada").verdicts()


def test_judging_by_keyboard(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    assert "token" not in page.driver.current_url
    assert page.text("#progress-words") == "0 of 15 judged"
    page.press("y", "n", "u", "N")
    page.at(4)
    assert verdicts() == ["plausible", "implausible", "unsure", "implausible", *[None] * 11]
    assert page.text("#progress-words").startswith("4 of 15 judged, ")
    assert page.text("#said") == "Saved: not plausible. Picture 5 of 15."
    page.press("x", "1", SPACE)
    page.js("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'y', repeat: true }))")
    page.js("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'y', ctrlKey: true }))")
    page.until(lambda: verdicts().count(None) == 11, "other keys do nothing, nor one held down")
    assert page.complaints() == []


def test_pictures_are_enlarged_crisply_by_whole_multiples(page: Page) -> None:
    code = """const image = document.querySelector('#stage img');
      const box = image.getBoundingClientRect();
      return [box.width * devicePixelRatio / image.naturalWidth,
              box.height * devicePixelRatio / image.naturalHeight,
              getComputedStyle(image).imageRendering]"""
    for size in ((1280, 800), (375, 740), (360, 640), (800, 500)):
        page.look(size)
        page.until(lambda: page.js(code)[0] % 1 == 0, "no whole multiple")
        across, down, how = page.js(code)
        assert across == down >= 12 and how == "pixelated", size
    page.press("z")
    assert page.js(code)[0] == 2 * across
    before = page.js("return document.getElementById('stage').scrollTop")
    page.press(DOWN)
    assert page.js("return document.getElementById('stage').scrollTop") > before
    page.press("y")
    assert page.js(code)[0] == across, "the next picture is not zoomed"


def test_undo_and_looking_back(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    page.press("y", "y", "n", "b")
    page.at(2)
    assert verdicts()[:3] == ["plausible", "plausible", None]
    page.press(BACKSPACE, BACKSPACE, BACKSPACE)
    page.at(0)
    assert verdicts() == [None] * 15
    assert page.text("#said") == "Nothing to take back."
    page.press("y", "n", LEFT, LEFT, LEFT)
    page.at(0)
    assert page.pressed() == ["plausible"] and "your answer: plausible" in page.text("#caption")
    page.press("u")  # changes it, and goes on where there is no answer
    page.at(2)
    page.press(RIGHT)
    page.at(2)
    assert verdicts()[:3] == ["unsure", "implausible", None]
    page.press("b")
    page.at(0)
    assert verdicts()[:3] == ["plausible", "implausible", None], "what stood before stands again"
    page.press(RIGHT, RIGHT)
    page.at(2)


def test_an_answer_is_on_disk_before_the_next_picture_shows(
    tab: Page, session_folder: Path
) -> None:
    server = Process(session_folder)
    try:
        tab.open(server.url).at(0)
        ahead = "return performance.getEntriesByName(`${location.origin}/pictures/1.png`).length"
        tab.until(lambda: tab.js(ahead), "the next picture is not loaded ahead")
        server.process.send_signal(signal.SIGSTOP)
        tab.js("document.querySelector('[data-verdict=plausible]').click()")
        tab.js("document.querySelector('[data-verdict=unsure]').click()")  # while it is saved
        assert tab.text("#caption") == "Picture 1" and answers_on_disk(session_folder) == 0
        server.process.send_signal(signal.SIGCONT)
        tab.at(1)
        assert open_session(session_folder, "ada").verdicts()[:2] == ["plausible", None]
    finally:
        server.end(signal.SIGKILL)


def test_a_killed_server_loses_nothing_and_the_old_page_says_what_to_do(
    tab: Page, session_folder: Path, verdicts: Callable[[], list[str | None]]
) -> None:
    server = Process(session_folder)
    tab.open(server.url).at(0)
    tab.press("y", "n", "u")
    tab.at(3)
    assert server.end(signal.SIGKILL) == ("", ""), "no chatter of requests"
    assert verdicts()[:4] == ["plausible", "implausible", "unsure", None]
    tab.press("y")
    assert "The server does not answer" in tab.text("#alert")
    assert tab.text("#caption") == "Picture 4", "the picture stays"

    again = Process(session_folder, server.port)
    try:
        assert again.port == server.port
        tab.click("#alert button")
        assert "The server was restarted" in tab.text("#alert")
        assert "Open the new address" in tab.text("#alert")
        assert verdicts()[3] is None
        other = tab.another(again.url)
        other.at(3)  # goes on with the first that has no answer
        assert other.text("#progress-words").startswith("3 of 15 judged")
        tab.click("#alert button")  # the old page has the new cookie now
        tab.at(4)
        assert verdicts()[:5] == ["plausible", "implausible", "unsure", "plausible", None]
        assert tab.text("#alert") == "" and answers_on_disk(session_folder) == 4
    finally:
        again.end(signal.SIGKILL)


def test_a_full_disk_is_said_and_the_answer_can_be_tried_again(
    page: Page,
    session_folder: Path,
    verdicts: Callable[[], list[str | None]],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    page.press("y")
    with largest_file((session_folder / "answers.jsonl").stat().st_size + 50):
        page.press("n")
        assert "could not write" in page.text("#alert")
        assert page.text("#caption") == "Picture 2"
    page.click("#alert button")
    page.at(2)
    assert verdicts()[:3] == ["plausible", "implausible", None]


def test_a_stale_tab_is_told_of_the_others_answer(
    page: Page, session_folder: Path, verdicts: Callable[[], list[str | None]]
) -> None:
    other = page.another(page.driver.current_url)
    other.at(0)
    page.deafen()
    other.deafen()
    other.press("y")
    other.at(1)
    page.press("n")
    assert "changed in another tab; the answer is now: plausible" in page.text("#alert")
    assert page.pressed() == ["plausible"]
    assert verdicts()[:2] == ["plausible", None] and answers_on_disk(session_folder) == 1
    page.press("u")  # now that it is known, on purpose
    page.at(1)
    assert verdicts()[:2] == ["unsure", None]
    other.press("b")  # this one is behind now
    assert "Nothing was taken back" in other.text("#alert")
    assert verdicts()[:2] == ["unsure", None]


def test_a_tab_that_comes_back_shows_what_happened_meanwhile(page: Page) -> None:
    other = page.another(page.driver.current_url)
    other.at(0)
    other.press("n", "n")
    other.at(2)
    page.js("window.dispatchEvent(new Event('focus'))")
    page.until(lambda: page.pressed() == ["implausible"])
    assert "2 of 15" in page.text("#progress-words") and "another tab" in page.text("#alert")
    page.press(RIGHT, RIGHT)
    page.at(2)


def test_a_late_look_at_the_server_takes_back_nothing(page: Page) -> None:
    """What the server said before an answer reaches the page after it."""
    page.js("""const truly = window.fetch;
      window.fetch = async (path, how) => {
        const reply = await truly(path, how);
        if (path === '/api/state') await new Promise((go) => { window.letGo = go; });
        return reply;
      };
      window.dispatchEvent(new Event('focus'));""")
    page.until(lambda: page.js("return Boolean(window.letGo)"))
    page.press("y")
    page.at(1)
    page.js("window.letGo(); return new Promise((done) => setTimeout(done, 200))")
    assert page.text("#progress-words").startswith("1 of 15 judged")
    page.press("g")
    assert len(page.tiles()) == 14, "what is judged is not asked again"


def test_two_servers_in_one_browser(
    page: Page, open_as: Callable[[str], Session], verdicts: Callable[[], list[str | None]]
) -> None:
    """Cookies are shared by all ports: that of the second must not end the first."""
    with labelling(open_as("ada")) as second, labelling(open_as("eve")) as third:
        other = page.another(second.access.url)
        other.at(0)
        another = page.another(third.access.url)
        another.at(0)
        page.press("n")
        page.at(1)
        other.until(lambda: other.pressed() == ["implausible"])
        other.press(RIGHT, "u")
        another.press("y")
        another.at(1)
        assert verdicts()[:3] == ["implausible", "unsure", None]
        assert "Rater: eve" in another.text("footer")


def test_the_grid_by_keyboard(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    page.press("g")
    assert page.tiles() == ["plausible"] * 15
    page.press(SPACE, RIGHT, SPACE, SPACE, RIGHT, SPACE, SPACE, SPACE, DOWN, "n", LEFT, LEFT, "u")
    columns = int(page.js("return document.getElementById('tiles').dataset.columns"))
    wanted = ["plausible"] * 15
    wanted[:2] = ["implausible", "unsure"]
    wanted[2 + columns] = "implausible"
    wanted[1 + columns] = "unsure"
    assert page.tiles() == wanted
    assert verdicts() == [None] * 15, "nothing before it is saved"
    page.press(ENTER)
    page.until(lambda: page.shown("#end"))
    assert verdicts() == wanted
    page.press("b")
    page.at(14)
    assert page.complaints() == []


def test_the_grid_by_clicks_and_its_undo(
    tab: Page, tmp_path: Path, save_session: Callable[[int], Path]
) -> None:
    folder = save_session(18)  # 39 pictures
    with labelling(open_session(folder, "ada")) as client:
        tab.open(client.access.url).at(0)
        tab.press("y")
        tab.click("[data-deed=grid]")
        assert len(tab.tiles()) == 20 and tab.text("#save") == "Save these 20"
        below = "document.getElementById('save').getBoundingClientRect().bottom - innerHeight"
        assert tab.js(f"return {below}") <= 0, "all twenty at a glance"
        for _ in range(2):
            tab.click(".tile:nth-child(3)")
        tab.click(".tile:nth-child(20)")
        tab.click("#save")
        tab.until(lambda: "21 of 39" in tab.text("#progress-words"))
        verdicts = open_session(folder, "ada").verdicts()
        assert verdicts[3] == "unsure" and verdicts[20] == "implausible"
        assert verdicts[1:21].count("plausible") == 18 and verdicts[21:] == [None] * 18
        tab.press("b")  # all twenty, and they are as they were
        tab.until(lambda: "1 of 39" in tab.text("#progress-words"))
        assert tab.tiles()[2] == "unsure" and tab.tiles()[19] == "implausible"
        # another tab judges one of them
        client.enter()
        client.answer(1, "implausible")
        tab.click("#save")
        assert "1 of 20 pictures had been answered otherwise" in tab.text("#alert")
        verdicts = open_session(folder, "ada").verdicts()
        assert verdicts[1] == "implausible" and verdicts[3] == "unsure"
        assert verdicts.count(None) == 18
        tab.press("g")
        tab.at(21)


def test_the_end(page: Page, stranger: Client, open_as: Callable[[str], Session]) -> None:
    session = open_as("ada")
    for place in range(1, 15):
        session.answer(place, "plausible")
    page.press("n")
    page.until(lambda: page.shown("#end"))
    assert "Thank you" in page.text("#end") and "sri label-sacc --summary" in page.text("#end")
    assert page.text("#progress-words") == "15 of 15 judged"
    page.press(LEFT)
    page.at(14)
    page.press(RIGHT)
    page.until(lambda: page.shown("#end"))
    assert not stranger.finished.is_set()
    page.click("#finish")
    page.until(lambda: page.shown("#stopped"))
    assert stranger.finished.wait(5)
    page.press("b", "y", LEFT)
    assert page.shown("#stopped") and page.complaints() == []


def test_by_buttons_alone_with_the_keyboard_or_a_finger(
    page: Page, verdicts: Callable[[], list[str | None]]
) -> None:
    page.press("?")
    assert page.shown("#help") and "twenty pictures at a time" in page.text("#help")
    page.press("y")
    assert verdicts()[0] is None, "no answer while the help lies over the picture"
    page.click("#letters")
    page.press(ESCAPE, "y", "e")
    assert verdicts()[0] is None and not page.shown("#examples"), "letters are off"
    for _ in range(20):
        page.press(TAB)
        if page.js("return document.activeElement.dataset.verdict") == "implausible":
            break
    outline = "return getComputedStyle(document.activeElement).outline"
    assert "solid 3px" in page.js(outline), "where the focus is can be seen"
    page.press(ENTER)
    page.at(1)
    page.click("[data-verdict=unsure]")
    page.at(2)
    page.click("[data-deed=undo]")
    page.at(1)
    assert verdicts()[:2] == ["implausible", None]


def test_the_examples(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    images = "[...document.querySelectorAll('#examples img')]"
    page.press("e")
    page.until(lambda: page.js(f"return {images}.filter((one) => one.naturalWidth).length == 6"))
    assert page.text("#examples").count("because of") == 6
    assert page.shown("#stage img"), "beside the picture where there is room"
    page.press("y")
    page.at(1)
    page.press("e")
    assert not page.shown("#examples")
    page.look((375, 740))
    page.click("[data-deed=examples]")
    assert page.js("return document.querySelector('#examples').matches(':modal')")
    page.press("y")
    assert verdicts()[:2] == ["plausible", None], "the picture is covered"
    page.press(ESCAPE)
    assert not page.shown("#examples")
    assert page.js("return document.activeElement.dataset.deed") == "examples"
    assert page.complaints() == []


def test_the_whole_way_from_the_command_to_the_result(tab: Page, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    command = "-m sri_cli label-sacc --images pictures --num 4 --catch 2 --rater ada --port 0"
    with subprocess.Popen(
        [sys.executable, *command.split(), "--no-browser"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(sri_cli.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        told = next((line for line in process.stderr if line.startswith("open ")), "")
        tab.open(told.removeprefix("open ").strip()).at(0)
        tab.press("n", "g", ENTER)
        tab.until(lambda: tab.shown("#end"))
        tab.click("#finish")
        tab.until(lambda: tab.shown("#stopped"))
        result, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "S-Acc" in result and "ada" in result
