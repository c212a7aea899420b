"""The labelling page in a real browser: who gets at it, and whether all can see and use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sri_cli.labeling.session import Session
from tests.small_browser import CONTRAST, DESKTOP, PHONE, SMALL, TOO_SMALL, Page, chromium
from tests.small_client import Client, answers_on_disk

SIDEWAYS = (740, 375)
ENOUGH = 4.5  # WCAG AA, of text of this size
VIEWS = ("single", "answered", "zoomed", "grid", "flipped", "examples", "help", "alert", "end")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def tab(driver: Any) -> Page:
    """A tab of a browser without cookies."""
    driver.get("about:blank")
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    page = Page(driver)
    page.look()
    page.complaints()
    return page


@contextmanager
def another_site(html: str) -> Iterator[str]:
    """A web page of somebody else's on this machine; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_wrong_token_in_plain_words(tab: Page, stranger: Client) -> None:
    tab.open(f"http://127.0.0.1:{stranger.port}/?token=wrong")
    assert "This page is not open to you yet" in tab.text("h1")
    assert "each start of the server makes a new one" in tab.text("main")
    assert tab.js(CONTRAST)[0] >= ENOUGH
    tab.open(f"http://127.0.0.1:{stranger.port}/")
    assert "Open the address that `sri label-sacc` printed last" in tab.text("main")


