"""Run a study to its end: data, training, measurement, results.

Every run resumes where it is; nothing is trained or measured twice.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sri_cli.atomic import ensure_folder, lock_file, write_atomic
from sri_cli.config.schema import flatten
from sri_cli.console import Progress, duration, format_table
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure
from sri_cli.run import Workspace
from sri_cli.signals import StopFlag, stop_on_signal
from sri_cli.studies.processes import Ended, Slots, choose_slots, run_all, run_sri
from sri_cli.studies.protocol import Study, StudyRun, content_now, read_study
from sri_cli.studies.status import DIVERGED, RunStatus, records_of, status_of, step_of
from sri_cli.studies.summary import data_facts, in_words, summary_of, write_results, write_summary
from sri_cli.studies.worker import Task

STUDY_FILE = "study.json"  # what the runs of the folder were made by
LONGEST_VALUE = 60  # characters of a changed value in an error
DRY_RUN_STEPS = 5
READ_LOGS_SEC = 2.0


def run_study(
    workspace: Workspace,
    name_or_file: str,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    *,
    style: str = "text",
    out: Path | None = None,
    command: str = "sri study",
) -> tuple[str, dict[str, Any], SriError | None]:
    """Do everything that the protocol asks for and that is not done yet.

    Args:
        systems: the systems to run now, default all; `seeds` likewise.
        jobs: runs at a time, default one for each GPU, or one.
        style: of the table: text, markdown or latex.
        out: the folder of the results, default the study's.
        command: what resumes the study.

    Returns:
        Text for people, the summary for JSON, and the error of runs that failed or diverged (the
        others are not affected).

    Raises:
        SriError: for a bad file, other data or a changed protocol.
        Interrupted: after a signal, with all runs saved.
    """
    study = read_study(workspace, name_or_file)
    chosen = study.runs(systems, seeds)
    slots = choose_slots(jobs)
    check_unchanged(study)
    with stop_on_signal() as stop:
        data = find_data(workspace, study, stop, command)
        with locked(study):
            record_content(study, data)
            ended = run_missing(workspace, study, chosen, data, slots, stop)
            statuses = [status_of(study, run, data) for run in study.runs()]
            now = [one for one in statuses if one.run in chosen]
            if stop.name and not all(one.done for one in now):
                write_summary(summary_of(study, statuses, data), study.folder)
                done = sum(one.done for one in statuses)
                raise Interrupted(
                    f"stopped by {stop.name}: {done} of {len(statuses)} runs are done, those in"
                    " progress are saved",
                    f"resume with: {command}",
                )
            text, summary = write_results(
                workspace, study, statuses, data, out or study.folder, style
            )
            return text, summary, failure(study, statuses, ended)


def run_missing(
    workspace: Workspace,
    study: Study,
    runs: Sequence[StudyRun],
    data: DataFile,
    slots: Slots,
    stop: StopFlag,
) -> list[Ended]:
    """Train and measure what is missing, seed by seed; how each run ended."""
    statuses = [status_of(study, run, data) for run in runs]
    todo = [one for one in statuses if not one.done]
    tasks = [(one.run, task_of(workspace, study, one, data)) for one in todo]
    with StudyProgress(statuses, slots.jobs) as progress:
        done = f"{len(statuses) - len(todo)} of them done; " if len(todo) < len(statuses) else ""
        progress.note(
            f"study {study.protocol.name}: {len(statuses)} runs of {study.protocol.steps:,} steps"
            f" in {study.folder}; {done}{slots}"
        )

        def on_end(end: Ended) -> None:
            if end.code == 0:
                measured = status_of(study, end.run, data).measured
                progress.ends(end.run, f"done: {in_words(measured)}")
                everything = [status_of(study, run, data) for run in study.runs()]
                write_summary(summary_of(study, everything, data), study.folder)
            elif end.code == Interrupted.exit_code:
                progress.ends(end.run, f"saved at step {step_of(end.run):,}")
            else:
                progress.ends(end.run, end.error)

        return run_all(
            tasks,
            slots,
            study.folder / "logs",
            stop,
            on_start=progress.begins,
            on_poll=progress.poll,
            on_end=on_end,
        )


def task_of(workspace: Workspace, study: Study, status: RunStatus, data: DataFile) -> Task:
    """What the process of a run has to do."""
    return Task(
        recipe=status.run.recipe.model_dump(mode="json"),
        data=str(data.path.resolve()),
        data_root=str(workspace.data_root),
        run_dir=str(status.run.run_dir.absolute()),
        command=study.command(status.run, data.path),
        metrics=dict(status.missing),
        split=study.protocol.split,
    )


def failure(study: Study, statuses: Sequence[RunStatus], ended: Sequence[Ended]) -> SriError | None:
    """The error of runs that failed, else of those that diverged, else None."""
    lost = [end for end in ended if end.failed]
    if lost:
        reasons = "; ".join(f"{end.run.title}: {end.error}" for end in lost)
        return SriFailure(
            f"{len(lost)} run{'s' * (len(lost) > 1)} failed: {reasons}",
            f"see {study.folder / 'logs'}; the same command tries again",
        )
    diverged = [one for one in statuses if one.diverged]
    if diverged:
        reasons = "; ".join(f"{one.run.title}: {one.diverged}" for one in diverged)
        again = shlex.join(["rm", str(diverged[0].run.run_dir / DIVERGED)])
        return Diverged(
            f"{len(diverged)} run{'s' * (len(diverged) > 1)} diverged: {reasons}",
            f"this is a result; to try a run again: {again}",
        )
    return None


def data_path(workspace: Workspace, study: Study) -> Path:
    """The data file of the protocol, which may not exist yet."""
    section = study.protocol.data
    if section.file is None:
        return workspace.data_path(section.name, section.size)
    return workspace.data_root / section.file


def find_data(workspace: Workspace, study: Study, stop: StopFlag, command: str) -> DataFile:
    """The data file, prepared when it is missing.

    Raises:
        SriError: for a file that does not fit the protocol or its recipes.
        SriFailure: when it could not be prepared. Interrupted: after a signal.
    """
    from sri_cli.training.trainer import check_data

    section, path = study.protocol.data, data_path(workspace, study)
    if not path.is_file() and section.prepare is not None:
        words = ["--data-root", str(workspace.data_root), "prepare", *shlex.split(section.prepare)]
        words += [] if section.file is None else ["--out", str(path)]
        print(shlex.join(["sri", *words]), file=sys.stderr, flush=True)
        code = run_sri(words, stop)
        if stop.name:
            message = f"stopped by {stop.name} while preparing the data"
            raise Interrupted(message, f"resume with: {command}")
        if code != 0:
            raise SriFailure("the data could not be prepared", shlex.join(["sri", *words]))
    data = DataFile(
        workspace.find_data(section.name if section.file is None else str(path), section.size)
    )
    if (data.name, data.size) != (section.name, section.size):
        raise SriError(
            f"{path} holds {data.name} at {data.size} px, not {section.name} at {section.size} px",
            "move it away, or use another --data-root",
        )
    if not data.is_intact():
        raise SriError(f"the images of {path} are damaged", f"rm {path}")
    for recipe in study.recipes.values():
        check_data(recipe, data)
    masked = sorted({"ari", "msc"} & set(study.protocol.metrics))
    if masked and not data.split(study.protocol.split).has_masks:
        raise SriError(f"{path} has no masks for {', '.join(masked)}", "remove these metrics")
    sha256 = str(data.attrs["sha256"])
    if section.sha256 not in (None, sha256):
        print(
            f"Note: {path} holds other images ({sha256[:12]}) than the protocol names"
            f" ({str(section.sha256)[:12]}); results may differ",
            file=sys.stderr,
        )
    return data


def check_unchanged(study: Study) -> None:
    """SriError when the existing runs were made by another protocol."""
    path = study.folder / STUDY_FILE
    if not path.is_file():
        return
    stored = json.loads(path.read_text("utf-8"))
    if stored["sha256"] == study.digest():
        return
    old, new = flatten(content_now(stored["asked"])), flatten(study.content())
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            values = f"{old.get(key)} -> {new.get(key)}"
            changes.append(f"{key} {values}" if len(values) <= LONGEST_VALUE else key)
    if changes:
        raise SriError(
            f"the protocol changed after the runs in {study.folder}: {'; '.join(changes)}",
            f"undo the change, or give the study another name in {study.path}",
        )


def record_content(study: Study, data: DataFile) -> None:
    """Record protocol and data before the first run; SriError when the data changed since."""
    path = study.folder / STUDY_FILE
    if path.is_file():
        if json.loads(path.read_text("utf-8"))["data"]["sha256"] != data.attrs["sha256"]:
            raise SriError(
                f"the runs in {study.folder} were made with other images than those of {data.path}",
                f"restore that file, or move the runs away: mv {study.folder} ELSEWHERE",
            )
        return
    stored = {
        "sha256": study.digest(),
        "data": data_facts(study, data),
        "asked": study.content(),
    }
    write_atomic(path, (json.dumps(stored, indent=1) + "\n").encode())
    write_atomic(study.folder / "protocol.yaml", study.path.read_bytes())


@contextmanager
def locked(study: Study) -> Iterator[None]:
    """Let one process at a time write to the study's folder; SriError for a second one."""
    path = ensure_folder(study.folder) / f"study-{study.protocol.name}.lock"
    descriptor = lock_file(path, "running", "wait for it, or use another --runs-root")
    try:
        yield
    finally:
        os.close(descriptor)


