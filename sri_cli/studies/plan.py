"""The plan of a study (`sri study --dry-run`): what is left to do, and how long it takes here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from sri_cli.config.schema import Recipe, flatten
from sri_cli.console import counted, duration, format_table
from sri_cli.cores import OtherProcesses, Threads, shared_note
from sri_cli.device import choose_device
from sri_cli.models.compiled import kernels
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json
from sri_cli.studies.processes import Slots, choose_slots
from sri_cli.studies.protocol import Study, check_unchanged
from sri_cli.studies.queues import Queue, last_job, why_it_ended
from sri_cli.studies.runner import read_reusing
from sri_cli.studies.status import RunStatus, status_of
from sri_cli.training.step_timing import StepBench

DRY_RUN_STEPS = 5


def plan_study(
    workspace: Workspace,
    name_or_file: str,
    systems: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    measure: bool = True,
    threads: Threads | None = None,
    queue: Queue | None = None,
) -> dict[str, Any]:
    """What `run_study` would do, for JSON; nothing is written.

    `measure`: time a few steps of each system here, for the expected hours.
    """
    measure = measure and (queue is None or queue.name == "local")  # a login node says nothing
    study, data = read_reusing(workspace, name_or_file)
    protocol = study.protocol
    statuses = [status_of(study, run) for run in study.runs(systems, seeds)]
    slots = choose_slots(jobs, threads)
    most, how = slots.jobs, str(slots)
    if queue is not None and queue.name == "slurm":  # as `run_study` submits them
        most = jobs or len(statuses)
        how = f"{most} at a time"
        if slots.fixed_threads:
            how += f", {counted(slots.threads, 'thread')} each"
    check_unchanged(study)
    if measure and choose_device().type == "cpu":
        kernels()  # compiles them before other processes, such as a compiler, are counted
    others = OtherProcesses()
    rows: dict[str, dict[str, Any]] = {}
    timed: dict[str, tuple[float, int]] = {}  # seconds of a step, and on how many threads
    core_hours = longest = 0.0  # longest: hours; a run is not divided among processes
    for system in dict.fromkeys(one.run.system for one in statuses):
        left = [one.steps_left for one in statuses if one.run.system == system]
        kind, seconds = _kind_of_step(study.recipes[system]), None
        if measure and any(left):
            if kind not in timed:
                timed[kind] = _seconds_per_step(study, system, slots)
            seconds, threads_used = timed[kind]
            longest = max(longest, max(left) * seconds / 3600)
            core_hours += sum(left) * seconds * threads_used / 3600
        rows[system] = {
            "point": protocol.points()[system].values,
            "runs": len(left),
            "steps_left": sum(left),
            "seconds_per_step": seconds,
            "hours": sum(left) * (seconds or 0) / 3600 if measure else None,
        }
    hours = sum(row["hours"] for row in rows.values()) if measure else None
    names = {one.run.name for one in statuses}
    return {
        "study": protocol.name,
        "folder": str(study.folder),
        "protocol_sha256": study.digest(),
        "data": str(data),
        "prepare": None if data.is_file() else protocol.data.prepared_by,
        "data_missing": not data.is_file(),
        "runs": len(statuses),
        "trained": sum(one.trained for one in statuses),
        "reused": {n: str(path) for n, path in study.reused.items() if n in names},
        "recorded": {n: run["run_of"] for n, run in study.recorded.items() if n in names},
        "steps": protocol.steps,
        "batch": protocol.batch,
        "seeds": protocol.seeds,
        "metrics": protocol.metrics,
        "claims": len(list(protocol.comparisons())),
        "jobs": most,
        "slots": how,
        "busy_cores": others.in_use() if measure else None,
        "systems": rows,
        "hours": None if hours is None else max(hours / slots.jobs, longest),
        "core_hours": None if hours is None or slots.gpus else core_hours,
        "order": [one.run.name for one in statuses],
        "queue": None if queue is None else _plan_of_jobs(queue, statuses),
    }


def _plan_of_jobs(queue: Queue, statuses: Sequence[RunStatus]) -> dict[str, Any]:
    """The state of each run, and for those without a job what would be submitted."""
    jobs, states, submitted = queue.jobs([one.run for one in statuses]), {}, []
    for one in statuses:
        job = jobs.get(one.run.name)
        if job is not None and job.state != "ended":
            states[one.run.name] = f"{job}, step {one.step:,}"
        elif one.diverged or one.trained:  # without the data file: whether it is measured is open
            states[one.run.name] = "diverged" if one.diverged else "trained"
        else:
            last = job or last_job(one.run)
            failed = f", after {why_it_ended(one.run, last)}" if last else ""
            states[one.run.name] = f"to be submitted at step {one.step:,}{failed}"
            submitted.append(one.run)
    return {
        "executor": queue.name,
        "parameters": queue.parameters,
        "runs": states,
        "script": queue.script(submitted[0]) if submitted else None,
    }


def _kind_of_step(recipe: Recipe) -> str:
    """What the time of a step depends on: everything but real numbers such as rates and targets."""
    values = flatten(recipe.model_dump(exclude={"name", "description"}))
    return to_json({key: value for key, value in values.items() if not isinstance(value, float)})


def _seconds_per_step(study: Study, system: str, slots: Slots) -> tuple[float, int]:
    """The time of a step, and the number of threads in use."""
    threads = Threads(slots.threads if slots.fixed_threads else None, sharers=slots.jobs)
    threads.start()
    with closing(StepBench(study.recipes[system])) as bench:
        bench.warm_up()
        seconds = statistics.median(bench.timed() for _ in range(DRY_RUN_STEPS))
    return seconds, threads.number


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
    missing = ""
    if plan["data_missing"]:
        command = plan["prepare"] and f"will be made by: sri prepare {plan['prepare']}"
        missing = f", {command or 'missing'}"
    metrics = ", ".join(f"{name} ({num:,})" for name, num in plan["metrics"].items())
    others = len(plan["reused"]) + len(plan["recorded"])
    lines = [
        f"study {plan['study']}: {counted(plan['runs'], 'run')} of {plan['steps']:,} steps of"
        f" {plan['batch']} images, {plan['trained']} of them trained"
        + f" ({others} recorded, or by another study)"
        * bool(others),
        f"runs     {plan['folder']}, {plan['slots']}",
        f"data     {plan['data']}{missing}",
        f"metrics  {metrics}",
        f"claims   {plan['claims']}",
        "",
        format_table(["SYSTEM", "RUNS", "STEPS LEFT", "S/STEP", "HOURS"], rows),
    ]
    if plan["queue"] is not None:
        queue = plan["queue"]
        parameters = " ".join(f"{key}={value}" for key, value in queue["parameters"].items())
        states = [[name, state] for name, state in queue["runs"].items()]
        lines += ["", format_table(["RUN", "STATE"], states, 2), ""]
        lines += [f"{queue['executor']} jobs: {parameters}"]
        lines += ["", queue["script"]] if queue["script"] else []
    if plan["hours"] is not None:
        shared = shared_note(plan["busy_cores"])
        lines += ["", f"Note: {shared}; alone it may be faster"] if shared else []
        cores = "" if plan["core_hours"] is None else f" ({plan['core_hours']:.1f} core-hours)"
        lines += [
            "",
            f"about {duration(plan['hours'] * 3600)} of training{cores}, and the measuring",
        ]
    return "\n".join(lines)
