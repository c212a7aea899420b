"""`sri study`: a protocol of recipes, seeds and data, run to its end, measured and judged.

Every run goes on where it stands; what is trained or measured is not done again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli.atomic import write_atomic
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure
from sri_cli.run import Workspace
from sri_cli.signals import StopFlag, stop_on_signal
from sri_cli.studies.data import find_data
from sri_cli.studies.file import Study, check_chosen, read_study
from sri_cli.studies.jobs import Ended, Slots, choose_slots, failed, run_all
from sri_cli.studies.kept import check_unchanged, held, keep
from sri_cli.studies.progress import StudyProgress
from sri_cli.studies.runs import DIVERGED, Stand, Way, is_done, stand_of, step_of, way_of
from sri_cli.studies.summary import draw_figures, summary_of, write_summary
from sri_cli.studies.table import ENDINGS, format_study, in_words
from sri_cli.studies.worker import Task


@dataclass(frozen=True)
class Asked:
    """The words of the command line; None: all systems, all seeds, as many jobs as fit."""

    study: str
    only: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    jobs: int | None = None
    style: str = "text"
    out: Path | None = None
    command: str = "sri study"


@dataclass(frozen=True)
class Result:
    """Words for stdout, a summary for --json, and what went wrong in the end."""

    words: str
    summary: dict[str, Any]
    error: SriError | None = None


def run_study(workspace: Workspace, asked: Asked) -> Result:
    """Everything that the protocol asks for and that is not there yet.

    Raises SriError for a bad file, other data or a changed protocol, Interrupted (75) after a
    signal with all runs saved. A run that diverges or fails does not keep the others: `error`.
    """
    study = read_study(workspace, asked.study)
    check_chosen(study, asked.only, asked.seeds)
    slots = choose_slots(asked.jobs)
    check_unchanged(study)
    with stop_on_signal() as stop:
        data = find_data(workspace, study, stop, asked.command)
        with held(study):
            keep(study, data)
            way = way_of(study, data)
            chosen = [stand_of(cell, way) for cell in study.cells(asked.only, asked.seeds)]
            ended = run_missing(workspace, study, chosen, data, way, slots, stop)
            stands = [stand_of(cell, way) for cell in study.cells()]
            names = {one.cell.name for one in chosen}
            if stop.name and not all(is_done(one, way) for one in stands if one.cell.name in names):
                write_summary(summary_of(study, stands, data), study.folder)
                raise interrupted(stands, way, stop.name, asked.command)
            return finish(workspace, study, stands, data, asked, ended)


def run_missing(
    workspace: Workspace,
    study: Study,
    stands: Sequence[Stand],
    data: DataFile,
    way: Way,
    slots: Slots,
    stop: StopFlag,
) -> list[Ended]:
    """Train and measure, seed by seed; how each run ended."""
    todo = [one for one in stands if not is_done(one, way)]
    steps = {  # of one that diverged no more will come
        one.cell.name: one.cell.recipe.train.steps if one.diverged else one.step for one in stands
    }
    tasks = [(one.cell, task_of(workspace, study, one, data, way)) for one in todo]
    with StudyProgress([one.cell for one in stands], steps, slots.jobs) as progress:
        progress.note(opening(study, stands, len(todo), slots))

        def on_end(end: Ended) -> None:
            if end.code == 0:
                stand = stand_of(end.cell, way)
                progress.ends(end, f"is done: {in_words(stand.measured)}")
                everything = [stand_of(cell, way) for cell in study.cells()]
                write_summary(summary_of(study, everything, data), study.folder)
            elif end.code == Interrupted.exit_code:
                progress.ends(end, f"is saved at step {step_of(end.cell.run_dir):,}")
            else:
                progress.ends(end, f"ended: {end.said}")

        logs = study.folder / "logs"
        return run_all(tasks, slots, logs, stop, progress.begins, progress.look, on_end)


def task_of(workspace: Workspace, study: Study, one: Stand, data: DataFile, way: Way) -> Task:
    """What the run's process is told."""
    cell = one.cell
    return Task(
        recipe=cell.recipe.model_dump(mode="json"),
        data=str(data.path.resolve()),
        data_root=str(workspace.data_root),
        run_dir=str(cell.run_dir.absolute()),
        command=study.command(cell, data.path),
        metrics=way.missing(one.measured),
        split=way.split,
    )


def opening(study: Study, stands: Sequence[Stand], todo: int, slots: Slots) -> str:
    """What is about to happen."""
    protocol = study.protocol
    there = f"{len(stands) - todo} of them done; " if len(stands) > todo else ""
    return (
        f"study {protocol.name}: {len(stands)} runs of {protocol.steps:,} steps into"
        f" {study.folder}; {there}{slots.words}"
    )


def finish(
    workspace: Workspace,
    study: Study,
    stands: Sequence[Stand],
    data: DataFile,
    asked: Asked,
    ended: Sequence[Ended],
) -> Result:
    """Table, summary and figures."""
    folder = asked.out or study.folder
    table = format_study(study, stands, data.caption, asked.style)
    summary = summary_of(study, stands, data)
    write_atomic(folder / f"table.{ENDINGS[asked.style]}", f"{table}\n".encode())
    kept = write_summary(summary, folder)
    pictures, notes = draw_figures(workspace, study, stands, folder)
    for note in notes:
        print(note, file=sys.stderr)
    words = "\n".join([table, "", *(f"look: {path}" for path in pictures), f"summary: {kept}"])
    return Result(words, summary, what_went_wrong(study, stands, ended))


def what_went_wrong(
    study: Study, stands: Sequence[Stand], ended: Sequence[Ended]
) -> SriError | None:
    """Runs that failed, before those that diverged: they may be tried again."""
    lost = failed(ended)
    if lost:
        told = "; ".join(f"{one.cell.words}: {one.said}" for one in lost)
        logs = study.folder / "logs"
        return SriFailure(
            f"{len(lost)} run{'s' * (len(lost) > 1)} failed: {told}",
            f"what they said is in {logs}; the same command tries them again",
        )
    gone = [one for one in stands if one.diverged]
    if gone:
        told = "; ".join(f"{one.cell.words}: {one.diverged}" for one in gone)
        return Diverged(
            f"{len(gone)} run{'s' * (len(gone) > 1)} diverged: {told}",
            "that is a result, too, and stays; to try one again: rm "
            + shlex.quote(str(gone[0].cell.run_dir / DIVERGED)),
        )
    return None


def interrupted(stands: Sequence[Stand], way: Way, signal_name: str, command: str) -> Interrupted:
    """All runs are saved."""
    done = sum(is_done(one, way) for one in stands)
    return Interrupted(
        f"stopped by {signal_name}: {done} of {len(stands)} runs are done, those in progress saved",
        f"go on: {command}",
    )
