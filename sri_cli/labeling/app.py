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
import hmac
import io
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask, Response, abort, jsonify, redirect, render_template, request
from flask import session as cookie
from PIL import Image
from werkzeug.exceptions import HTTPException
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from sri_cli.console import print_line
from sri_cli.errors import Interrupted, SriError
from sri_cli.labeling.session import Images, Session
from sri_cli.signals import stop_on_signal, this_command

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


class LabelServer(ThreadedWSGIServer):
    """Serves `session` at `port` or the next free one (0: any), a thread per request."""

    def __init__(self, session: Session, port: int) -> None:
        self.session = session
        self.token, self.token_once = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with listen(port) as listener:
            port = listener.getsockname()[1]
            self.hosts = [f"{ADDRESS}:{port}", f"localhost:{port}"]
            super().__init__(ADDRESS, port, make_app(self), _Handler, fd=listener.fileno())

    def url(self, token: str) -> str:
        """The address of the page."""
        return f"http://{self.hosts[0]}/?token={token}"

    def accepts(self, token: str) -> bool:
        """Whether the token is right. `token_once` is good for one visit: it opens the browser,
        and the process list shows it."""
        given = token.encode("utf-8", "replace")
        is_once = hmac.compare_digest(given, self.token_once.encode())
        if is_once:
            self.token_once = secrets.token_urlsafe(32)
        return is_once or hmac.compare_digest(given, self.token.encode())


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
            if not stop.received:
                server.serve_forever(0.05)
        server.server_close()
    left = session.verdicts().count(None)
    if left:
        raise Interrupted(
            f"Stopped: {session.total - left} of {session.total} images are judged; every answer is"
            " saved.",
            f"Resume with: {this_command()}",
        )


def announce(server: LabelServer, open_browser: bool) -> None:
    """Print the address, and open it where there is a browser."""
    session, remote = server.session, far_from_browser(os.environ)
    judged, url = session.total - session.verdicts().count(None), server.url(server.token)
    lines = [f"{session.rater}: {judged} of {session.total} images are judged", f"open {url}"]
    if remote:
        host = f"{os.environ.get('USER', 'USER')}@{socket.gethostname()}"
        forward = f"{server.port}:{ADDRESS}:{server.port}"
        # Elsewhere (in a container, on WSL) the address may work as it is.
        when = "if your browser is on another computer, first there"
        when = "first, on your own computer" if "SSH_CONNECTION" in os.environ else when
        lines.append(f"{when}: ssh -N -L {forward} {host}")
    lines.append("each answer is saved at once; Ctrl-C stops, the same command continues")
    print_line("\n".join(lines))
    if open_browser and not remote:
        # In a process of its own: browsers print to stdout, where the result goes.
        command = [sys.executable, "-P", "-m", "webbrowser", server.url(server.token_once)]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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


def make_app(server: LabelServer) -> Flask:
    """The page and its API for `server.session`."""
    app = Flask(__name__, static_folder="page/static", template_folder="page")
    app.config.update(
        SECRET_KEY=secrets.token_bytes(32),  # new at each start: older cookies are refused
        # All ports of a host share their cookies: two servers need two names. Lax, not Strict:
        # the address may be clicked in a terminal that is itself a web page.
        SESSION_COOKIE_NAME=f"sri-label-{server.hosts[0].rpartition(':')[2]}",
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=MOST_BYTES,  # of a body in chunks no more than this is read
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
            if writes and request.headers.get("X-Session") != server.session.id:
                abort(403, NOT_VALID)

    @app.after_request
    def close(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Response | str, int, dict[str, str]]:
        message, code = error.description or error.name, error.code or 500
        if request.path == "/":
            return message, code, {"Content-Type": "text/plain; charset=utf-8"}
        return jsonify(error=message), code, {}

    @app.errorhandler(SriError)
    def fail(error: SriError) -> tuple[Response, int]:
        print_line(error.message)
        return jsonify(error=error.message), 500


def _add_page(app: Flask, server: LabelServer) -> None:
    session = server.session

    @app.get("/")
    def page() -> Any:
        if "token" in request.args:
            if not server.accepts(request.args["token"]):
                abort(403, NOT_VALID)
            cookie["rater"] = session.rater
            return redirect("/", 303)  # takes the token out of the address
        if "rater" not in cookie:
            abort(403, NOT_VALID)
        return render_template("index.html", session=session, grid_images=GRID_IMAGES)

    @app.get("/images/<int:position>.png")
    def image(position: int) -> Response:
        if position >= session.total:
            abort(404)
        return Response(png_bytes(session.image(position)), mimetype="image/png")


def png_bytes(image: Images) -> bytes:
    """Image [S,S,3] as PNG without metadata or compression: all files have the same length."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=0)
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
        """{"answers": [{"position": 0, "verdict": "unsure"}], "seconds": 1.5, "version": 0,
        "mode": "grid"}"""
        with bad_request_on_error():
            body = request.get_json()
            verdicts = {one["position"]: one["verdict"] for one in body["answers"]}
            seconds, version, mode = body["seconds"], int(body["version"]), body["mode"]
            saved = session.answer(verdicts, seconds, version, mode)
        return jsonify(session.state()), 200 if saved else 409

    @app.post("/api/undo")
    def undo() -> tuple[Response, int]:
        """{"count": 1, "version": 0}"""
        with bad_request_on_error():
            body = request.get_json()
            undone = session.undo(body["count"], int(body["version"]))
        return jsonify(session.state() | {"undone": undone or []}), 409 if undone is None else 200

    @app.post("/api/finish")
    def finish() -> tuple[Response, int]:
        state = session.state()
        response = jsonify(state)
        if None in state["verdicts"]:
            return response, 409
        response.call_on_close(server.shutdown)  # after the response is sent
        return response, 200


@contextmanager
def bad_request_on_error() -> Iterator[None]:
    """Status 400 for JSON of another form."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        abort(400, f"{type(error).__name__}: {error}")
