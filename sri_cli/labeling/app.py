"""The labelling page: a Flask app for one session and rater, and its server on 127.0.0.1.

Any web page that the rater has open can send requests to 127.0.0.1, and any program on the
machine can connect to it. Therefore
- each start makes a new random token; the printed address carries it, and the browser exchanges
  it for a signed cookie;
- the Host header must be exact, port included (DNS rebinding);
- requests that write must come from the page itself, by Origin and Sec-Fetch-Site (CSRF).

Responses are the same for all images but for the pixels: images are numbered by position, have no
metadata, and PNG files of one size in bytes.
"""

from __future__ import annotations

import errno
import getpass
import hmac
import io
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
from flask import Flask, Response, abort, jsonify, redirect, render_template, request
from flask import session as cookie
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from sri_cli.errors import Interrupted, SriError
from sri_cli.labeling.session import DEFINITION, Session
from sri_cli.signals import stop_on_signal

ADDRESS = "127.0.0.1"
PORT, PORTS_TRIED = 8765, 100
GRID_IMAGES = 20  # answers in one request
MOST_BYTES = 16 * 1024  # in a request
NOT_VALID = (
    "This address is not valid any more: each start of the server makes a new one. Open the"
    " address that `sri label-sacc` printed last. All answers are saved."
)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Body(BaseModel):
    """JSON from the page; `version` is that of the state it shows."""

    model_config = ConfigDict(strict=True, extra="forbid")
    version: int


class Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    position: Annotated[int, Field(ge=0)]
    verdict: Literal["plausible", "implausible", "unsure"]


class Answers(Body):
    answers: Annotated[list[Answer], Field(min_length=1, max_length=GRID_IMAGES)]
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None  # for each


class Undo(Body):
    count: Annotated[int, Field(ge=1, le=GRID_IMAGES)]


class LabelServer(ThreadedWSGIServer):
    """Serves `session` at `port` or the next free one (0: any), a thread per request.

    `url` is the address with its token; `finished` is set once the rater pressed "Finish".
    """

    def __init__(self, session: Session, port: int) -> None:
        self.session = session
        self.finished = threading.Event()
        self.token, self.token_once = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with listen(port) as listener:
            port = listener.getsockname()[1]
            self.hosts = [f"{ADDRESS}:{port}", f"localhost:{port}"]
            super().__init__(ADDRESS, port, make_app(self), _Handler, fd=listener.fileno())

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/?token={self.token}"

    @property
    def url_once(self) -> str:
        """Valid for one visit: the process list shows the address that opens a browser."""
        return f"http://{self.hosts[0]}/?token={self.token_once}"

    def accepts(self, token: str) -> bool:
        """Whether `token` is that of `url`, or that of `url_once` on its first visit."""
        for own in (self.token, self.token_once):
            if hmac.compare_digest(token.encode("utf-8", "replace"), own.encode()):
                if own == self.token_once:
                    self.token_once = secrets.token_urlsafe(32)
                return True
        return False

    def finish(self) -> None:
        """Stop serving; returns at once."""
        self.finished.set()
        threading.Thread(target=self.shutdown, daemon=True).start()


class _Handler(WSGIRequestHandler):
    timeout = 60  # seconds for a request to arrive

    def log(self, *_: Any) -> None:
        """Requests are not logged."""


def serve(session: Session, port: int | None, open_browser: bool) -> None:
    """Serve the page until all images are judged and the rater presses "Finish".

    Args:
        port: None: PORT or the next free one.

    Raises:
        Interrupted: stopped by a signal with images left. All answers are on disk by then.
        SriError: no free port.
    """
    with stop_on_signal() as stop:
        server = LabelServer(session, PORT if port is None else port)
        announce(server, open_browser)
        with suppress(KeyboardInterrupt):
            stop.at_once = True  # there is nothing to finish first
            if stop.name is None:
                server.serve_forever(0.05)
        server.server_close()
    left = session.verdicts().count(None)
    if left:
        raise Interrupted(
            f"{session.total - left} of {session.total} images are judged",
            "run the same command again to continue",
        )


def announce(server: LabelServer, open_browser: bool) -> None:
    """Print the address, and open it where there is a browser."""
    session, remote = server.session, far_from_browser(os.environ)
    judged = session.total - session.verdicts().count(None)
    lines = [
        f"{session.rater}: {judged} of {session.total} images are judged",
        f"open {server.url}",
    ]
    if remote:
        lines.append(f"first, on your own computer: {tunnel(server.port)}")
    lines.append("each answer is saved at once; Ctrl-C stops, the same command continues")
    print("\n".join(lines), file=sys.stderr, flush=True)
    if open_browser and not remote:
        threading.Thread(target=webbrowser.open, args=(server.url_once,), daemon=True).start()


def say(line: str) -> None:
    """A line for the terminal."""
    print(line, file=sys.stderr, flush=True)


def listen(port: int) -> socket.socket:
    """A listening socket at `port` or the next free one; 0: any."""
    last = min(port + PORTS_TRIED, 65_535) if port else 0
    for candidate in range(port, last + 1):
        try:
            return socket.create_server((ADDRESS, candidate), backlog=128)
        except PermissionError as error:
            raise SriError(f"port {candidate} is reserved", f"--port {PORT}") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise SriError(f"ports {port} to {last} are all in use", "--port 0 takes any free port")


