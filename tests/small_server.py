"""A local web server that serves one file, as well or as badly as a test needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Answer"], None]


class FileServer(ThreadingHTTPServer):
    """Serves `data` with ranges; `script` holds what to do at the first requests instead."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data = data
        self.script: list[Behaviour] = []
        self.otherwise: Behaviour = Answer.serve  # when the script is done
        self.ranges: list[str | None] = []  # requested, request by request
        self.sent: list[int] = []  # bytes of the file, request by request
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/towers.h5"

    def handle_error(self, *_: object) -> None:
        """Clients that disconnect are part of the tests."""


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.ranges.append(self.headers["Range"])
        server.sent.append(0)
        behaviour = server.script.pop(0) if server.script else server.otherwise
        behaviour(self)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def serve(
        self,
        *,
        most: int | None = None,
        length: int | None = None,
        shift: int = 0,
        ranged: bool = True,
        keep_open: bool = False,
    ) -> None:
        """The file or the requested part. `most`: cut after so many bytes; `length`: the announced
        length; `shift`: bytes by which the part begins too late."""
        data, server = self.server.data, self.server
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) + shift if match and ranged else 0
        if match and ranged and start >= len(data):
            self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[start:]
        headers = {"Content-Length": str(len(body) if length is None else length)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, headers)
        body = body if most is None else body[:most]
        server.sent[-1] = len(body)
        self.wfile.write(body)
        if keep_open:
            self.wfile.flush()
            server.released.wait(10)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def serves(**how: object) -> Behaviour:
    """The file, with these options of `Answer.serve`."""
    return lambda answer: answer.serve(**how)


def answers(status: int, **headers: str) -> Behaviour:
    """Only a status and headers; underscores stand for hyphens."""
    named = {key.replace("_", "-"): text for key, text in headers.items()}
    return lambda answer: answer.answer(status, named)


def hangs(answer: Answer) -> None:
    """No answer."""
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
