"""What `sri doctor` has to say: findings, as lines, JSON and exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """A line: `topic` says what was looked at, `remedy` is the command that mends it.

    `essential`: without it no verb that trains or draws works.
    """

    level: Level
    topic: str
    words: str
    remedy: str = ""
    essential: bool = False


def ok(topic: str, words: str) -> Finding:
    return Finding("ok", topic, words)


def note(topic: str, words: str, remedy: str = "") -> Finding:
    return Finding("note", topic, words, remedy)


def problem(topic: str, words: str, remedy: str = "", essential: bool = False) -> Finding:
    return Finding("problem", topic, words, remedy, essential)


def exit_code(found: Sequence[Finding]) -> int:
    """2 where something essential is missing."""
    return 2 if any(finding.essential for finding in found) else 0


def facts(found: Sequence[Finding]) -> dict[str, Any]:
    """For --json."""
    return {"exit_code": exit_code(found), "findings": [asdict(finding) for finding in found]}


def words(found: Sequence[Finding]) -> str:
    """A line for each finding, and how many are no good."""
    wide = max(len(finding.topic) for finding in found)
    lines = [
        " ".join(f"{finding.level:<9}{finding.topic:<{wide}}  {finding.words}".split("\n"))
        + (f"  ->  {finding.remedy}" if finding.remedy else "")
        for finding in found
    ]
    counts = Counter(finding.level for finding in found)
    told = [
        f"{counts[level]} {level}{'s' if counts[level] > 1 else ''}"
        for level in ("problem", "note")
        if counts[level]
    ]
    missing = "; something essential is missing" if exit_code(found) else ""
    return "\n".join([*lines, "", (", ".join(told) or "all is well") + missing])