class StudyProgress(Progress):
    """Steps of all runs; the time left follows from each system's own time per step."""

    def __init__(self, statuses: Sequence[RunStatus], jobs: int) -> None:
        self.runs = [one.run for one in statuses]
        self.jobs = jobs
        # A diverged run makes no more steps.
        self.steps = {
            one.run.name: one.run.recipe.train.steps if one.diverged else one.step
            for one in statuses
        }
        self.polled = 0.0
        self.seconds_per_step: dict[str, float] = {}
        total = sum(run.recipe.train.steps for run in self.runs)
        super().__init__(total, sum(self.steps.values()), "study")

    def begins(self, run: StudyRun) -> None:
        """Note the start of a run."""
        step = self.steps[run.name]
        self.note(f"{self._label(run)} begins" + f" at step {step:,}" * bool(step))

    def ends(self, run: StudyRun, text: str) -> None:
        """Note the end of a run."""
        self.note(f"{self._label(run)} {text}")

    def poll(self, running: Sequence[StudyRun]) -> None:
        """Read from time to time how far the runs in progress are."""
        if time.monotonic() - self.polled < READ_LOGS_SEC:
            return
        self.polled = time.monotonic()
        for run in running:
            records = records_of(run)
            if records:
                self.steps[run.name] = records[-1]["step"]
                rates = [r["images_per_second"] for r in records[-20:] if r["images_per_second"]]
                if rates:
                    seconds = run.recipe.train.batch / statistics.median(rates)
                    self.seconds_per_step[run.system] = seconds
        self.advance(sum(self.steps.values()))
        if running and self.done > self.first:
            self.tell("; ".join(self._state(run) for run in running))

    def _state(self, run: StudyRun) -> str:
        step, steps = self.steps[run.name], run.recipe.train.steps
        if step >= steps:
            return f"{self._label(run)} measuring"
        seconds = self.seconds_per_step.get(run.system)
        rate = f", {seconds:.2g} s per step" if seconds else ""
        return f"{self._label(run)} step {step:,} of {steps:,}{rate}"

    def _label(self, run: StudyRun) -> str:
        return f"[{self.runs.index(run) + 1}/{len(self.runs)}] {run.title}"

    def _eta(self) -> str:
        if not self.seconds_per_step:
            return ""
        usual = statistics.mean(self.seconds_per_step.values())
        seconds = sum(
            (run.recipe.train.steps - self.steps[run.name])
            * self.seconds_per_step.get(run.system, usual)
            for run in self.runs
        )
        return f"about {duration(seconds / self.jobs)} left"


