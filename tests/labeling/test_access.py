"""Whom the labelling server lets in and what it refuses, over HTTP: an attacker's list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sri_cli.labeling.session import Session
from tests.small_client import Client, answers_on_disk, labelling

OpenAs = Callable[[str], Session]
CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ONE = {"place": 0, "verdict": "plausible", "expected": None}


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: Client) -> None:
    reply = stranger.enter()
    assert reply.status == 303 and reply.headers["Location"] == "/"
    parts = reply.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
    assert parts[0].startswith(f"sri-label-{stranger.port}=")
    assert stranger.access.url.split("=")[1] not in parts[0], "the cookie is not the token"
    page = stranger.get("/")
    assert page.status == 200 and b"Is this a plausible stack?" in page.body


def test_a_wrong_token_is_told_in_plain_words(stranger: Client) -> None:
    for token in ("", "x", "é", "a" * 43, "\x00"):
        reply = stranger.get(f"/?token={quote(token)}")
        assert reply.status == 403 and "Set-Cookie" not in reply.headers, token
        assert b"Open the address that `sri label-sacc` printed last" in reply.body


def test_the_address_for_the_browser_is_good_for_one_visit(stranger: Client) -> None:
    once = stranger.access.url_for_browser()
    assert stranger.enter(once).status == 303 and stranger.get("/").status == 200
    assert stranger.enter(once).status == 403
    assert stranger.enter().status == 303, "the printed one stays good"


def test_a_click_in_another_sites_page_comes_through_on_its_second_step(client: Client) -> None:
    """The browser withholds a new SameSite cookie from the redirect; our own page then goes on."""
    reply = client.ask("GET", "/", without=("Cookie",), Sec_Fetch_Site="cross-site")
    assert reply.status == 200 and b'http-equiv="refresh"' in reply.body
    assert b"data-setup" not in reply.body
    assert client.ask("GET", "/", without=("Cookie",)).status == 403


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/"),
        ("GET", "/api/state"),
        ("GET", "/pictures/0.png"),
        ("GET", "/examples/0.png"),
        ("POST", "/api/answers"),
        ("POST", "/api/undo"),
        ("POST", "/api/finish"),
        ("GET", "/nothing/here"),
    ],
)
def test_nothing_without_the_cookie(
    stranger: Client, session_folder: Path, method: str, path: str
) -> None:
    body = json.dumps({"answers": [ONE]}).encode() if method == "POST" else None
    name = stranger.access.cookie_name
    for cookie in ("", f"{name}=", f"{name}=x", f"x={stranger.access.cookie}"):
        stranger.cookie = cookie
        reply = stranger.ask(method, path, body, Content_Type="application/json")
        assert reply.status == 403, cookie
    assert answers_on_disk(session_folder) == 0


def test_the_cookie_of_the_server_before_is_refused(open_as: OpenAs) -> None:
    with labelling(open_as("ada")) as before:
        before.enter()
        old, port = before.cookie, before.port
    with labelling(open_as("ada"), port) as after:
        assert after.port == port
        after.cookie = old
        reply = after.get("/api/state")
    assert reply.status == 403
    assert "Open the address that `sri label-sacc` printed last" in reply.json["error"]


FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:PORT",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1:0PORT",
    "localhost",
    "127.0.0.1.evil.example:PORT",
    "localhost.:PORT",
    "127.1:PORT",
    "0.0.0.0:PORT",
    "[::1]:PORT",
    "127.0.0.1:PORT,evil.example",
    "",
]


def test_a_foreign_host_is_refused(client: Client) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing, with the cookie even."""
    for name in FOREIGN_HOSTS:
        host = name.replace("PORT", str(client.port))
        for path in ("/", "/api/state", "/pictures/0.png", "/page.js"):
            reply = client.ask("GET", path, Host=host, Origin=f"http://{host}")
            assert reply.status == 400, (host, path)
            assert b"verdicts" not in reply.body and b"data-setup" not in reply.body