def far_from_browser(environment: Mapping[str, str]) -> bool:
    """Whether this machine has no screen or is used over ssh."""
    if "SSH_CONNECTION" in environment:
        return True
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform.startswith("linux") and not any(environment.get(one) for one in screens)


def tunnel(port: int) -> str:
    """The command that forwards the page to the rater's own computer."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "USER"
    return f"ssh -N -L {port}:{ADDRESS}:{port} {user}@{socket.gethostname()}"


def make_app(server: LabelServer) -> Flask:
    """The page and its API for `server.session`."""
    app = Flask(__name__, static_folder="page/static", template_folder="page")
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),  # new at each start: older cookies are refused
        # All ports of a host share their cookies: two servers need two names. Lax, not Strict:
        # the address may be clicked in a terminal that is itself a web page.
        SESSION_COOKIE_NAME=f"sri-label-{server.hosts[0].rpartition(':')[2]}",
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=MOST_BYTES,
    )
    _add_guards(app, server)
    _add_page(app, server)
    _add_api(app, server)
    return app


def _add_guards(app: Flask, server: LabelServer) -> None:
    @app.before_request
    def guard() -> None:
        host, site = request.headers.get("Host"), request.headers.get("Sec-Fetch-Site")
        writes = request.method not in ("GET", "HEAD")
        is_ours = site in (None, "same-origin") or (site == "none" and not writes)
        if host not in server.hosts:
            abort(400, f"the address must begin with http://{server.hosts[0]}/")
        if writes and request.headers.get("Origin") != f"http://{host}":
            abort(403, "the request comes from another page")
        if request.endpoint not in ("page", "static"):
            if not is_ours:
                abort(403, "the request comes from another page")
            if "rater" not in cookie:
                abort(403, NOT_VALID)

    @app.after_request
    def close(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response | str, int]:
        message, code = error.description or error.name, error.code or 500
        if request.path == "/":
            return render_template("refused.html", message=message), code
        return jsonify(error=message), code

    @app.errorhandler(SriError)
    def fail(error: SriError) -> tuple[Response, int]:
        say(error.message)
        return jsonify(error=error.message), 500


def _add_page(app: Flask, server: LabelServer) -> None:
    session = server.session
    examples = session.examples()

    @app.get("/")
    def page() -> Any:
        if "token" in request.args:
            if not server.accepts(request.args["token"]):
                abort(403, NOT_VALID)
            cookie["rater"] = session.rater
            return redirect("/", 303)  # takes the token out of the address
        if "rater" not in cookie:
            abort(403, NOT_VALID)
        return render_template(
            "index.html",
            rater=session.rater,
            total=session.total,
            grid_images=GRID_IMAGES,
            definition=DEFINITION,
            examples=[shown for _, shown in examples],
        )

    @app.get("/images/<int:position>.png")
    def image(position: int) -> Response:
        return _png(session.image, position, session.total)

    @app.get("/examples/<int:number>.png")
    def example(number: int) -> Response:
        return _png(lambda i: examples[i][0], number, len(examples))


def _png(image: Callable[[int], NDArray[np.uint8]], number: int, count: int) -> Response:
    if number >= count:
        abort(404)
    return Response(png_bytes(image(number)), mimetype="image/png")


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """Image [S,S,3] as PNG without metadata or compression: all files have the same length."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _add_api(app: Flask, server: LabelServer) -> None:
    """Answers are on disk before the response is sent. 409: the state has changed in another tab;
    nothing was done, and the response has the state as it is."""
    session = server.session

    @app.get("/api/state")
    def state() -> Response:
        return jsonify(session.state())

    @app.post("/api/answers")
    def answers() -> tuple[Response, int]:
        body = _read(Answers)
        verdicts = {one.position: one.verdict for one in body.answers}
        if max(verdicts) >= session.total:
            abort(400, f"position: 0 to {session.total - 1}")
        saved = session.answer(verdicts, body.seconds, body.version)
        return jsonify(session.state()), 200 if saved else 409

    @app.post("/api/undo")
    def undo() -> tuple[Response, int]:
        body = _read(Undo)
        undone = session.undo(body.count, body.version)
        return jsonify(session.state() | {"undone": undone or []}), 409 if undone is None else 200

    @app.post("/api/finish")
    def finish() -> tuple[Response, int]:
        state = session.state()
        response = jsonify(state)
        if None in state["verdicts"]:
            return response, 409
        response.call_on_close(server.finish)  # after the response is sent
        return response, 200


def _read(kind: type[Any]) -> Any:
    """The request's JSON as a `kind`; status 400, 411, 413 or 415 where it is something else."""
    if not request.is_json:
        abort(415)
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        abort(411)  # MAX_CONTENT_LENGTH does not cover chunks
    try:
        return kind.model_validate_json(request.get_data())
    except ValidationError as error:
        first = error.errors()[0]
        abort(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
