"""The process of one run of a study: train it to its end, then measure it.

Its stdin is a pipe that the study keeps open: when the study ends, even by kill -9, the run saves
and stops.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.errors import Diverged, Interrupted, SriError
from sri_cli.generation.trained_run import open_run
from sri_cli.metrics.evaluate import evaluate_run
from sri_cli.run import Workspace
from sri_cli.studies.protocol import check_unchanged, read_study
from sri_cli.studies.status import DIVERGED, MACHINE, status_of
from sri_cli.training.step_timing import machine
from sri_cli.training.trainer import train


def work(workspace: Workspace, study_file: str, run_name: str, data_file: str) -> None:
    """Train or resume the run; then measure what its metrics.jsonl lacks."""
    study, data = read_study(workspace, study_file), DataFile(data_file)
    check_unchanged(study)  # the file may have been edited since the study began
    run = next(run for run in study.runs() if run.name == run_name)
    try:
        train(run.recipe, data, run.run_dir, command=study.command(run, data.path))
    except Diverged as error:
        write_atomic(run.run_dir / DIVERGED, f"{error.message}\n".encode())
        raise
    if not (run.run_dir / MACHINE).exists():  # a run that is trained already was trained there
        versions = {
            "sri": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        facts = machine(choose_device()) | versions
        write_atomic(run.run_dir / MACHINE, json.dumps(facts).encode() + b"\n")
    trained = open_run(workspace, str(run.run_dir))
    by_num: dict[int, list[str]] = {}  # metrics of as many images share one pass over them
    for metric, num in status_of(study, run, data).missing.items():
        by_num.setdefault(num, []).append(metric)
    for num, metrics in by_num.items():
        evaluate_run(trained, metrics, data_file, study.protocol.split, num)


def main() -> int:
    """The arguments are those of `work`; the exit codes are those of `sri`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    data_root, runs_root, *arguments = sys.argv[1:]
    try:
        work(Workspace(Path(data_root), Path(runs_root)), *arguments)
    except SriError as error:
        print(f"Error: {error.message}\n{error.hint or ''}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return Interrupted.exit_code
    return 0


def _stop_with_parent() -> None:
    """Send SIGTERM to this process when the other end of stdin is closed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