def test_hosts_told_in_odd_ways_are_refused(client: Client) -> None:
    own = f"Host: 127.0.0.1:{client.port}\r\n".encode()
    cookie = f"Cookie: {client.cookie}\r\n".encode()
    for request in (
        b"GET /api/state HTTP/1.0\r\n" + cookie,
        b"GET /api/state HTTP/1.1\r\n" + own + b"Host: evil.example\r\n" + cookie,
        b"GET http://evil.example/api/state HTTP/1.1\r\n" + own + cookie,
        b"GET /api/state HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: " + own[6:] + cookie,
    ):
        reply = client.raw(request + b"\r\n")
        assert reply.startswith(b"HTTP/1.1 400"), request
        assert b"verdicts" not in reply
    assert b"verdicts" in client.raw(b"GET /api/state HTTP/1.1\r\n" + own + cookie + b"\r\n")


def test_localhost_is_a_name_of_it_too(client: Client) -> None:
    host = f"localhost:{client.port}"
    assert client.get("/api/state", Host=host).status == 200
    one = {"answers": [{"place": 0, "verdict": "unsure", "expected": None}]}
    assert client.post("/api/answers", one, Host=host, Origin=f"http://{host}").status == 200
    # ... but each is its own origin
    assert client.post("/api/answers", one, Host=host).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"without": ("Origin",)},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:PORT.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
def test_no_other_page_writes(
    client: Client, session_folder: Path, headers: dict[str, Any]
) -> None:
    """Another page of the same browser, on another port even, has the cookie sent along."""
    client.answer(0, "plausible")
    told = {name: _with_port(value, client.port) for name, value in headers.items()}
    bodies = {
        "answers": {"answers": [{"place": 1, "verdict": "plausible", "expected": None}]},
        "undo": {"count": 1, "version": client.state()["version"]},
        "finish": {},
    }
    for path, body in bodies.items():
        assert client.post(f"/api/{path}", body, **told).status == 403, path
    assert answers_on_disk(session_folder) == 1


def _with_port(value: Any, port: int) -> Any:
    return value.replace("PORT", str(port)) if isinstance(value, str) else value


def test_no_other_page_shows_a_picture(client: Client) -> None:
    for path in ("/pictures/0.png", "/examples/0.png", "/api/state"):
        for site in ("cross-site", "same-site"):
            assert client.get(path, Sec_Fetch_Site=site).status == 403


def test_json_only(client: Client, session_folder: Path) -> None:
    forms = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain")
    for kind in (*forms, "application/jsonp", "application/x+json", ""):
        reply = client.post("/api/answers", {"answers": [ONE]}, Content_Type=kind)
        assert reply.status == 415, kind
    assert answers_on_disk(session_folder) == 0


def test_a_long_body_is_refused(client: Client, session_folder: Path) -> None:
    long = json.dumps({"answers": [], "more": "x" * 100_000}).encode()
    assert client.ask("POST", "/api/answers", long, Content_Type="application/json").status == 413
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(long), long)
    how = {"Content_Type": "application/json", "Transfer_Encoding": "chunked"}
    assert client.ask("POST", "/api/answers", chunked, **how).status == 411
    assert answers_on_disk(session_folder) == 0


