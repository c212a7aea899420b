"""The folders of data and runs: can be written to, how much room there is, what lies in them."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from sri_cli.atomic import list_folder
from sri_cli.checkpoint import newest_good
from sri_cli.doctor.findings import Finding, note, ok, problem
from sri_cli.errors import SriError
from sri_cli.run import Workspace, checkpoints_in, newest_time

LITTLE_ROOM, NO_ROOM = 5e9, 2e8  # bytes
MOST_RUNS = 20  # whose checkpoints are read: the latest


def folders(workspace: Workspace) -> Iterator[Finding]:
    """Permission and room, for data and for runs."""
    for what, flag, path in (
        ("data", "--data-root", workspace.data_root),
        ("runs", "--runs-root", workspace.runs_root),
    ):
        yield folder(what, flag, path)


def folder(what: str, flag: str, path: Path) -> Finding:
    """A folder, or the place where it would be made."""
    other = f"sri {flag} DIR ..., a folder that can be written to"
    topic, place = f"{what} folder", path
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        words = f"{path}: {place} is no folder"
        return problem(topic, words, f"mv {shlex.quote(str(place))} elsewhere", essential=True)
    if not os.access(place, os.W_OK | os.X_OK):
        return problem(topic, f"{path}: {place} cannot be written to", other, essential=True)
    room = shutil.disk_usage(place).free
    words = f"{path}: writable, {room / 1e9:,.1f} GB free"
    if place != path:
        words = f"{path}: not there yet, can be made, {room / 1e9:,.1f} GB free"
    if room < NO_ROOM:
        return problem(topic, f"{words}: too little to train", f"free some room, or {other}")
    if room < LITTLE_ROOM:
        return note(topic, f"{words}: little", f"free some room, or {other}")
    return ok(topic, words)


def data(workspace: Workspace) -> Iterator[Finding]:
    """Every data file: can be read, is complete. Its images are not read."""
    from sri_cli.data.dataset import DataFile
    from sri_cli.data.listing import counts_text, is_data, progress_of

    paths = [path for path in list_folder(workspace.data_root) if is_data(path)]
    if not paths:
        yield note("data", f"no data file in {workspace.data_root}", "sri prepare shapestacks")
    for path in paths:
        if path.suffix == ".partial":
            again = "run the command again that began it"
            yield note("data", f"{path} is unfinished{progress_of(path)}", again)
            continue
        try:
            found = DataFile(path)
            yield ok("data", f"{path}: {found.caption}, {counts_text(found)}")
        except SriError as error:
            yield problem("data", error.message, error.hint or "")


def runs(workspace: Workspace) -> Iterator[Finding]:
    """Every run of the latest: is its newest checkpoint intact, to the last byte?"""
    there = [path for path in list_folder(workspace.runs_root) if path.is_dir()]
    there = [path for path in there if (path / "checkpoints").is_dir()]
    if not there:
        yield note("runs", f"no run in {workspace.runs_root}", "sri demo, or sri train")
    with_checkpoints = sorted(filter(checkpoints_in, there), key=newest_time, reverse=True)
    for path in there:
        if path not in with_checkpoints:
            yield note("runs", f"{path} has no checkpoint yet", "the same sri train command")
    intact = 0
    for path in with_checkpoints[:MOST_RUNS]:
        try:
            good = newest_good(path, quiet=True)
        except SriError as error:
            yield problem("runs", error.message, error.hint or "")
            continue
        if good is not None and good.skipped:
            broken = good.skipped[0].message
            yield problem("runs", f"{broken}; step {good.step:,} is intact", _again(path))
        else:
            intact += 1
    if intact:
        words = f"{intact} run{'s' if intact > 1 else ''} whose newest checkpoint is intact"
        left = len(with_checkpoints) - MOST_RUNS
        yield ok("runs", words + (f"; {left} older ones not looked at" if left > 0 else ""))


def _again(run: Path) -> str:
    """The command that trains on from the checkpoint before."""
    try:
        lines = (run / "command.txt").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return lines[0] if lines else "the same sri train command goes on from there"
