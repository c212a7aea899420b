"""The labelling page as an application: who is let in, the page itself, pictures by number.

Everything that leaves here is the same for all pictures but their pixels: no name, no size of a
file and no cache tells which model a picture is of.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import resources

import numpy as np
from flask import Flask, Response, abort, redirect, render_template, request
from numpy.typing import NDArray
from PIL import Image
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as Reply

from sri_cli.errors import SriError
from sri_cli.labeling.access import HEADERS, RESTARTED, Access
from sri_cli.labeling.api import add_api, as_json
from sri_cli.labeling.bodies import MOST_AT_ONCE
from sri_cli.labeling.keys import KEYS
from sri_cli.labeling.session import DEFINITION, Session

MOST_BYTES = 16 * 1024  # of a request; twenty answers take 1,500
FILES = {  # what needs no cookie: the page's own code and looks
    "page.js": "text/javascript",
    "single.js": "text/javascript",
    "grid.js": "text/javascript",
    "talk.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}
SIGNS = {"ArrowLeft": "←", "ArrowRight": "→"}  # of keys with long names
DOES = {
    "plausible": "plausible",
    "implausible": "not plausible",
    "unsure": "unsure",
    "undo": "take back the last answer; in the grid, all that were saved together",
    "back": "look at the picture before",
    "forward": "look at the picture after",
    "zoom": "twice as large, and back; arrows then move the picture",
    "grid": "twenty pictures at a time, and back",
    "examples": "simulated examples",
    "help": "this help",
}


def make_app(
    session: Session, access: Access, finish: Callable[[], None], say: Callable[[str], None]
) -> Flask:
    """The application of one session. `finish` is called when the rater is done, after the
    answer to that request was sent; `say` takes a line for the terminal."""
    app = Flask(__name__, static_folder=None, template_folder="page")
    app.config.update(MAX_CONTENT_LENGTH=MOST_BYTES, TRUSTED_HOSTS=access.hosts)
    _add_guards(app, access)
    _add_refusals(app, say)
    _add_page(app, session, access)
    _add_pictures(app, session)
    add_api(app, session, finish)
    return app


def png(picture: NDArray[np.uint8]) -> bytes:
    """Picture [H,W,3] as a file without metadata, not compressed: all are of the same length."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _add_guards(app: Flask, access: Access) -> None:
    @app.before_request
    def guard() -> None:
        # TRUSTED_HOSTS looks at the name alone; another port of it is another site.
        if not access.trusts_host(request.headers.get("Host")):
            abort(400, f"the address must begin with http://{access.hosts[0]}/")
        if request.method not in ("GET", "HEAD") and not access.trusts_writer(request.headers):
            abort(403, "the request comes from another page")
        if request.endpoint in ("page", "file"):
            return
        if request.headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            abort(403, "the request comes from another page")
        if not access.knows(request.cookies.get(access.cookie_name)):
            abort(403, RESTARTED)

    @app.after_request
    def dress(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response


def _add_refusals(app: Flask, say: Callable[[str], None]) -> None:
    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Reply:
        words, code = error.description or error.name, error.code or 500
        if request.path == "/":
            return Response(render_template("refused.html", words=words), code)
        return as_json({"error": words}, code)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Reply:
        words = error.message if isinstance(error, SriError) else f"{type(error).__name__}: {error}"
        say(words)
        return as_json({"error": words}, 500)


def _add_page(app: Flask, session: Session, access: Access) -> None:
    examples = [(sound, why) for _, sound, why in session.examples()]
    words = {
        "rater": session.rater,
        "total": session.total,
        "definition": DEFINITION,
        "examples": examples,
        "at_once": MOST_AT_ONCE,
        "keys": KEYS,
        "shortcuts": [
            ([SIGNS.get(key, key) for key in KEYS[deed]], does) for deed, does in DOES.items()
        ],
    }

    @app.get("/", provide_automatic_options=False)
    def page() -> Reply | str:
        if "token" in request.args:
            return _exchange(access, request.args["token"])
        if access.knows(request.cookies.get(access.cookie_name)):
            return render_template("index.html", **words)
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # The address was clicked in another site's page (a terminal in the browser, say):
            # the cookie just set is withheld from this redirect. Our own page may go on.
            return render_template("onward.html")
        abort(403, RESTARTED)

    @app.get("/<name>", provide_automatic_options=False)
    def file(name: str) -> Reply:
        if name not in FILES:
            abort(404)
        body = (resources.files("sri_cli.labeling") / "page" / name).read_bytes()
        return Response(body, mimetype=FILES[name])


def _exchange(access: Access, token: str) -> Reply:
    """A cookie for the token, which a redirect takes out of the address."""
    if not access.takes(token):
        abort(403, RESTARTED)
    response = redirect("/", 303)
    response.set_cookie(
        access.cookie_name, access.cookie, path="/", httponly=True, samesite="Strict"
    )
    return response


def _add_pictures(app: Flask, session: Session) -> None:
    examples = [picture for picture, _, _ in session.examples()]

    @app.get("/pictures/<int:place>.png", provide_automatic_options=False)
    def picture(place: int) -> Reply:
        if place >= session.total:
            abort(404)
        return Response(png(session.picture(place)), mimetype="image/png")

    @app.get("/examples/<int:number>.png", provide_automatic_options=False)
    def example(number: int) -> Reply:
        if number >= len(examples):
            abort(404)
        return Response(png(examples[number]), mimetype="image/png")
