"""Run a study to its end: data, training, measurement, results.

Every run resumes where it is; nothing is trained or measured twice.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sri_cli.atomic import check_writable, ensure_folder, lock_file
from sri_cli.console import Progress, counted, print_line, warn
from sri_cli.cores import Threads
from sri_cli.data.dataset import DataFile
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure
from sri_cli.metrics.records import SEGMENTATION
from sri_cli.run import LOG_NAME, Workspace
from sri_cli.signals import StopFlag, stop_on_signal, this_command
from sri_cli.studies.job import RunJob
from sri_cli.studies.processes import POLL_SEC, RunProcess, Slots, choose_slots, run_sri
from sri_cli.studies.protocol import Study, StudyRun, check_unchanged, read_study, record_content
from sri_cli.studies.queues import Job, Queue, last_job, why_it_ended
from sri_cli.studies.reuse import with_reused_runs
from sri_cli.studies.status import DIVERGED, RunStatus, status_of, step_of
from sri_cli.studies.summary import in_words, write_results, write_summary
from sri_cli.training.log import last_record
from sri_cli.training.trainer import check_data

READ_LOGS_SEC = 2.0


def run_study(
    workspace: Workspace,
    name_or_file: str,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    *,
    threads: Threads | None = None,
    queue: Queue | None = None,
    style: str = "text",
    out: Path | None = None,
) -> tuple[str, dict[str, Any], SriError | None]:
    """Prepare, train and measure what the protocol lists and is not done yet.

    Args:
        systems: the systems to run now, default all; `seeds` likewise.
        jobs: runs at a time, default one for each GPU, or one; all of them in SLURM's queue.
        queue: where the runs are submitted as jobs; default processes of this command.
        threads: CPU threads of each run, default as many as its share of free cores.
        style: of the table: text, markdown or latex.
        out: the folder of the results, default the study's.

    Returns:
        Text for people, the summary for JSON, and the error of runs that failed or diverged (the
        others are not affected).

    Raises:
        SriError: for a bad file, other data or a changed protocol.
        SriFailure: `out` cannot be written to.
        Interrupted: after a signal, with all runs saved.
    """
    study = read_study(workspace, name_or_file)
    study.runs(systems, seeds)  # before anything is written: do they exist?
    if out is not None:
        check_writable(out)  # which is written to at the very end
    slots = choose_slots(jobs, threads)
    check_unchanged(study)
    with stop_on_signal() as stop:
        data = find_data(workspace, study, stop)
        lock = ensure_folder(study.folder) / f"study-{study.protocol.name}.lock"  # held while open
        with open(lock_file(lock, "running", "wait for it, or use another --runs-root")):
            record_content(study, data)
            study = with_reused_runs(study, data)
            chosen = study.runs(systems, seeds)
            if queue is None:
                failed = run_missing(workspace, study, chosen, data, slots, stop)
            else:
                most = jobs or (slots.jobs if queue.name == "local" else len(chosen))
                failed = run_jobs(workspace, study, chosen, data, queue, slots, most, stop)
            statuses = [status_of(study, run, data) for run in study.runs()]
            if stop.received and not all(one.done for one in statuses if one.run in chosen):
                write_summary(study, statuses, data, study.folder)
                done = sum(one.done for one in statuses)
                end, then = "those in progress are saved", f"Resume with: {this_command()}"
                if queue is not None:
                    end = "and the jobs go on"
                    then = f"Collect them with: {this_command()} (--cancel cancels them)"
                raise Interrupted(f"Stopped: {done} of {len(statuses)} runs are done, {end}.", then)
            folder = out or study.folder
            text, summary = write_results(workspace, study, statuses, data, folder, style)
            return text, summary, failure(study, statuses, failed)


def run_missing(
    workspace: Workspace,
    study: Study,
    runs: Sequence[StudyRun],
    data: DataFile,
    slots: Slots,
    stop: StopFlag,
) -> dict[str, str]:
    """Train and measure what is missing, seed by seed, `slots.jobs` at a time.

    After a signal the runs in progress save and end. Their output goes to logs/<run>.txt, because
    several runs at once would mix theirs.

    Returns:
        The errors of runs that failed, by title.
    """
    statuses = [status_of(study, run, data) for run in runs]
    waiting = [one.run for one in statuses if not one.done]
    running: list[RunProcess] = []
    failed: dict[str, str] = {}
    logs = ensure_folder(study.folder / "logs")
    arguments = [str(workspace.data_root), str(workspace.runs_root), str(study.path)]
    with _StudyProgress(study, statuses, str(slots)) as progress:
        try:
            while (waiting and not stop.received) or running:
                while waiting and len(running) < slots.jobs and not stop.received:
                    run = waiting.pop(0)
                    slot = min(set(range(slots.jobs)) - {process.slot for process in running})
                    log = logs / f"{run.name}.txt"
                    words = [*arguments, run.name, str(data.path), str(slots.jobs)]
                    running.append(RunProcess(run, slot, slots, log, words))
                    progress.note_run(run, f"begins at step {progress.steps[run.name]:,}")
                for process in list(running):
                    if stop.received:
                        process.stop()
                    code = process.poll()
                    if code is None:
                        continue
                    running.remove(process)
                    if code in (0, Diverged.exit_code):
                        end = _done(study, process.run, data)
                    elif code == Interrupted.exit_code:
                        end = f"saved at step {step_of(process.run):,}"
                        if not stop.received:
                            failed[process.run.title] = f"stopped by a signal, {end}"
                    else:
                        end = failed[process.run.title] = process.error()
                    progress.note_run(process.run, end)
                progress.poll([process.run for process in running])
                time.sleep(POLL_SEC)
        finally:
            for process in running:  # only after a second signal or an exception
                process.kill()
    return failed


def _done(study: Study, run: StudyRun, data: DataFile) -> str:
    """Write the summary anew after a run is done; its values."""
    statuses = [status_of(study, one, data) for one in study.runs()]
    write_summary(study, statuses, data, study.folder)
    status = next(one for one in statuses if one.run == run)
    return status.diverged or f"done: {in_words(status)}"


def run_jobs(
    workspace: Workspace,
    study: Study,
    runs: Sequence[StudyRun],
    data: DataFile,
    queue: Queue,
    slots: Slots,
    most: int,
    stop: StopFlag,
) -> dict[str, str]:
    """Submit a job for each run that is not done and has none, `most` at a time; wait for all.

    A signal ends the waiting; the jobs go on. A run whose job ended before it was done has failed
    for this call; its error names the job's output, which is in the run folder.

    Returns:
        The errors of runs that failed, by title.
    """
    statuses = [status_of(study, run, data) for run in runs]
    waiting = [one.run for one in statuses if not one.done]
    jobs: dict[str, Job] = {}  # by name of the run: as last seen
    # On which slots jobs are; of those that an earlier command submitted it is a guess.
    slot_of = {run.name: number for number, run in enumerate(runs)}
    missing: Counter[str] = Counter()  # how often in a row a job was not there
    failed: dict[str, str] = {}
    full = len(runs) + 1  # the queue refused a job beside so many
    if queue.name == "slurm":  # a job has cores and GPUs of its own
        slots, sharers = replace(slots, gpus=0), 1
    else:
        sharers = slots.jobs if slots.gpus else most
    with _StudyProgress(study, statuses, f"{queue.name} jobs") as progress:
        while waiting and not stop.received:
            try:
                listed = queue.jobs(waiting)
            except SriFailure as error:
                if not jobs:
                    raise
                progress.note(f"Note: {error.message}; trying again")
                listed = jobs
            alive = {name for name, job in listed.items() if job.state != "ended"}
            for run in list(waiting):
                job, before = listed.get(run.name), jobs.get(run.name)
                there = jobs.keys() | alive
                live = sum(one.name in there for one in waiting)
                if job is not None and run.name in alive:
                    if before != job:
                        progress.note_run(run, f"{job}, step {step_of(run):,}")
                    jobs[run.name], missing[run.name] = job, 0
                elif before is not None:
                    missing[run.name] += 1
                    status = status_of(study, run, data)
                    # The files of another machine may be visible a little later.
                    if status.done or missing[run.name] > 1:
                        waiting.remove(run)
                        if not status.done:
                            failed[run.title] = why_it_ended(run, job or before)
                        progress.note_run(run, failed.get(run.title) or _done(study, run, data))
                elif live < min(most, full):
                    last = job or last_job(run)
                    words = [str(workspace.data_root), str(workspace.runs_root), str(study.path)]
                    words += [run.name, str(data.path), str(sharers)]
                    try:
                        used = {slot_of[one.name] for one in waiting if one.name in there}
                        slot_of[run.name] = min({*range(len(runs))} - used)
                        environment = slots.environment(slot_of[run.name])
                        number = queue.submit(run, RunJob(run.run_dir, words, environment))
                    except SriFailure as error:
                        if not live:
                            raise
                        full = live  # clusters limit the jobs of a user
                        progress.note(f"Note: {error.message}; trying again when a job has ended")
                        continue
                    again = f" after {why_it_ended(run, last)}" if last else ""
                    progress.note_run(run, f"submitted as job {number}{again}")
                    jobs[run.name] = Job(number, "submitted")
            now = [jobs[run.name].state for run in waiting if run.name in jobs]
            text = f"{now.count('running')} running, {len(now) - now.count('running')} queued"
            until = time.monotonic() + queue.poll_sec
            while waiting and not stop.received and time.monotonic() < until:
                progress.poll(waiting, text)
                time.sleep(POLL_SEC)
    return failed


def cancel_jobs(
    workspace: Workspace,
    name_or_file: str,
    queue: Queue,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[str]:
    """Let the jobs of a study, or of some of its runs, save and end; the names of their runs."""
    runs = read_reusing(workspace, name_or_file)[0].runs(systems, seeds)
    jobs = {name: job for name, job in queue.jobs(runs).items() if job.state != "ended"}
    for job in jobs.values():
        queue.cancel(job)
    return list(jobs)


def read_reusing(workspace: Workspace, name_or_file: str) -> tuple[Study, Path]:
    """A study with the runs of others that count as its own, if it has its data; their file."""
    study = read_study(workspace, name_or_file)
    data = data_path(workspace, study)
    return with_reused_runs(study, DataFile(data)) if data.is_file() else study, data


class _StudyProgress(Progress):
    """Progress in steps of all runs."""

    def __init__(self, study: Study, statuses: Sequence[RunStatus], how: str) -> None:
        self.runs, self.polled = [one.run for one in statuses], 0.0
        steps = study.protocol.steps
        self.steps = {one.run.name: steps - one.steps_left for one in statuses}
        super().__init__(steps * len(statuses), sum(self.steps.values()), "study")
        self.note(
            f"study {study.protocol.name}: {counted(len(statuses), 'run')} of {steps:,} steps in"
            f" {study.folder}; {sum(one.done for one in statuses)} of them done; {how}"
        )

    def note_run(self, run: StudyRun, text: str) -> None:
        """Print a line about a run."""
        self.note(f"[{self.runs.index(run) + 1}/{len(self.runs)}] {run.title} {text}")

    def poll(self, running: Sequence[StudyRun], text: str = "") -> None:
        """Read from time to time how far the runs in progress are, and show it, or a text."""
        if time.monotonic() - self.polled < READ_LOGS_SEC:
            return
        self.polled = time.monotonic()
        for run in running:
            self.steps[run.name] = last_record(run.run_dir / LOG_NAME).get("step", 0)
        self.advance(sum(self.steps.values()))
        if running and (text or self.done > self.first):
            steps = [f"{run.title} step {self.steps[run.name]:,}" for run in running]
            self.show(text or "; ".join(steps))


def failure(
    study: Study, statuses: Sequence[RunStatus], failed: Mapping[str, str]
) -> SriError | None:
    """The error of runs that failed, else of those that diverged, else None."""
    if failed:
        return SriFailure(
            f"{counted(len(failed), 'run')} failed: {_reasons(failed)}",
            f"see {study.folder / 'logs'}; the same command tries again"
            if (study.folder / "logs").exists()
            else "the same command tries again",
        )
    diverged = {one.run.title: one.diverged for one in statuses if one.diverged}
    if diverged:
        ways = (_way_to_try_again(study, one.run) for one in statuses if one.diverged)
        first = next(filter(None, ways), None)
        return Diverged(
            f"{counted(len(diverged), 'run')} diverged: {_reasons(diverged)}",
            "this is a result, which the same machine repeats; to try a run again:"
            f" {shlex.join(first)}"
            if first
            else "this is a recorded result",
        )
    return None


def _way_to_try_again(study: Study, run: StudyRun) -> list[str] | None:
    """The command after which a run that diverged counts as not begun; None for one that another
    study recorded."""
    note = run.run_dir / DIVERGED
    if note.is_file():
        return ["rm", str(note)]
    of_this_study = study.recorded.get(run.name, {}).get("run_of") == study.protocol.name
    return ["mkdir", str(run.run_dir)] if of_this_study else None


def _reasons(runs: Mapping[str, str]) -> str:
    return "; ".join(f"{title}: {reason}" for title, reason in runs.items())


def data_path(workspace: Workspace, study: Study) -> Path:
    """The data file of the protocol, which may not exist yet."""
    section = study.protocol.data
    if section.file is None:
        return workspace.data_path(section.name, section.size)
    return workspace.data_root / section.file


def find_data(workspace: Workspace, study: Study, stop: StopFlag) -> DataFile:
    """The data file, prepared when it is missing.

    Raises:
        SriError: for a file that does not fit the protocol or its recipes.
        SriFailure: when it could not be prepared.
        Interrupted: after a signal that the preparation received, too.
    """
    section, path = study.protocol.data, data_path(workspace, study)
    if not path.is_file() and section.prepare is not None:
        words = ["--data-root", str(workspace.data_root), "prepare", *shlex.split(section.prepare)]
        words += [] if section.file is None else ["--out", str(path)]
        print_line(shlex.join(["sri", *words]))
        code = run_sri(words, stop)
        if stop.received:
            raise Interrupted("Stopped while preparing the data.", f"Resume with: {this_command()}")
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
    masked = sorted(set(SEGMENTATION) & study.protocol.metrics.keys())
    if masked and not data.split(study.protocol.split).has_masks:
        raise SriError(f"{path} has no masks for {', '.join(masked)}", "remove these metrics")
    sha256 = str(data.attrs["sha256"])
    if section.sha256 not in (None, sha256):
        warn(
            f"Note: {path} holds other images ({sha256[:12]}) than the protocol names"
            f" ({str(section.sha256)[:12]}); results may differ"
        )
    return data