def plan_study(
    workspace: Workspace,
    name_or_file: str,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    measure: bool = True,
) -> dict[str, Any]:
    """What `run_study` would do, for JSON; nothing is written.

    `measure`: time a few steps of each system here, for the expected hours.
    """
    study = read_study(workspace, name_or_file)
    statuses = [status_of(study, run) for run in study.runs(systems, seeds)]
    slots = choose_slots(jobs)
    check_unchanged(study)
    protocol, data = study.protocol, data_path(workspace, study)
    rows = {}
    for system in protocol.systems:
        left = [one.steps_left for one in statuses if one.run.system == system]
        if left:
            seconds = _seconds_per_step(study, system, slots) if measure and any(left) else None
            rows[system] = {
                "runs": len(left),
                "steps_left": sum(left),
                "seconds_per_step": seconds,
                "hours": None if seconds is None else sum(left) * seconds / 3600,
            }
    hours = [row["hours"] for row in rows.values() if row["steps_left"]]
    known = [value for value in hours if value is not None]
    return {
        "study": protocol.name,
        "folder": str(study.folder),
        "protocol_sha256": study.digest(),
        "data": str(data),
        "prepare": None if data.is_file() else protocol.data.prepared_by,
        "data_missing": not data.is_file(),
        "runs": len(statuses),
        "trained": sum(one.trained for one in statuses),
        "steps": protocol.steps,
        "batch": protocol.batch,
        "seeds": protocol.seeds,
        "metrics": protocol.metrics,
        "claims": sum(len(c.than) * len(c.by) for c in protocol.claims),
        "jobs": slots.jobs,
        "slots": str(slots),
        "systems": rows,
        "hours": sum(known) / slots.jobs if len(known) == len(hours) else None,
        "order": [one.run.name for one in statuses],
    }


