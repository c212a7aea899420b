"""The labelling page in a real browser: judging, undo, restarts, the grid, and who can use it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sri_cli.labeling.session import Session
from tests.labeling.conftest import Client, Process, answers_on_disk, serving, small_session
from tests.small_browser import CONTRAST, DESKTOP, ENOUGH, PHONE, TOO_SMALL, Page
from tests.small_cli import finish, start
from tests.small_data import write_images

LEFT, RIGHT, DOWN, BACKSPACE = "\ue012", "\ue014", "\ue015", "\ue003"
ENTER, ESCAPE, SPACE, TAB = "\ue007", "\ue00c", "\ue00d", "\ue004"
SIDEWAYS = (740, 375)
VIEWS = ("single", "answered", "grid", "decided", "zoom", "help", "alert", "end")


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
    """The page of a session of 15 images, none judged."""
    tab.open(stranger.url)
    at(tab, 0)
    return tab


@pytest.fixture
def verdicts(folder: Path) -> Callable[[], list[str | None]]:
    """What is on disk."""
    return lambda: Session(folder, "ada").verdicts()


def at(page: Page, position: int) -> None:
    """Wait until the image at `position` shows."""
    page.until(lambda: page.text("#caption").split(",")[0] == f"Image {position + 1}")


def tiles(page: Page) -> list[str]:
    """The answers in the grid."""
    return page.js("return [...document.querySelectorAll('.tile')].map((t) => t.dataset.verdict)")


def test_judging_by_keyboard(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    assert "token" not in page.driver.current_url
    page.press("y", "n", "u", "N")
    at(page, 4)
    assert verdicts() == ["plausible", "implausible", "unsure", "implausible", *[None] * 11]
    assert page.text("#progress-words").startswith("4 of 15")
    page.press("x", "1", SPACE)
    page.js("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'y', repeat: true }))")
    page.js("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'y', ctrlKey: true }))")
    page.until(lambda: verdicts().count(None) == 11)
    assert page.complaints() == []


@pytest.mark.parametrize("side", [16, 64, 300])
def test_the_whole_image_is_shown_in_whole_multiples(tab: Page, tmp_path: Path, side: int) -> None:
    """Nothing is cropped, one at a time, in the grid and enlarged, at any size of the window; where
    an image is larger than the window all of it is shown smaller."""
    code = """const box = document.querySelector(arguments[0]).getBoundingClientRect();
      const image = document.querySelector(arguments[0] + ' img');
      const own = image.getBoundingClientRect();
      const inside = own.left >= box.left - 0.5 && own.right <= box.right + 0.5
        && own.top >= box.top - 0.5 && own.bottom <= box.bottom + 0.5;
      return [inside, own.width * devicePixelRatio / image.naturalWidth,
              own.height * devicePixelRatio / image.naturalHeight,
              getComputedStyle(image).imageRendering]"""
    folder = small_session(tmp_path / "sides", num=1, models=1, catch=0, side=side)
    with serving(Session(folder, "ada")) as client:
        at(tab.open(client.url), 0)
        scales = {}
        for place, key in (("#stage", ""), (".tile", "g"), ("#zoomed", "z")):
            tab.press(*key)
            for size in (DESKTOP, PHONE, SIDEWAYS):
                tab.look(size)
                tab.until(lambda: True)
                inside, across, down, how = tab.js(code, place)
                assert inside and across == pytest.approx(down), (place, size)
                assert across < 1 or how == "pixelated", (place, size)
                if (place, side) == ("#stage", 16) and size != SIDEWAYS:
                    assert across >= 12, size
                assert across == pytest.approx(round(across)) or across < 1, (place, size)
                scales[place, size] = across
        assert scales["#zoomed", DESKTOP] > scales[".tile", DESKTOP] or side == 300
        tab.press("z")
        assert not tab.shown("#zoom")


def test_undo_and_looking_back(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    page.press("y", "y", "n", "b")
    at(page, 2)
    page.press(BACKSPACE, BACKSPACE, BACKSPACE)
    at(page, 0)
    assert verdicts() == [None] * 15
    page.press("y", "n", LEFT, LEFT, LEFT)
    at(page, 0)
    pressed = "return document.querySelector('#single [aria-pressed=true]').dataset.action"
    assert page.js(pressed) == "plausible"
    page.press("u")  # changes the answer, then shows the first image without one
    at(page, 2)
    page.press(RIGHT)
    at(page, 2)
    assert verdicts()[:3] == ["unsure", "implausible", None]
    page.press("b")
    at(page, 0)
    assert verdicts()[:3] == ["plausible", "implausible", None]


def test_reconnecting_after_the_server_was_killed(
    tab: Page, folder: Path, verdicts: Callable[[], list[str | None]]
) -> None:
    server = Process(folder)
    at(tab.open(server.url), 0)
    tab.press("y", "n", "u")
    at(tab, 3)
    server.end(signal.SIGKILL)
    assert verdicts()[:4] == ["plausible", "implausible", "unsure", None]
    tab.press("y")
    assert tab.shown("#alert button") and tab.text("#caption") == "Image 4"

    again = Process(folder, server.port)
    try:
        assert again.port == server.port
        tab.click("#alert button")
        assert tab.shown("#alert button") and verdicts()[3] is None, "its cookie is refused"
        other = tab.another(again.url)
        at(other, 3)
        assert other.text("#progress-words").startswith("3 of 15")
        tab.click("#alert button")  # the browser has the new cookie now
        at(tab, 4)
        assert verdicts()[:5] == ["plausible", "implausible", "unsure", "plausible", None]
        assert tab.text("#alert") == "" and answers_on_disk(folder) == 4
    finally:
        again.end(signal.SIGKILL)


def test_a_stale_tab_shows_the_answer_of_the_other(
    page: Page, folder: Path, verdicts: Callable[[], list[str | None]]
) -> None:
    other = page.another(page.driver.current_url)
    at(other, 0)
    other.press("y")
    at(other, 1)
    page.press("n")
    assert page.shown("#alert p") and "plausible" in page.text("#caption")
    assert verdicts()[:2] == ["plausible", None] and answers_on_disk(folder) == 1
    page.press("u")
    at(page, 1)
    other.press("b")  # this one is stale now
    assert other.shown("#alert p") and verdicts()[:2] == ["unsure", None]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The file of answers."""
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_the_grid_by_keyboard(
    page: Page, folder: Path, verdicts: Callable[[], list[str | None]]
) -> None:
    page.press("g", ENTER)
    assert tiles(page) == ["undecided"] * 15 and verdicts() == [None] * 15
    page.press(SPACE, RIGHT, SPACE, SPACE, RIGHT, SPACE, SPACE, SPACE, DOWN, "n", LEFT, LEFT, "u")
    across = "return getComputedStyle(document.getElementById('tiles')).gridTemplateColumns"
    columns = len(page.js(across).split())
    expected = ["undecided"] * 15
    expected[:3] = ["implausible", "unsure", "plausible"]
    expected[2 + columns] = "implausible"
    expected[1 + columns] = "unsure"
    assert tiles(page) == expected
    assert verdicts() == [None] * 15, "nothing is saved before Enter"
    page.press(ENTER)
    page.until(lambda: "5 of 15" in page.text("#progress-words"))
    assert verdicts() == [None if one == "undecided" else one for one in expected]
    assert tiles(page) == ["undecided"] * 10, "the others come again"
    page.press(SPACE, SPACE, SPACE, SPACE)
    assert tiles(page) == ["undecided"] * 10
    page.press(SPACE, "r")
    assert tiles(page) == ["implausible", *["plausible"] * 9] and verdicts().count(None) == 10
    page.press(ENTER)
    page.until(lambda: page.shown("#end"))
    assert verdicts().count("plausible") == 10
    assert {line["mode"] for line in lines(folder)} == {"grid"}
    page.press("b")
    at(page, 14)
    page.press("y")
    page.until(lambda: page.shown("#end"))
    assert lines(folder)[-1]["mode"] == "single"
    assert page.complaints() == []


