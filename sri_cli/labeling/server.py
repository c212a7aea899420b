"""The labelling server: 127.0.0.1 only, a thread per request, until the rater is done."""

from __future__ import annotations

import errno
import getpass
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from sri_cli.errors import Interrupted, SriError
from sri_cli.labeling.access import ADDRESS, Access
from sri_cli.labeling.app import make_app
from sri_cli.labeling.session import Session
from sri_cli.signals import stop_on_signal

PORTS_TRIED = 100


def serve(session: Session, port: int, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve the page of `session` until all is judged and the rater presses "Finish".

    `port`: 1 to 65535, the next free one if it is taken, or 0 for any; `say` takes lines for the
    terminal. A signal ends it, too: Interrupted where pictures are left (the same command goes on
    with them). SriError where no port is to be had. Answers are on disk before they are
    acknowledged, so that nothing needs saving here.
    """
    finished = threading.Event()
    with stop_on_signal() as flag, running(session, port, finished.set, say) as access:
        announce(session, access, port, open_browser, say)
        with suppress(KeyboardInterrupt):
            flag.at_once = True  # nothing is in hand
            if flag.name is None:
                finished.wait()
    left = session.verdicts().count(None)
    if left:
        raise Interrupted(
            f"{session.total - left} of {session.total} pictures are judged",
            "the same command goes on with the others",
        )


@contextmanager
def running(
    session: Session, port: int, finish: Callable[[], None], say: Callable[[str], None]
) -> Iterator[Access]:
    """A server of `session` in the background, and what opens it."""
    listener = listen(port)
    access = Access(listener.getsockname()[1])
    try:
        app = make_app(session, access, finish, say)
        server = _Server(ADDRESS, access.port, app, _Handler, fd=listener.fileno())
    finally:
        listener.close()  # the server holds a copy
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield access
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1 at `port` or at the next free one after it."""
    if not 0 <= port <= 65535:
        raise SriError(f"there is no port {port}", "--port 1024 to 65535")
    last = min(port + PORTS_TRIED, 65535) if port else 0
    for candidate in range(port, last + 1):
        try:
            return socket.create_server((ADDRESS, candidate), backlog=128)
        except PermissionError as error:
            raise SriError(f"port {candidate} is not for users", "--port 8765") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise SriError(f"the ports {port} to {last} are all taken", "--port 0 takes any that is free")


def announce(
    session: Session, access: Access, port: int, open_browser: bool, say: Callable[[str], None]
) -> None:
    """Say where the page is, how to reach it from elsewhere, and open it."""
    if port not in (0, access.port):
        say(f"port {port} is taken, so it is {access.port}")
    judged = session.total - session.verdicts().count(None)
    say(f"{session.rater}: {judged} of {session.total} pictures are judged")
    say(f"open {access.url}")
    if away := far_from_browser(os.environ):
        say(f"on your own computer first: {tunnel(access.port)}")
    say("each answer is saved at once; Ctrl-C stops, the same command goes on")
    if open_browser and not away:
        threading.Thread(target=_open, args=(access.url_for_browser(),), daemon=True).start()


def far_from_browser(environment: Mapping[str, str]) -> bool:
    """Is this a machine without a screen, or one that is used over ssh?"""
    if "SSH_CONNECTION" in environment:
        return True
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform.startswith("linux") and not any(environment.get(one) for one in screens)


def tunnel(port: int) -> str:
    """The command that brings the page to the rater's own computer, at the same port."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "USER"
    return f"ssh -N -L {port}:{ADDRESS}:{port} {user}@{socket.gethostname()}"


def _open(url: str) -> None:
    with suppress(webbrowser.Error, OSError):  # the address is printed
        webbrowser.open(url)


class _Handler(WSGIRequestHandler):
    """Says nothing: neither of requests to the terminal nor of itself to the browser."""

    timeout = 60  # seconds for a request to arrive

    def log(self, type: str, message: str, *args: Any) -> None:
        """Quiet."""

    def version_string(self) -> str:
        return "sri"


class _Server(ThreadedWSGIServer):
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A browser that went away is no news; what the app did wrong it says itself."""
