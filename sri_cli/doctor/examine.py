"""`sri doctor`: what is here, what is missing, and the command that mends it. Changes nothing.

Works without torch, too: whatever needs it is asked of another process (`probe.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sri_cli.doctor import about_torch, files, machine
from sri_cli.doctor.findings import Finding, problem
from sri_cli.run import Workspace

Check = Callable[[], Iterator[Finding]]


def examine(workspace: Workspace) -> list[Finding]:
    """Look at everything; what cannot even be looked at is a finding, too."""
    probe = about_torch.start_probe()  # it works while the files are looked at
    checks: dict[str, Check] = {
        "python": machine.python,
        "packages": machine.packages,
        "memory": machine.memory,
        "compiler": machine.compiler,
        "video": machine.video,
        "display": machine.display,
        "folders": lambda: files.folders(workspace),
        "data": lambda: files.data(workspace),
        "runs": lambda: files.runs(workspace),
        "torch": lambda: about_torch.torch_findings(probe),
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