def test_the_grid_by_clicks_and_its_undo(tab: Page, tmp_path: Path) -> None:
    folder = small_session(tmp_path / "large", num=18)  # 39 images
    with serving(Session(folder, "ada")) as client:
        at(tab.open(client.url), 0)
        tab.press("y")
        tab.click("[data-action=grid]")
        assert len(tiles(tab)) == 20
        below = "document.getElementById('save').getBoundingClientRect().bottom - innerHeight"
        assert tab.js(f"return {below}") <= 0, "all twenty fit on the screen"
        for nth in (3, 3, 20):
            tab.click(f".tile:nth-child({nth})")
        tab.click("#rest")
        tab.click("#save")
        tab.until(lambda: "21 of 39" in tab.text("#progress-words"))
        verdicts = Session(folder, "ada").verdicts()
        assert verdicts[3] == "unsure" and verdicts[20] == "implausible"
        assert verdicts[1:21].count("plausible") == 18 and verdicts[21:] == [None] * 18
        tab.press("b")  # all twenty, and they are as they were
        tab.until(lambda: "1 of 39" in tab.text("#progress-words"))
        assert tiles(tab)[2] == "unsure" and tiles(tab)[19] == "implausible"
        client.enter()
        client.answer(1, "implausible")  # in another tab
        tab.click("#save")
        assert tab.shown("#alert p")
        assert Session(folder, "ada").verdicts()[:4] == [
            "plausible",
            "implausible",
            None,
            None,
        ]
        tab.click("#rest")  # the image that came in its place
        tab.click("#save")
        tab.until(lambda: "22 of 39" in tab.text("#progress-words"))
        assert Session(folder, "ada").verdicts()[:4].count("unsure") == 1


