"""The labelling server over HTTP: whom it lets in, what it saves, and how it stops."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from sri_cli.errors import Interrupted
from sri_cli.labeling.app import HEADERS, LabelServer, announce, far_from_browser, png_bytes, serve
from sri_cli.labeling.session import VERDICTS, Session
from tests.damage import largest_file
from tests.labeling.conftest import Client, Process, answers_on_disk, serving

ONE = {"position": 0, "verdict": "plausible"}
GOOD = {"answers": [ONE], "seconds": 1, "version": 0, "mode": "single"}
SECRETS = (b"secret-", b"weights-", b"catch", b"floating", b"gapped", b"m0-", b"m1-")


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: Client) -> None:
    reply = stranger.enter()
    assert reply.status == 303 and reply.headers["Location"] == "/"
    name, *parts = reply.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(parts)
    assert name.startswith(f"sri-label-{stranger.server.port}=")
    assert stranger.server.token not in name
    assert stranger.get("/").status == 200


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 43, "\x00"])
def test_a_wrong_token_is_refused(stranger: Client, token: str) -> None:
    reply = stranger.get(f"/?token={quote(token)}")
    assert reply.status == 403 and "Set-Cookie" not in reply.headers
    assert reply.headers["Content-Type"].startswith("text/plain")


def test_the_address_for_the_browser_is_valid_for_one_visit(stranger: Client) -> None:
    once = stranger.server.url(stranger.server.token_once)
    assert stranger.enter(once).status == 303 and stranger.get("/").status == 200
    assert stranger.enter(once).status == 403
    assert stranger.enter().status == 303, "the printed one stays valid"


@pytest.mark.parametrize(
    "path",
    ["/", "/api/state", "/images/0.png", "/nothing/here"]
    + ["/api/answers", "/api/undo", "/api/finish"],
)
def test_nothing_without_the_cookie(stranger: Client, folder: Path, path: str) -> None:
    with serving(Session(folder, "ada")) as other:
        other.enter()
    name = f"sri-label-{stranger.server.port}"
    for cookie in ("", f"{name}=", f"{name}=x", f"{name}={other.cookie.partition('=')[2]}"):
        stranger.cookie = cookie
        body = json.dumps(GOOD).encode()
        method = "POST" if path in ("/api/answers", "/api/undo", "/api/finish") else "GET"
        assert stranger.send(method, path, body).status == 403, cookie
    assert answers_on_disk(folder) == 0


FOREIGN_HOSTS = [
    *("evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:0PORT", ""),
    *("localhost", "127.0.0.1.evil.example:PORT", "localhost.:PORT", "127.1:PORT", "0.0.0.0:PORT"),
    *("[::1]:PORT", "127.0.0.1:PORT,evil.example"),
]


@pytest.mark.parametrize("name", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused(client: Client, name: str) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing, even with the cookie."""
    host = name.replace("PORT", str(client.server.port))
    for path in ("/", "/api/state", "/images/0.png", "/static/page.js"):
        assert client.get(path, Host=host, Origin=f"http://{host}").status == 400, path


def test_hosts_in_odd_forms_are_refused(client: Client) -> None:
    own = f"Host: {client.server.hosts[0]}\r\n".encode()
    cookie = f"Cookie: {client.cookie}\r\n".encode()
    for request in (
        b"GET /api/state HTTP/1.0\r\n" + cookie,
        b"GET /api/state HTTP/1.1\r\n" + own + b"Host: evil.example\r\n" + cookie,
        b"GET http://evil.example/api/state HTTP/1.1\r\n" + own + cookie,
        b"GET /api/state HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: " + own[6:] + cookie,
    ):
        assert client.raw(request + b"\r\n").startswith(b"HTTP/1.1 400"), request
    assert b"verdicts" in client.raw(b"GET /api/state HTTP/1.1\r\n" + own + cookie + b"\r\n")


def test_a_page_of_another_session_can_write_nothing(client: Client, folder: Path) -> None:
    """Left open in a tab, it has the cookie of the new one, and shows other images."""
    body = {**GOOD, "seconds": None}
    assert client.post("/api/answers", body, X_Session="0123456789abcdef").status == 403
    assert client.send("POST", "/api/answers", b"{}", without=("X-Session",)).status == 403
    assert client.post("/api/answers", body).status == 200


