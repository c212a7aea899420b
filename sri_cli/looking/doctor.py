"""`sri doctor`: what is here, what is missing, and the command that mends it. Changes nothing.

Works without torch, too: whatever needs it is asked of another process (`doctor_probe`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sri_cli.workspace import Workspace

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


Check = Callable[[], Iterator[Finding]]


def ok(topic: str, words: str) -> Finding:
    return Finding("ok", topic, words)


def note(topic: str, words: str, remedy: str = "") -> Finding:
    return Finding("note", topic, words, remedy)


def problem(topic: str, words: str, remedy: str = "", essential: bool = False) -> Finding:
    return Finding("problem", topic, words, remedy, essential)


def examine(workspace: Workspace) -> list[Finding]:
    """Look at everything; what cannot even be looked at is a finding, too."""
    from sri_cli.looking import doctor_files, doctor_machine, doctor_torch

    probe = doctor_torch.start_probe()  # it works while the files are looked at
    checks: dict[str, Check] = {
        "python": doctor_machine.python,
        "packages": doctor_machine.packages,
        "memory": doctor_machine.memory,
        "compiler": doctor_machine.compiler,
        "video": doctor_machine.video,
        "display": doctor_machine.display,
        "folders": lambda: doctor_files.folders(workspace),
        "data": lambda: doctor_files.data(workspace),
        "runs": lambda: doctor_files.runs(workspace),
        "torch": lambda: doctor_torch.torch_findings(probe),
    }
    found = {topic: list(guarded(topic, check)) for topic, check in checks.items()}
    order = ["python", "torch", *(topic for topic in found if topic not in ("python", "torch"))]
    return [finding for topic in order for finding in found[topic]]


def guarded(topic: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; an error of its own ends it and is told."""
    try:
        yield from check()
    except Exception as error:
        yield problem(topic, f"could not be looked at: {type(error).__name__}: {error}")


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
