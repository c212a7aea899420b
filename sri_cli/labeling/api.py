"""What the page asks and tells in JSON: the state of the session, answers, undo, the end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, json

from sri_cli.labeling.bodies import read_answers, read_body, read_undo
from sri_cli.labeling.session import Session


def add_api(app: Flask, session: Session, finish: Callable[[], None]) -> None:
    """The routes of `session`. What they answer tells the same of all pictures.

    An answer is on disk before it is acknowledged. 409: another tab was faster; the state that
    comes with it says how things stand.
    """
    one_at_a_time = threading.Lock()  # comparing and undoing are one step

    @app.get("/api/state", provide_automatic_options=False)
    def state() -> Response:
        return as_json(state_of(session))

    @app.post("/api/answers", provide_automatic_options=False)
    def answers() -> Response:
        given, seconds = read_answers(read_body(), session.total)
        stale = []
        for one in given:
            if session.answer(one.place, one.verdict, seconds, one.expected):
                continue
            # Sent again because our reply was lost, or the same said in another tab: it stands.
            if session.verdicts()[one.place] != one.verdict:
                stale.append(one.place)
        return as_json({**state_of(session), "stale": stale}, 409 if stale else 200)

    @app.post("/api/undo", provide_automatic_options=False)
    def undo() -> Response:
        count, version = read_undo(read_body())
        with one_at_a_time:
            if version != state_of(session)["version"]:
                return as_json({**state_of(session), "undone": []}, 409)
            places = [session.undo() for _ in range(count)]
        undone = [place for place in places if place is not None]
        return as_json({**state_of(session), "undone": undone})

    @app.post("/api/finish", provide_automatic_options=False)
    def done() -> Response:
        read_body()
        if None in session.verdicts():
            return as_json({**state_of(session), "error": "some pictures are not judged"}, 409)
        response = as_json(state_of(session))
        response.call_on_close(finish)  # not before it is sent
        return response


def state_of(session: Session) -> dict[str, Any]:
    """What the page shows of the session. `version` stands for all verdicts: a tab that knows
    another one is behind. `next`: the first picture without an answer, or None."""
    verdicts = session.verdicts()
    return {
        "verdicts": verdicts,
        "version": hashlib.sha256(repr(verdicts).encode()).hexdigest()[:16],
        "next": verdicts.index(None) if None in verdicts else None,
        "seconds_left": session.seconds_left(),
    }


def as_json(body: dict[str, Any], code: int = 200) -> Response:
    """A reply of JSON."""
    return Response(json.dumps(body), code, mimetype="application/json")