def test_localhost_is_its_own_origin(client: Client) -> None:
    host = client.server.hosts[1]
    body = {**GOOD, "seconds": None}
    assert client.post("/api/answers", body, Host=host).status == 403
    assert client.post("/api/answers", body, Host=host, Origin=f"http://{host}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"without": ("Origin",)},
        *({"Origin": origin} for origin in ("null", "http://evil.example", "http://127.0.0.1")),
        *({"Origin": f"{o}"} for o in ("https://127.0.0.1:PORT", "http://127.0.0.1:1")),
        {"Origin": "http://127.0.0.1:PORT.evil.example"},
        *({"Sec_Fetch_Site": site} for site in ("cross-site", "same-site", "none")),
    ],
    ids=str,
)
def test_no_other_page_can_write(client: Client, folder: Path, headers: dict[str, Any]) -> None:
    """Cookies are sent along for a page on another port of the same host."""
    client.answer(0, "plausible")
    port = str(client.server.port)
    headers = {
        key: value.replace("PORT", port) if isinstance(value, str) else value
        for key, value in headers.items()
    }
    for path, body in (("answers", {"answers": [ONE]}), ("undo", {"count": 1}), ("finish", {})):
        reply = client.post(f"/api/{path}", {**body, "version": 1}, **headers)
        assert reply.status == 403, path
    assert answers_on_disk(folder) == 1