def _seconds_per_step(study: Study, system: str, slots: Slots) -> float:
    import torch

    from sri_cli.training.step_timing import StepBench

    torch.set_num_threads(slots.threads)
    bench = StepBench(study.recipes[system])
    try:
        return statistics.median(bench.seconds(DRY_RUN_STEPS))
    finally:
        bench.close()


def plan_text(plan: Mapping[str, Any]) -> str:
    """The plan for people."""
    rows = [
        [
            system,
            str(row["runs"]),
            f"{row['steps_left']:,}",
            "-" if row["seconds_per_step"] is None else f"{row['seconds_per_step']:.3f}",
            "-" if row["hours"] is None else f"{row['hours']:.1f}",
        ]
        for system, row in plan["systems"].items()
    ]
    missing = (
        f", will be made by: sri prepare {plan['prepare']}" if plan["prepare"] else ", missing"
    )
    metrics = ", ".join(f"{name} ({num:,})" for name, num in plan["metrics"].items())
    lines = [
        f"study {plan['study']}: {plan['runs']} runs, {plan['trained']} of them trained;"
        f" {plan['steps']:,} steps of {plan['batch']} images each",
        f"runs     {plan['folder']}, {plan['slots']}",
        f"data     {plan['data']}{missing if plan['data_missing'] else ''}",
        f"metrics  {metrics}",
        f"claims   {plan['claims']}",
        "",
        format_table(["SYSTEM", "RUNS", "STEPS LEFT", "S/STEP", "HOURS"], rows),
    ]
    if plan["hours"] is not None:
        lines += ["", f"about {duration(plan['hours'] * 3600)} of training, and the measuring"]
    return "\n".join(lines)
