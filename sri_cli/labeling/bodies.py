"""What the page may send: JSON of a known form, refused with words that say what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flask import abort, request

from sri_cli.labeling.session import VERDICTS

MOST_AT_ONCE = 20  # pictures of the grid
LONGEST_SEC = 86_400


@dataclass(frozen=True)
class Answer:
    """`expected`: the verdict that the page showed at `place` (None: unanswered)."""

    place: int
    verdict: str
    expected: str | None


def read_body() -> dict[str, Any]:
    """The request's JSON object; 415, 411, 413 or 400 where it is none."""
    if request.mimetype != "application/json":
        abort(415, "JSON only")
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        abort(411, "a length is wanted")  # the page always gives one
    try:
        body = request.get_json()
    except RecursionError:  # brackets in brackets
        abort(400, "that is no JSON of ours")
    if not isinstance(body, dict):
        abort(400, "a JSON object is wanted")
    return body


def read_answers(body: dict[str, Any], total: int) -> tuple[list[Answer], float | None]:
    """The answers, and the seconds that each of them took."""
    _only(body, {"answers", "seconds"})
    given, seconds = body.get("answers"), body.get("seconds")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_AT_ONCE:
        abort(400, f"answers: a list of 1 to {MOST_AT_ONCE}")
    answers = [_read_answer(one, total) for one in given]
    if len({one.place for one in answers}) < len(answers):
        abort(400, "answers: a place twice")
    if seconds is not None and not (_number(seconds) and 0 <= seconds <= LONGEST_SEC):
        abort(400, f"seconds: 0 to {LONGEST_SEC} or null")
    return answers, seconds


def read_undo(body: dict[str, Any]) -> tuple[int, str]:
    """How many answers to take back, and the version of the verdicts that the page shows."""
    _only(body, {"count", "version"})
    count, version = body.get("count"), body.get("version")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_AT_ONCE:
        abort(400, f"count: 1 to {MOST_AT_ONCE}")
    if not isinstance(version, str):
        abort(400, "version: text")
    return count, version


def _read_answer(one: Any, total: int) -> Answer:
    if not isinstance(one, dict) or set(one) != {"place", "verdict", "expected"}:
        abort(400, "an answer has a place, a verdict and the verdict expected there")
    if not _whole(one["place"]) or not 0 <= one["place"] < total:
        abort(400, f"place: 0 to {total - 1}")
    if one["verdict"] not in VERDICTS:
        abort(400, f"verdict: {', '.join(VERDICTS)}")
    if one["expected"] is not None and one["expected"] not in VERDICTS:
        abort(400, f"expected: {', '.join(VERDICTS)} or null")
    return Answer(one["place"], one["verdict"], one["expected"])


def _only(body: dict[str, Any], known: set[str]) -> None:
    if set(body) - known:
        abort(400, f"known are {', '.join(sorted(known))}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return (_whole(value) or isinstance(value, float)) and math.isfinite(value)