@pytest.mark.parametrize("path", ["/images/0.png", "/api/state"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_page_can_read(client: Client, path: str, site: str) -> None:
    assert client.get(path, Sec_Fetch_Site=site).status == 403


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"]
    + ["application/jsonp", ""],
)
def test_only_json_is_read(client: Client, folder: Path, kind: str) -> None:
    body = {**GOOD, "seconds": None}
    assert client.post("/api/answers", body, Content_Type=kind).status == 415
    assert answers_on_disk(folder) == 0


def test_long_bodies_are_refused(client: Client, folder: Path) -> None:
    long = json.dumps(GOOD).encode() + b" " * 100_000
    assert client.send("POST", "/api/answers", long).status == 413
    assert answers_on_disk(folder) == 0


BAD_BODIES = [
    *(("answers", body) for body in (b"", b"{", b"\xff", b"[]", b"null", b"[" * 10_000)),
    *(("answers", {k: v for k, v in GOOD.items() if k != key}) for key in GOOD),
    *(("answers", {**GOOD, "answers": bad}) for bad in ([1], [{}], [ONE, None], 3)),
    *(
        ("answers", {**GOOD, "answers": [{**ONE, "position": bad}]})
        for bad in (-1, 15, "0", 0.5, None)
    ),
    *(
        ("answers", {**GOOD, "answers": [{**ONE, "verdict": bad}]})
        for bad in ("", "Unsure", None, 1, [])
    ),
    *(("answers", {**GOOD, "seconds": bad}) for bad in (-1, 1e9, math.nan, "1", [])),
    *(("answers", {**GOOD, "mode": bad}) for bad in ("", "Grid", None, [])),
    *(("undo", {"count": bad, "version": 0}) for bad in (0, -1, "1", None, 1.5)),
    ("undo", {"count": 1}),
    ("undo", {"count": 1, "version": "x"}),
]


@pytest.mark.parametrize(("path", "body"), BAD_BODIES)
def test_bad_bodies_change_nothing(client: Client, folder: Path, path: str, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = client.send("POST", f"/api/{path}", data)
    assert reply.status == 400 and reply.json["error"]
    assert answers_on_disk(folder) == 0


@pytest.mark.parametrize(
    "path",
    ["/images/15.png", "/images/-1.png", "/images/0", "/images/0.jpg", "/images/1e0.png"]
    + ["/images/99999999999999999999.png", "/images/%2e%2e/session.json"]
    + ["/images/../answers.jsonl", "/static/../app.py", "/static/%2e%2e/index.html"]
    + ["/static/..%2f..%2fapp.py", "/..%2fapp.py", "/index.html", "//etc/passwd", "/static/"],
)
def test_nothing_is_served_by_path(client: Client, path: str) -> None:
    reply = client.get(path)
    assert reply.status == 404 and set(reply.json) == {"error"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "TRACE"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    for path in ("/", "/api/state", "/images/0.png"):
        assert client.send(method, path).status == 405, path


def test_every_response_is_closed_to_other_pages(client: Client) -> None:
    replies = [
        *(client.get(path) for path in ("/", "/static/page.js", "/images/0.png", "/api/state")),
        client.answer(0, "plausible"),
        client.answer(0, "unsure", version=0),
        client.get("/nothing"),
        client.get("/", Host="evil.example"),
        client.send("GET", "/", without=("Cookie",)),
        client.enter(),
    ]
    assert [reply.status for reply in replies] == [*[200] * 5, 409, 404, 400, 403, 303]
    for reply in replies:
        assert {name: reply.headers[name] for name in HEADERS} == HEADERS
        policy = reply.headers["Content-Security-Policy"]
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy
        assert "Access-Control-Allow-Origin" not in reply.headers


def test_the_page_has_no_inline_code_and_loads_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/").body.decode()
    assert not re.search(r"<script(?![^>]* src=\"/)|<style|\sstyle=|\son\w+=|javascript:", page)
    for source in re.findall(r"(?:src|href)=\"([^\"]*)\"", page):
        assert source.startswith("/") and client.get(source).status == 200, source


def test_images_differ_in_nothing_but_their_pixels(client: Client, folder: Path) -> None:
    session = Session(folder, "ada")
    replies = [client.get(f"/images/{position}.png") for position in range(session.total)]
    for position, reply in enumerate(replies):
        shown = np.asarray(Image.open(io.BytesIO(reply.body)))
        np.testing.assert_array_equal(shown, session.image(position))
    flat = np.zeros((16, 16, 3), np.uint8)  # would compress to nothing
    assert {len(reply.body) for reply in replies} == {len(png_bytes(flat))}
    headers = [{k: v for k, v in reply.headers.items() if k != "Date"} for reply in replies]
    assert all(one == headers[0] for one in headers)


def test_no_response_names_a_model_or_a_catch_trial(client: Client) -> None:
    replies = [client.get(path) for path in ("/", "/api/state", "/nothing", "/images/0.png")]
    replies += [client.answer(position, "plausible") for position in range(15)]
    replies.append(client.post("/api/undo", {"count": 2, "version": 15}))
    for reply in replies:
        everything = bytes(reply.headers) + reply.body
        assert [secret for secret in SECRETS if secret in everything] == []


def test_answers_are_on_disk_when_they_are_acknowledged(client: Client, folder: Path) -> None:
    for position, verdict in enumerate(VERDICTS):
        reply = client.answer(position, verdict)
        assert reply.status == 200
        assert Session(folder, "ada").verdicts()[position] == verdict
    assert reply.json["verdicts"] == [*VERDICTS, *[None] * 12]
    undo = client.post("/api/undo", {"count": 2, "version": reply.json["version"]})
    assert undo.json["undone"] == [2, 1] and undo.json["verdicts"][:2] == [VERDICTS[0], None]
    stale = client.post("/api/undo", {"count": 1, "version": reply.json["version"]})
    assert stale.status == 409 and stale.json["verdicts"] == undo.json["verdicts"]


def test_a_full_disk_is_reported_and_nothing_counts(client: Client, folder: Path) -> None:
    client.answer(0, "plausible")
    before = (folder / "answers.jsonl").read_bytes()
    with largest_file(len(before) + 50):
        reply = client.answer(1, "implausible")
    assert reply.status == 500 and "answers.jsonl" in reply.json["error"]
    assert (folder / "answers.jsonl").read_bytes() == before
    assert client.state()["verdicts"][:2] == ["plausible", None]
    assert client.answer(1, "implausible").status == 200


def test_only_this_machine_reaches_it(stranger: Client) -> None:
    for address in ("127.0.0.2", "::1"):
        with pytest.raises(OSError):
            socket.create_connection((address, stranger.server.port), timeout=2).close()


def test_a_port_in_use_gives_the_next(folder: Path, stranger: Client) -> None:
    server = LabelServer(Session(folder, "ada"), stranger.server.port)
    server.server_close()
    assert 0 < server.port - stranger.server.port <= 100


def test_finish_stops_the_server_once_all_is_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers: list[LabelServer] = []
    monkeypatch.setattr("sri_cli.labeling.app.announce", lambda server, _: servers.append(server))
    session = Session(folder, "ada")
    thread = threading.Thread(target=serve, args=(session, 0, False), daemon=True)
    thread.start()
    while not servers:
        thread.join(0.01)
    client = Client(servers[0])
    assert client.enter().status == 303
    assert client.post("/api/finish", {}).status == 409
    session.answer(dict.fromkeys(range(session.total), "plausible"))
    assert client.post("/api/finish", {}).status == 200
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_code_75(folder: Path, number: int) -> None:
    server = Process(folder)
    assert server.url.startswith("http://127.0.0.1:") and "ssh -N -L " in server.lines[2]
    assert server.end(number) == ""
    assert server.process.returncode == Interrupted.exit_code == 75


def test_the_ssh_command_comes_first_only_over_ssh(
    stranger: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sri_cli.labeling.app.far_from_browser", lambda _: True)
    monkeypatch.setenv("SSH_CONNECTION", "a b c d")
    announce(stranger.server, False)
    monkeypatch.delenv("SSH_CONNECTION")
    announce(stranger.server, False)
    lines = [line for line in capsys.readouterr().err.splitlines() if "ssh -N -L " in line]
    assert [line.startswith("first, ") for line in lines] == [True, False]


def test_a_browser_needs_a_screen() -> None:
    assert far_from_browser({"SSH_CONNECTION": "a b c d", "DISPLAY": "localhost:10.0"})
    assert not far_from_browser({"DISPLAY": ":0"})
    assert not far_from_browser({"WAYLAND_DISPLAY": "wayland-0"})


def test_what_a_browser_prints_stays_out_of_the_result(
    stranger: Client,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    browser, called = tmp_path / "browser", tmp_path / "called"
    browser.write_text(f"#!/bin/sh\necho opened\ntouch {called}\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    announce(stranger.server, True)
    until = time.monotonic() + 60
    while not called.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert capfd.readouterr().out == ""
