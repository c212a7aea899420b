"""The process of one run of a study: train it to its end, then measure it.

It reads its task as one line of JSON from stdin, which the study keeps open: when the study ends,
even by kill -9, the run saves and stops.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sri_cli.atomic import write_atomic
from sri_cli.errors import Diverged, Interrupted, SriError
from sri_cli.run import Workspace

MACHINE = "machine.json"  # in a run folder: what it was trained on


@dataclass(frozen=True)
class Task:
    """What to train and measure, in plain values."""

    recipe: dict[str, Any]
    data: str
    data_root: str
    run_dir: str
    command: str
    metrics: dict[str, int]
    split: str

    def line(self) -> bytes:
        """The task as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Work on the task of stdin; the exit code, as those of `sri`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        task = Task(**json.loads(sys.stdin.readline()))
        threading.Thread(target=_stop_with_parent, daemon=True).start()
        work(task)
    except SriError as error:
        print(f"Error: {error.message}\n{error.hint or ''}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return 0


def work(task: Task) -> None:
    """Train or resume; then measure what metrics.jsonl lacks."""
    from sri_cli.config.load import recipe_from_dict
    from sri_cli.data.dataset import DataFile
    from sri_cli.training.trainer import train

    run_dir = Path(task.run_dir)
    try:
        train(recipe_from_dict(task.recipe), DataFile(task.data), run_dir, command=task.command)
    except Diverged as error:
        from sri_cli.studies.status import DIVERGED

        write_atomic(run_dir / DIVERGED, f"{error.message}\n".encode())
        raise
    _write_machine(run_dir)
    _measure(task)


def _write_machine(run_dir: Path) -> None:
    """Record the machine, once: a run that is trained already was trained there."""
    import platform

    import numpy as np

    from sri_cli import __version__
    from sri_cli.device import choose_device
    from sri_cli.training.step_timing import machine

    path = run_dir / MACHINE
    if not path.exists():
        versions = {
            "sri": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        write_atomic(path, json.dumps(machine(choose_device()) | versions).encode() + b"\n")


def _measure(task: Task) -> None:
    """Measure; metrics with the same number of images share one pass over them."""
    from sri_cli.generation.trained_run import open_run
    from sri_cli.metrics.evaluate import evaluate_run

    workspace = Workspace(Path(task.data_root), Path(task.run_dir).parent)
    trained = open_run(workspace, task.run_dir)
    by_num: dict[int, list[str]] = {}
    for metric, num in task.metrics.items():
        by_num.setdefault(num, []).append(metric)
    for num, metrics in by_num.items():
        evaluate_run(trained, metrics, task.data, task.split, num)


def _stop_with_parent() -> None:
    """Send SIGTERM to this process when the other end of stdin is closed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
