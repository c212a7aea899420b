"""A small session on disk for any rater, its server, and a client that sends what a test says."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from sri_cli.labeling.app import LabelServer
from sri_cli.labeling.session import Item, Model, Session, image_hash, write_session
from tests.small_cli import ENVIRONMENT, start

SIDE = 16


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

    server: LabelServer
    cookie: str = ""

    @property
    def url(self) -> str:
        """The address as it is printed."""
        return self.server.url(self.server.token)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        without: tuple[str, ...] = (),
        **headers: str,
    ) -> Reply:
        """`headers` replace those of the page itself (`Sec_Fetch_Site` is Sec-Fetch-Site)."""
        host = self.server.hosts[0]
        sent = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        sent |= {"Cookie": self.cookie, "Content-Type": "application/json"}
        sent |= {"X-Session": self.server.session.id}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None and "Transfer-Encoding" not in sent:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            if name not in without:
                connection.putheader(name, value)
        connection.endheaders(body)
        try:
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any, without: tuple[str, ...] = (), **headers: str) -> Reply:
        return self.send("POST", path, json.dumps(body).encode(), without, **headers)

    def answer(self, position: int, verdict: str, version: int | None = None) -> Reply:
        version = self.state()["version"] if version is None else version
        answers = [{"position": position, "verdict": verdict}]
        body = {"answers": answers, "seconds": 1.5, "version": version, "mode": "single"}
        return self.post("/api/answers", body)

    def state(self) -> dict[str, Any]:
        return self.get("/api/state").json

    def enter(self, url: str | None = None) -> Reply:
        """Exchange the token of the printed address for a cookie."""
        parts = urlsplit(url or self.url)
        reply = self.get(f"{parts.path}?{parts.query}", Sec_Fetch_Site="none")
        self.cookie = (reply.headers["Set-Cookie"] or "").partition(";")[0]
        return reply

    def raw(self, data: bytes) -> bytes:
        """The response to exactly these bytes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def serving(session: Session, port: int = 0) -> Iterator[Client]:
    """A running server of `session`, and a client without its token."""
    server = LabelServer(session, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        thread.join()


SERVE = """
import sys
from pathlib import Path
from sri_cli.errors import Interrupted
from sri_cli.labeling.app import serve
from sri_cli.labeling.session import Session
try:
    serve(Session(Path(sys.argv[1]), "ada"), int(sys.argv[2]), False)
except Interrupted as stop:
    sys.exit(stop.exit_code)
"""


class Process:
    """A server in a process of its own that can be killed, as used over ssh; `lines` it printed."""

    def __init__(self, session_folder: Path, port: int = 0) -> None:
        over_ssh = {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}
        self.process = start(
            *(str(session_folder), str(port)),
            code=SERVE,
            env=os.environ | ENVIRONMENT | over_ssh,
            stdout=None,  # with one pipe alone communicate() returns what readline() has buffered
        )
        self.lines = [self.process.stderr.readline() for _ in range(4)]
        self.url = self.lines[1].removeprefix("open ").strip()
        self.port = int(urlsplit(self.url).port or 0)

    def end(self, number: int) -> str:
        """Send it a signal and wait; what it printed after that."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=20)[1]


def answers_on_disk(folder: Path) -> int:
    """How many lines a session's file holds."""
    file = folder / "answers.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def small_session(
    labels: Path,
    num: int = 6,
    seed: int = 0,
    models: int = 2,
    catch: int = 3,
    subjects: Mapping[int, Model] | None = None,
    side: int = SIDE,
) -> Path:
    """Write a session of noise; models are called secret-0, secret-1 unless `subjects` has them."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (models * num + catch, side, side, 3), dtype=np.uint8)
    items = [
        Item(id=f"m{i // num}-{i % num}", sha256=image_hash(image), index=i % num, model=i // num)
        for i, image in enumerate(images[: models * num])
    ]
    for i, image in enumerate(images[models * num :]):
        kind = ("real", "floating", "gapped")[i % 3]
        item = {"id": f"catch-{i}", "index": i, "model": None, "catch": kind}
        items.append(Item(**item, sha256=image_hash(image), plausible=kind == "real"))
    named = subjects or {i: secret_model(i, seed) for i in range(models)}
    weights = [named[i].weights for i in range(models)]
    return write_session(
        labels,
        {"weights": weights, "seed": seed, "num": num, "catch": catch, "data": None},
        [named[i] for i in range(models)],
        items,
        images,
    )


def secret_model(number: int, seed: int) -> Model:
    weights, run = f"weights-{number}", f"runs/secret-{number}"
    subject = {"kind": "run", "run": run, "model": weights}
    facts = {"name": f"secret-{number}", "weights": weights, "subject": subject, "seed": seed}
    return Model(**facts, slots=5, temperature=1.0)


def judge(folder: Path, rater: str, verdict: Callable[[Item], str]) -> Session:
    """Answer every image; those that `verdict` returns "" for are left."""
    session = Session(folder, rater)
    given = {at: verdict(session._items[at]) for at in range(session.total)}
    session.answer({at: one for at, one in given.items() if one}, 1.0)
    return session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a session: 15 images."""
    return small_session(tmp_path / "labels")


@pytest.fixture
def stranger(folder: Path) -> Iterator[Client]:
    """A client of a running server of that session, without the token."""
    with serving(Session(folder, "ada")) as client:
        yield client


@pytest.fixture
def client(stranger: Client) -> Client:
    """One that has exchanged its token."""
    assert stranger.enter().status == 303
    return stranger