def test_a_grid_whose_images_do_not_load_is_saved_and_shown_later(
    tab: Page, tmp_path: Path
) -> None:
    folder = small_session(tmp_path / "large", num=18)  # 39 images
    with serving(Session(folder, "ada")) as client:
        at(tab.open(client.url), 0)
        blocked = {"urls": [f"*/images/{position}.png" for position in range(20, 39)]}
        tab.driver.execute_cdp_cmd("Network.enable", {})
        tab.driver.execute_cdp_cmd("Network.setBlockedURLs", blocked)
        tab.press("g")
        assert leaving(tab)
        tab.press("r", ENTER)
        tab.until(lambda: tab.shown("#alert button"))
        assert leaving(tab), "all is saved"
        tab.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        tab.click("#alert button")
        tab.until(lambda: len(tiles(tab)) == 19)
        assert tab.js("return document.querySelector('.tile').dataset.position") == "20"
        verdicts = Session(folder, "ada").verdicts()
        assert verdicts == ["plausible"] * 20 + [None] * 19
        tab.click(".tile:nth-child(5)")
        tab.press(RIGHT)
        stops = "return [...document.querySelectorAll('.tile[tabindex=\"0\"]')]"
        assert tab.js(stops + ".map((tile) => tile.dataset.position)") == ["25"]
        assert not leaving(tab), "a mark is not saved"


def leaving(page: Page) -> bool:
    """Whether the page closes without a question."""
    return page.js("return dispatchEvent(new Event('beforeunload', {cancelable: true}))")


def test_by_buttons_alone(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    page.press("?")
    assert page.shown("#help")
    page.press("y")
    assert verdicts()[0] is None, "no answer while the help covers the image"
    page.click("#letters")
    page.press(ESCAPE, "y", "g")
    assert verdicts()[0] is None and page.shown("#single"), "letters are off"
    for _ in range(20):
        page.press(TAB)
        if page.js("return document.activeElement.dataset.action") == "implausible":
            break
    assert "solid 3px" in page.js("return getComputedStyle(document.activeElement).outline")
    page.press(ENTER)
    at(page, 1)
    page.click("[data-action=unsure]")
    at(page, 2)
    page.click("[data-action=undo]")
    at(page, 1)
    assert verdicts()[:2] == ["implausible", None]


def test_nothing_is_judged_unseen(page: Page, verdicts: Callable[[], list[str | None]]) -> None:
    """By the second click of a double click, or by a key that is held on a button."""
    from selenium.webdriver.common.action_chains import ActionChains

    button = page.driver.find_element("css selector", "[data-action=plausible]")
    ActionChains(page.driver).move_to_element(button).click().perform()
    at(page, 1)
    second = "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, detail: 2}))"
    page.js(second, button)
    page.until(lambda: True)
    for repeat in (False, True, True, True):
        key = {"type": "keyDown", "key": "Enter", "text": "\r", "autoRepeat": repeat}
        page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**key, "windowsVirtualKeyCode": 13})
        page.until(lambda: True)
    at(page, 2)
    assert verdicts().count("plausible") == 2