def test_a_name_that_was_made_to_point_here_gets_nothing(tab: Page, client: Client) -> None:
    """evil.example is 127.0.0.1 to this browser: what a rebound name is."""
    own = client.access.url
    tab.open(own).at(0)
    tab.open(own.replace("127.0.0.1", "evil.example"))
    assert f"the address must begin with http://127.0.0.1:{client.port}/" in tab.text("main")
    script = "return fetch(arguments[0]).then((reply) => reply.status)"
    assert tab.js(script, f"http://evil.example:{client.port}/api/state") == 400
    tab.open(own.replace("127.0.0.1", "localhost")).at(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
def test_another_page_of_the_same_browser_gets_nothing(
    tab: Page, client: Client, session_folder: Path, host: str
) -> None:
    """The same address with another port is the same site to cookies: they are sent along."""
    tab.open(client.access.url).at(0)
    target = f"http://127.0.0.1:{client.port}"
    body = '{"answers": [{"place": 0, "verdict": "implausible", "expected": null}]}'
    attack = """
      const [target, body] = arguments, done = [];
      const post = (how) => fetch(target + "/api/answers", { method: "POST", body, ...how })
        .then((reply) => reply.type + reply.status, () => "refused");
      const load = (tag, path) => new Promise((then) => {
        const element = document.createElement(tag);
        element.onload = () => then("loaded"); element.onerror = () => then("refused");
        element.src = target + path; document.body.append(element);
      });
      return Promise.all([
        post({ credentials: "include", mode: "no-cors" }),
        post({ credentials: "include", headers: { "Content-Type": "application/json" } }),
        fetch(target + "/api/state", { credentials: "include" })
          .then(() => "read", () => "refused"),
        load("img", "/pictures/0.png"),
        load("script", "/api/state"),
      ])"""
    form = f"""<form method=post enctype=text/plain action="{target}/api/answers">
      <input name='{body[:-1]}, "x": "' value='"}}'></form>"""
    with another_site(form) as site:
        tab.driver.get(f"http://{site.replace('127.0.0.1', host)}/")
        sent, *others = tab.js(attack, target, body)
        assert sent in ("opaque0", "refused") and others == ["refused"] * 4
        tab.js("document.querySelector('form').submit()")
        tab.until(lambda: tab.js("return location.pathname") == "/api/answers")
    assert answers_on_disk(session_folder) == 0
    assert client.state()["next"] == 0


def test_no_page_can_frame_it(tab: Page, client: Client) -> None:
    tab.open(client.access.url).at(0)
    frame = f'<iframe src="http://127.0.0.1:{client.port}/"></iframe>'
    with another_site(frame) as site:
        tab.driver.get(f"http://{site}/")
        assert any("frame-ancestors 'none'" in line for line in tab.complaints())
        tab.driver.switch_to.frame(0)
        assert tab.driver.find_elements("css selector", "#stage") == []
        tab.driver.switch_to.default_content()


def test_the_address_can_be_clicked_in_a_terminal_in_the_browser(
    tab: Page, stranger: Client
) -> None:
    with another_site(f'<a href="{stranger.access.url}">open</a>') as site:
        tab.driver.get(f"http://{site.replace('127.0.0.1', 'evil.example')}/")
        tab.driver.find_element("css selector", "a").click()
        tab.at(0)
    assert tab.driver.current_url == f"http://127.0.0.1:{stranger.port}/"


def show(page: Page, view: str, session: Session) -> None:
    """Bring one view of the page up."""
    if view == "answered":
        page.press("u", "\ue012")
    elif view == "zoomed":
        page.press("z")
    elif view in ("grid", "flipped"):
        page.press("g")
        if view == "flipped":
            page.press(" ", "\ue014", "u")
    elif view in ("examples", "help"):
        page.click(f"[data-deed={view}]")
    elif view == "alert":
        page.js("window.fetch = () => Promise.reject()")
        page.press("y")
    elif view == "end":
        for place in range(session.total):
            session.answer(place, "plausible")
        page.js("location.reload()")
    shown = {"end": "#end", "alert": "#alert button", "flipped": "#grid", "grid": "#grid"}
    page.until(lambda: page.shown(shown.get(view, "#single")))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_read_and_touched(
    tab: Page, stranger: Client, open_as: Callable[[str], Session], view: str
) -> None:
    """At every size nothing is cut off; in both colour schemes text has contrast."""
    tab.open(stranger.access.url, PHONE).at(0)
    show(tab, view, open_as("ada"))
    for size in (PHONE, SMALL, DESKTOP):
        for dark in (False, True):
            tab.look(size, dark)
            tab.until(lambda: True)
            cut_off = """return [...document.querySelectorAll("html, dialog[open], section, nav")]
              .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.outerHTML)"""
            assert tab.js(cut_off) == [], (size, "scrolls sideways")
            assert tab.js(TOO_SMALL) == [], size
            contrast, whose = tab.js(CONTRAST)
            assert contrast >= ENOUGH, (size, "dark" if dark else "light", whose)
    paper = "return getComputedStyle(document.body).backgroundColor"
    tab.look(DESKTOP, dark=True)
    dark = tab.js(paper)
    tab.look(DESKTOP, dark=False)
    assert dark != tab.js(paper)
    assert tab.complaints() == []


@pytest.mark.parametrize("size", [PHONE, SMALL, DESKTOP, SIDEWAYS])
def test_judging_needs_no_scrolling(tab: Page, stranger: Client, size: tuple[int, int]) -> None:
    tab.open(stranger.access.url, size).at(0)
    tools = "" if size == SIDEWAYS else ", #tools button"
    below = f"""return [...document.querySelectorAll('#stage img, #single button{tools}')]
      .filter((one) => one.checkVisibility() && one.getBoundingClientRect().bottom > innerHeight)
      .map((one) => one.outerHTML)"""
    assert tab.js(below) == []
    assert tab.js("return document.querySelector('#stage img').clientWidth") >= 192


def test_what_a_screen_reader_is_told(tab: Page, stranger: Client) -> None:
    tab.open(stranger.access.url).at(0)
    tree = tab.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    roles = [role for role, _ in seen]
    assert {"banner", "main", "navigation", "contentinfo", "status"} <= set(roles)
    assert ("heading", "Is this a plausible stack?") in seen
    assert ("image", "Picture 1 of 15") in seen
    assert ("progressbar", "Pictures judged") in seen
    buttons = [name.strip() for role, name in seen if role == "button"]
    assert [name for name in buttons if "lausible" in name or "Unsure" in name] == [
        "Plausible",
        "Not plausible",
        "Unsure",
    ]
    assert len(buttons) == 10 and all(buttons)
    assert tab.js("return document.documentElement.lang") == "en"
    tab.press("g")
    tree = tab.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [node.get("name", {}).get("value", "") for node in tree if not node["ignored"]]
    assert "Picture 15: plausible" in names
    tab.press(" ")
    assert tab.text("#said") == "Picture 1: not plausible"
