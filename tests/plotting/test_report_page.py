"""The report in a real browser: on a desk, on a phone, in the dark, in print, without scripts."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sri_cli.plotting.report_write import report_of_runs
from tests.plotting.test_report_runs import record, write_log, write_walk
from tests.small_browser import CONTRAST, DESKTOP, PHONE, Page, chromium
from tests.small_workspace import write_workspace

ENOUGH = 4.5  # WCAG AA, of text of this size
ENOUGH_OF_LINES = 3.0
# The least contrast of a chart's lines with the page.
LINES = """
const light = (colour) => colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
const paper = light(getComputedStyle(document.body).backgroundColor);
return Math.min(...[...document.querySelectorAll("polyline:not(.faint)")]
  .map((line) => light(getComputedStyle(line).stroke))
  .map((line) => (Math.max(line, paper) + 0.05) / (Math.min(line, paper) + 0.05)));
"""
BEYOND = """
return [...document.querySelectorAll("body *")]
  .filter((element) => !element.closest(".scroll") && element.getBoundingClientRect().right
    > document.documentElement.clientWidth + 1)
  .map((element) => element.outerHTML.slice(0, 100));
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of four runs, tables wider than a phone, one of them with a long name."""
    root = tmp_path_factory.mktemp("page")
    workspace = write_workspace(root)
    for run in ("tiny", "other"):
        write_log(workspace.runs_root / run)
        record(workspace, run, ("ari_fg", "ARI-FG", 0.5), ("term_nll", "nll", 1737.3))
    runs = ["tiny", "second", "third"]
    for run in runs[1:]:
        shutil.copytree(workspace.runs_root / "tiny", workspace.runs_root / run)
    write_walk(workspace.runs_root / "tiny")
    long = workspace.runs_root / ("a_very_long_name_without_blanks" * 4)
    (workspace.runs_root / "other").rename(long)
    path = report_of_runs(workspace, [*runs, long.name], root / "report.html")
    assert path.stat().st_size < 3e6
    return path.as_uri()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_all_is_seen_at_any_size_and_in_the_dark(
    driver: Any, address: str, size: tuple[int, int], dark: bool
) -> None:
    page = Page(driver).open(address, size, dark)
    assert page.js("return document.documentElement.scrollWidth") <= size[0]
    assert page.js(BEYOND) == []
    images = page.js("return [...document.images].map((i) => [i.naturalWidth, i.naturalHeight])")
    of_runs = 4 * (2 + 1) + 3 * 5 + 4  # samples, order, test images
    assert len(images) == of_runs + 2 + 1 and all(min(image) > 0 for image in images)
    assert page.js(CONTRAST)[0] >= ENOUGH and page.js(LINES) >= ENOUGH_OF_LINES
    assert page.complaints() == []


def test_all_pictures_have_words_and_every_link_a_target(driver: Any, address: str) -> None:
    page = Page(driver).open(address)
    assert page.js("return [...document.images].filter((i) => !i.alt.trim()).length") == 0
    code = "return [...document.querySelectorAll('svg[role=img]')].map((s) => s.ariaLabel)"
    assert all(page.js(code))
    code = "return [...document.links].filter((a) => !document.querySelector(a.hash)).length"
    assert page.js(code) == 0
    page.click("nav a[href='#part-3']")
    assert page.js("return location.hash") == "#part-3"


def test_the_film_plays_when_it_is_asked_for(driver: Any, address: str) -> None:
    page = Page(driver).open(address)
    assert not page.shown(".film img")
    page.click(".film summary")
    assert page.shown(".film img")


def test_without_scripts_nothing_is_missing(driver: Any, address: str) -> None:
    page = Page(driver).open(address)
    with_scripts = page.text("main")
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(address)
        assert driver.find_element("css selector", "main").text.split() == with_scripts.split()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_in_print_folded_parts_are_open_and_the_paper_is_white(driver: Any, address: str) -> None:
    page = Page(driver).open(address, dark=True)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert page.js(CONTRAST)[0] >= ENOUGH
        code = "return getComputedStyle(document.body).backgroundColor"
        assert page.js(code) == "rgb(255, 255, 255)"
        assert page.shown("details:not(.film) pre") and not page.shown("nav")
        printed = driver.execute_cdp_cmd("Page.printToPDF", {})["data"]
        assert base64.b64decode(printed).startswith(b"%PDF")
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_hostile_name_shows_as_it_is(driver: Any, tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path)
    name = "<img src=x onerror=document.title='hacked'>"
    (workspace.runs_root / "tiny").rename(workspace.runs_root / name)
    page = Page(driver).open(report_of_runs(workspace, [name]).as_uri())
    assert page.text("h1") == name and page.js("return document.title") == name
    assert page.complaints() == []
