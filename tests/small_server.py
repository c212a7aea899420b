"""A web server on this machine that serves one file, as well or as badly as a test asks."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sri_cli.data.download import Remote, download

DATA = random.Random(0).randbytes(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()
INSTEAD = "simulate it: sri prepare towers --from simulate"
Deed = Callable[["Answer"], None]


class FileServer(ThreadingHTTPServer):
    """Serves `data` with ranges; `script` holds what to do at the first requests instead."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data = data
        self.script: list[Deed] = []
        self.otherwise: Deed = Answer.serve  # when the script is done
        self.ranges: list[str | None] = []  # asked for, request by request
        self.sent: list[int] = []  # bytes of the file, request by request
        self.agents: set[tuple[str | None, str | None]] = set()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/towers.h5"

    def handle_error(self, *_: object) -> None:
        """A client that went away is what the tests are about."""


class Answer(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers["Range"])
        server.agents.add((self.headers["User-Agent"], self.headers["Accept-Encoding"]))
        server.sent.append(0)
        deed = server.script.pop(0) if server.script else server.otherwise
        deed(self)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def serve(
        self,
        *,
        most: int | None = None,
        length: int | None = None,
        shift: int = 0,
        ranged: bool = True,
        announced: bool = True,
        keep_open: bool = False,
    ) -> None:
        """The file or the part asked for. `most`: cut after so many bytes; `length`: what to
        announce instead; `shift`: bytes by which the part begins too late."""
        data, server = self.server.data, self.server
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) + shift if match and ranged else 0
        if match and ranged and start >= len(data):
            self.say(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[start:]
        headers: dict[str, str] = {}
        if announced:
            headers["Content-Length"] = str(len(body) if length is None else length)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.say(206 if start else 200, headers)
        body = body if most is None else body[:most]
        server.sent[-1] = len(body)
        self.wfile.write(body)
        if keep_open:
            self.wfile.flush()
            server.released.wait(10)

    def say(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def does(**how: object) -> Deed:
    """Serve in this way."""
    return lambda answer: answer.serve(**how)  # type: ignore[arg-type]


def says(status: int, **headers: str) -> Deed:
    """Answer with this alone; `Retry_After` stands for Retry-After."""
    named = {key.replace("_", "-"): text for key, text in headers.items()}
    return lambda answer: answer.say(status, named)


def hangs(answer: Answer) -> None:
    """Take the question and say nothing."""
    answer.server.released.wait(10)


@contextmanager
def serving(data: bytes) -> Iterator[FileServer]:
    """A running server."""
    server = FileServer(data)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(server: FileServer, path: Path, sha256: str | None = SHA) -> Path:
    """Download the server's file to `path`."""
    return download(Remote(server.url, sha256), path, instead=INSTEAD)


def left(path: Path) -> list[str]:
    """What lies where `path` belongs."""
    return sorted(file.name for file in path.parent.iterdir())
