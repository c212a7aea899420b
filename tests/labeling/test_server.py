"""The labelling server, over HTTP: what it keeps and does not tell, how it starts and stops."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from sri_cli.errors import Interrupted, SriError
from sri_cli.labeling.app import png
from sri_cli.labeling.server import far_from_browser, listen, serve, tunnel
from sri_cli.labeling.session import VERDICTS, Session, open_session
from tests.small_client import Client, Process, answers_on_disk, labelling

OpenAs = Callable[[str], Session]
SECRETS = (b"secret-", b"weights-", b"catch", b"floating", b"gapped", b"m0-", b"m1-")


def test_answers_are_on_disk_when_they_are_acknowledged(
    client: Client, session_folder: Path
) -> None:
    assert client.state()["next"] == 0 and client.state()["seconds_left"] is None
    for place, verdict in enumerate(VERDICTS):
        reply = client.answer(place, verdict)
        assert reply.status == 200 and reply.json["next"] == place + 1
        # whoever opens the session now finds it
        assert open_session(session_folder, "ada").verdicts()[place] == verdict
    assert reply.json["verdicts"] == [*VERDICTS, *[None] * 12]
    assert reply.json["seconds_left"] == pytest.approx(12 * 1.5)


def test_a_stale_tab_changes_nothing_and_learns_what_stands(
    client: Client, session_folder: Path
) -> None:
    client.answer(4, "implausible")
    reply = client.answer(4, "plausible")  # this tab saw no answer
    assert reply.status == 409
    assert reply.json["stale"] == [4] and reply.json["verdicts"][4] == "implausible"
    assert answers_on_disk(session_folder) == 1
    assert client.answer(4, "plausible", expected="implausible").status == 200
    assert client.state()["verdicts"][4] == "plausible"


def test_an_answer_sent_twice_is_kept_once(client: Client, session_folder: Path) -> None:
    """The reply to the first was lost, and the rater pressed "Try again"."""
    assert client.answer(2, "unsure").status == client.answer(2, "unsure").status == 200
    assert answers_on_disk(session_folder) == 1


def test_twenty_at_once_keep_what_another_tab_said(client: Client, session_folder: Path) -> None:
    client.answer(1, "implausible")
    client.answer(2, "plausible")
    one = {"verdict": "plausible", "expected": None}
    together = [{"place": place, **one} for place in range(10)]
    reply = client.post("/api/answers", {"answers": together, "seconds": 0.5})
    assert reply.status == 409 and reply.json["stale"] == [1]
    kept = ["plausible", "implausible", *["plausible"] * 8, *[None] * 5]
    assert open_session(session_folder, "ada").verdicts() == kept
    assert answers_on_disk(session_folder) == 10


def test_undo_takes_back_what_the_page_has_seen_and_no_more(client: Client) -> None:
    for place in range(5):
        client.answer(place, "plausible")
    version = client.state()["version"]
    reply = client.post("/api/undo", {"count": 1, "version": version})
    assert reply.status == 200 and reply.json["undone"] == [4] and reply.json["next"] == 4
    # a second tab that has not seen it
    stale = client.post("/api/undo", {"count": 1, "version": version})
    assert stale.status == 409 and stale.json["undone"] == [] and stale.json["next"] == 4
    lot = client.post("/api/undo", {"count": 20, "version": stale.json["version"]})
    assert lot.json["undone"] == [3, 2, 1, 0] and lot.json["next"] == 0
    none = client.post("/api/undo", {"count": 1, "version": lot.json["version"]})
    assert none.status == 200 and none.json["undone"] == []


def test_many_tabs_of_two_servers_lose_and_double_nothing(
    client: Client, session_folder: Path, open_as: OpenAs
) -> None:
    replies: list[tuple[int, str, int]] = []

    def tab(server: Client, verdict: str) -> None:
        for place in range(15):
            replies.append((place, verdict, server.answer(place, verdict).status))

    with labelling(open_as("ada")) as other:
        other.enter()
        pairs = zip((client, client, other), VERDICTS, strict=True)
        tabs = [threading.Thread(target=tab, args=pair) for pair in pairs]
        for one in tabs:
            one.start()
        for one in tabs:
            one.join()
        assert other.state() == client.state()
    won = {place: verdict for place, verdict, status in replies if status == 200}
    assert len(replies) == 45 and sorted(won) == list(range(15))
    assert sum(status == 200 for *_, status in replies) == 15, "one tab wins each picture"
    assert open_session(session_folder, "ada").verdicts() == [won[place] for place in range(15)]
    assert answers_on_disk(session_folder) == 15


def test_a_full_disk_is_told_and_nothing_counts(
    client: Client,
    session_folder: Path,
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    client.answer(0, "plausible")
    with largest_file((session_folder / "answers.jsonl").stat().st_size + 50):
        reply = client.answer(1, "implausible")
    assert reply.status == 500 and "could not write" in reply.json["error"]
    assert client.said == [reply.json["error"]]
    assert client.state()["verdicts"][:2] == ["plausible", None]
    assert client.answer(1, "implausible").status == 200


def test_pictures_tell_nothing_but_their_pixels(client: Client, open_as: OpenAs) -> None:
    import io

    from PIL import Image

    session = open_as("ada")
    replies = [client.get(f"/pictures/{place}.png") for place in range(session.total)]
    for place, reply in enumerate(replies):
        shown = np.asarray(Image.open(io.BytesIO(reply.body)))
        np.testing.assert_array_equal(shown, session.picture(place))
        assert _chunks(reply.body) == ["IHDR", "IDAT", "IEND"]
    sizes = {len(reply.body) for reply in replies}
    flat = np.zeros((16, 16, 3), np.uint8)  # compresses to nothing
    assert sizes == {len(png(flat))}, "what a picture shows decides the size of its file"
    told = [{k: v for k, v in reply.headers.items() if k != "Date"} for reply in replies]
    assert all(headers == told[0] for headers in told)


def _chunks(png: bytes) -> list[str]:
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + data)
        found.append(kind.decode())
        at += 12 + length
    return found


def test_no_reply_names_a_model_or_a_catch_trial(client: Client) -> None:
    replies = [client.get(path) for path in ("/", "/api/state", "/nothing")]
    replies += [client.answer(place, "plausible") for place in range(15)]
    replies += [client.post("/api/undo", {"count": 2, "version": client.state()["version"]})]
    for reply in replies:
        everything = bytes(reply.headers) + reply.body
        assert [secret for secret in SECRETS if secret in everything] == []


def test_only_this_machine_reaches_it(stranger: Client) -> None:
    for address in ("127.0.0.2", "::1"):
        with pytest.raises(OSError):
            socket.create_connection((address, stranger.port), timeout=2).close()


def test_a_taken_port_gives_the_next_and_says_so(open_as: OpenAs) -> None:
    with listen(0) as taken, listen(0) as free:
        port = taken.getsockname()[1]
        free.close()
        with listen(port) as other:
            assert port < other.getsockname()[1] <= port + 100
    said = _served_until_done(open_as("ada"), port=None)
    assert any("is taken, so it is" in line for line in said)


def test_ports_that_are_none(open_as: OpenAs) -> None:
    for port in (-1, 65536):
        with pytest.raises(SriError, match="there is no port"):
            serve(open_as("ada"), port, False, print)


def _served_until_done(session: Session, port: int | None) -> list[str]:
    """Judge all over HTTP and press "Finish"; what the terminal was told. None: a taken port."""
    said: list[str] = []
    with listen(0) as taken:
        asked = taken.getsockname()[1] if port is None else port
        server = threading.Thread(
            target=serve, args=(session, asked, False, said.append), daemon=True
        )
        server.start()
        _wait_for(lambda: any("Ctrl-C" in line for line in said))
    url = next(line for line in said if "token=" in line).removeprefix("open ")
    access = type("Seen", (), {"url": url, "port": int(url.split(":")[2].split("/")[0])})
    client = Client(access)  # type: ignore[arg-type]
    assert client.enter().status == 303
    assert client.post("/api/finish", {}).status == 409, "pictures are left"
    for place in range(session.total):
        client.answer(place, "plausible")
    assert client.post("/api/finish", {}).status == 200
    server.join(10)
    assert not server.is_alive()
    return said


def _wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    import time

    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_words_and_75(session_folder: Path, number: int) -> None:
    server = Process(session_folder)
    rest, errors = server.end(number)
    assert server.lines[0] == "ada: 0 of 15 pictures are judged\n"
    assert server.lines[1].startswith("open http://127.0.0.1:")
    assert "ssh -N -L " in server.lines[2]
    assert rest == "0 of 15 pictures are judged; the same command goes on with the others\n"
    assert server.process.returncode == Interrupted.exit_code == 75
    assert errors == "", "no chatter of the server"


def test_where_there_is_no_browser() -> None:
    assert far_from_browser({"SSH_CONNECTION": "a b c d", "DISPLAY": "localhost:10.0"})
    assert far_from_browser({}) == sys.platform.startswith("linux")
    assert not far_from_browser({"DISPLAY": ":0"})
    assert not far_from_browser({"WAYLAND_DISPLAY": "wayland-0"})
    assert tunnel(8765).startswith("ssh -N -L 8765:127.0.0.1:8765 ")