def test_the_address_works_as_a_link_in_another_page(
    tab: Page, stranger: Client, tmp_path: Path
) -> None:
    """Such as a terminal in the browser: its cookie is sent although another site led here."""
    (tmp_path / "link.html").write_text(f'<a href="{stranger.url}">open</a>')
    tab.driver.get((tmp_path / "link.html").as_uri())
    tab.driver.find_element("css selector", "a").click()
    at(tab, 0)
    assert tab.driver.current_url == f"http://{stranger.server.hosts[0]}/"


def show(page: Page, view: str, folder: Path) -> None:
    """Bring up one view of the page."""
    keys = {"answered": "u\ue012", "grid": "g", "decided": "g \ue014u", "zoom": "gz"}
    page.press(*keys.get(view, ""))
    if view == "help":
        page.click(f"[data-action={view}]")
    elif view == "alert":
        page.js("window.fetch = () => Promise.reject()")
        page.press("y")
    elif view == "end":
        Session(folder, "ada").answer(dict.fromkeys(range(15), "plausible"))
        page.js("location.reload()")
    shown = {"end": "#end", "alert": "#alert button", "decided": "#grid", "grid": "#grid"}
    shown["zoom"] = "#zoom"
    page.until(lambda: page.shown(shown.get(view, "#single")))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_read_and_touched(page: Page, folder: Path, view: str) -> None:
    """At every size nothing is cut off; text has contrast in light and dark."""
    page.look(PHONE)
    show(page, view, folder)
    for size in (PHONE, DESKTOP):
        for dark in (False, True):
            page.look(size, dark)
            page.until(lambda: True)
            cut_off = """return [...document.querySelectorAll("html, dialog[open], section, nav")]
              .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.outerHTML)"""
            assert page.js(cut_off) == [], size
            assert page.js(TOO_SMALL) == [], size
            contrast, whose = page.js(CONTRAST)
            assert contrast >= ENOUGH, (size, dark, whose)
    assert page.complaints() == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP, SIDEWAYS])
def test_judging_needs_no_scrolling(page: Page, size: tuple[int, int]) -> None:
    page.look(size)
    tools = "" if size == SIDEWAYS else ", #tools button"
    below = f"""return [...document.querySelectorAll('#stage img, #single button{tools}')]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().bottom > innerHeight)
      .map((one) => one.outerHTML)"""
    page.until(lambda: page.js(below) == [])
    assert page.js("return document.querySelector('#stage img').clientWidth") >= 192


def accessible(page: Page) -> list[tuple[str, str]]:
    """Role and name of everything that a screen reader can reach."""
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in tree
        if not node["ignored"]
    ]


def test_names_for_screen_readers(page: Page) -> None:
    seen = accessible(page)
    assert {"banner", "main", "navigation", "contentinfo", "status"} <= {role for role, _ in seen}
    assert {("image", "Image 1 of 15"), ("progressbar", "Images judged")} <= set(seen)
    buttons = [name for role, name in seen if role == "button"]
    assert len(buttons) == 8 and all(buttons)
    assert {"Plausible", "Not plausible", "Unsure"} <= set(buttons)
    page.press("y")
    assert "plausible" in page.text("#announcement") and "2" in page.text("#announcement")
    page.press("g")
    assert ("button", "Image 15: undecided") in accessible(page)
    page.press(SPACE)
    assert page.text("#announcement") == "Image 2: not plausible"


def test_from_the_command_to_the_result(tab: Page, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    command = "label-sacc --images images --num 4 --catch 2 --rater ada --port 0 --no-browser"
    with start(*command.split(), cwd=tmp_path) as process:
        line = next(line for line in process.stderr if line.startswith("open "))
        at(tab.open(line.removeprefix("open ").strip()), 0)
        tab.press("n", "g", "r", ENTER)
        tab.until(lambda: tab.shown("#end"))
        tab.click("[data-action=finish]")
        tab.until(lambda: tab.shown("#stopped"))
        result = finish(process, limit_sec=60)[0]
    assert "S-Acc" in result and "ada" in result
