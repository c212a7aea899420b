"""A client of the labelling server that sends what a test asks, and no more."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sri_cli.labeling.access import Access
from sri_cli.labeling.server import running
from sri_cli.labeling.session import Session


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Client:
    """A browser that has exchanged its token, or has not (`cookie` empty)."""

    access: Access
    cookie: str = ""
    said: list[str] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return self.access.port

    @property
    def own(self) -> dict[str, str]:
        """The headers of a request that our own page makes."""
        headers = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}"}
        return {**headers, "Sec-Fetch-Site": "same-origin", "Cookie": self.cookie}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        without: tuple[str, ...] = (),
        **headers: str,
    ) -> Reply:
        """`headers` are laid over our own page's (`Sec_Fetch_Site` is Sec-Fetch-Site)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in {**self.own, **named}.items() if name not in without}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None and "Transfer-Encoding" not in sent:
            sent.setdefault("Content-Length", str(len(body)))
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        try:
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, without: tuple[str, ...] = (), **headers: str) -> Reply:
        headers = {"Content_Type": "application/json", **headers}
        return self.ask("POST", path, json.dumps(body).encode(), without, **headers)

    def answer(self, place: int, verdict: str, expected: str | None = None) -> Reply:
        one = {"place": place, "verdict": verdict, "expected": expected}
        return self.post("/api/answers", {"answers": [one], "seconds": 1.5})

    def state(self) -> dict[str, Any]:
        return self.get("/api/state").json

    def enter(self, url: str | None = None) -> Reply:
        """Exchange the token of the printed address for a cookie."""
        parts = urlsplit(url or self.access.url)
        reply = self.get(f"{parts.path}?{parts.query}", Sec_Fetch_Site="none")
        self.cookie = (reply.headers["Set-Cookie"] or "").partition(";")[0]
        return reply

    def raw(self, data: bytes) -> bytes:
        """What the server answers to these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def labelling(session: Session, port: int = 0) -> Iterator[Client]:
    """A running server of `session`, and a client that was not let in yet."""
    finished, said = threading.Event(), []
    with running(session, port, finished.set, said.append) as access:
        yield Client(access, said=said, finished=finished)


SERVE = """
import sys
from pathlib import Path
from sri_cli.errors import Interrupted
from sri_cli.labeling.server import serve
from sri_cli.labeling.session import open_session
session = open_session(Path(sys.argv[1]), "ada")
try:
    serve(session, int(sys.argv[2]), False, lambda line: print(line, flush=True))
except Interrupted as stop:
    print(stop.message, stop.hint, sep="; ")
    sys.exit(stop.exit_code)
"""


class Process:
    """A server in a process of its own, used over ssh, which can be killed; `lines` it said."""

    def __init__(self, session_folder: Path, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(session_folder), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"},
        )
        assert self.process.stdout
        self.lines = [self.process.stdout.readline() for _ in range(4)]
        self.url = self.lines[1].removeprefix("open ").strip()
        self.port = int(urlsplit(self.url).port or 0)

    def end(self, number: int) -> tuple[str, str]:
        """Send it a signal and wait; what it still said, and to stderr."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=20)


def answers_on_disk(session_folder: Path) -> int:
    """How many lines a session's file holds."""
    file = session_folder / "answers.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0