BAD_BODIES = [
    ("answers", b""),
    ("answers", b"{"),
    ("answers", b"\xff"),
    ("answers", b"[]"),
    ("answers", b"null"),
    ("answers", b"[" * 10_000),
    ("answers", {}),
    ("answers", {"answers": []}),
    ("answers", {"answers": {}}),
    ("answers", {"answers": [1]}),
    ("answers", {"answers": [ONE, ONE]}),
    ("answers", {"answers": [ONE], "rater": "eve"}),
    ("answers", {"answers": [{**ONE, "place": i} for i in range(21)]}),
    ("answers", {"answers": [{"place": 0, "verdict": "plausible"}]}),
    *[("answers", {"answers": [{**ONE, "place": x}]}) for x in (-1, 15, 1e300, 0.0, "0", True)],
    *[("answers", {"answers": [{**ONE, "place": x}]}) for x in (None, [0], 10**30)],
    *[("answers", {"answers": [{**ONE, "verdict": x}]}) for x in ("", "Unsure", None, 1, [])],
    *[("answers", {"answers": [{**ONE, "expected": x}]}) for x in ("", "unset", 0, [], {})],
    *[("answers", {"answers": [ONE], "seconds": x}) for x in (-1, 1e9, "1", True, [])],
    ("answers", b'{"answers": [{"place": 0, "verdict": "plausible", "expected": null}], '
     b'"seconds": NaN}'),
    *[("undo", {"count": x, "version": ""}) for x in (0, 21, -1, "1", None, True, 1.0)],
    ("undo", {"count": 1}),
    ("undo", {"count": 1, "version": 1}),
    ("finish", b"{"),
]  # fmt: skip


def test_bad_bodies_are_refused_and_nothing_is_written(
    client: Client, session_folder: Path
) -> None:
    for path, body in BAD_BODIES:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        reply = client.ask("POST", f"/api/{path}", data, Content_Type="application/json")
        assert reply.status == 400 and reply.json["error"], (path, data[:200], reply)
    assert answers_on_disk(session_folder) == 0
    assert client.said == [], "a refusal is no failure of the server"


NO_PATHS = [
    "/pictures/15.png",
    "/pictures/-1.png",
    "/pictures/99999999999999999999.png",
    "/pictures/0",
    "/pictures/0.jpg",
    "/pictures/1e0.png",
    "/pictures/%2e%2e/session.json",
    "/pictures/../answers.jsonl",
    "/examples/6.png",
    "/../app.py",
    "/%2e%2e/app.py",
    "/..%2fapp.py",
    "/page/index.html",
    "/index.html",
    "/refused.html",
    "//etc/passwd",
    "/page.js/",
    "/static/page.js",
    "/favicon.ico",
]


def test_nothing_is_found_by_path(client: Client) -> None:
    for path in NO_PATHS:
        reply = client.get(path)
        assert reply.status == 404 and set(reply.json) == {"error"}, path


def test_other_methods_are_refused(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST", "EVIL"):
        for path in ("/", "/api/state", "/pictures/0.png"):
            reply = client.ask(method, path)
            assert reply.status == 405, (method, path)
            assert "Access-Control-Allow-Origin" not in reply.headers


def test_every_reply_is_closed_to_other_pages(client: Client) -> None:
    replies = [
        client.get("/"),
        client.get("/page.js"),
        client.get("/pictures/0.png"),
        client.get("/api/state"),
        client.answer(0, "plausible"),
        client.answer(0, "unsure"),  # 409
        client.get("/nothing"),
        client.get("/", Host="evil.example"),
        client.post("/api/answers", {}),
        client.ask("GET", "/", without=("Cookie",)),
        client.enter(),
    ]
    assert [reply.status for reply in replies] == [
        *[200] * 5, 409, 404, 400, 400, 403, 303
    ]  # fmt: skip
    for reply in replies:
        assert {name: reply.headers[name] for name in CLOSED} == CLOSED
        assert reply.headers["Server"] == "sri", "neither tool nor version"
        assert not {"ETag", "Last-Modified", "Expires"} & set(reply.headers)
    for reply in replies:
        policy = reply.headers["Content-Security-Policy"]
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy


def test_the_page_has_no_inline_code_and_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/").body.decode()
    assert not re.search(r"<script(?![^>]* src=\"/)|<style|\sstyle=|\son\w+=|javascript:", page)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert {"/page.js", "/page.css"} <= set(sources)
    assert [source for source in sources if not source.startswith("/")] == []
    for source in sources:
        assert client.get(source).status == 200, source
        for file in re.findall(r"from \"\./([^\"]*)\"", client.get(source).body.decode("latin1")):
            assert client.get(f"/{file}").status == 200, file
