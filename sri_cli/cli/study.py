"""`sri study`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from sri_cli.cli import completion
from sri_cli.cli.options import JSON, THREADS, out_option, start_threads
from sri_cli.cores import Threads
from sri_cli.errors import SriError
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json


@click.command()
@click.argument("study", required=False, metavar="NAME|FILE", shell_complete=completion.studies)
@click.option(
    "--jobs",
    type=int,
    metavar="N",
    show_default="one for each GPU, or one; of SLURM all",
    help="Runs at a time.",
)
@THREADS
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm"]),
    help="Submit every run as a job: to SLURM, or to this machine (submitit).",
)
@click.option(
    "--slurm",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    show_default="those in SRI_SLURM",
    help="Parameter of every job, such as partition, time, mem, cpus_per_task, gpus_per_node,"
    " account; repeat for several.",
)
@click.option("--cancel", is_flag=True, help="Let the jobs of the study save and end.")
@click.option("--only", metavar="SYSTEM,...", help="Run only these systems now.")
@click.option("--seeds", metavar="N,...", help="Run only these seeds now.")
@click.option("--dry-run", is_flag=True, help="Show the plan and its hours; run nothing.")
@click.option(
    "--table",
    "style",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    help="Format of the table.",
)
@out_option(
    "DIR", "the folder of the runs", "Folder of table, summary and figures.", file_okay=False
)
@JSON
@click.pass_obj
def command(
    workspace: Workspace,
    study: str | None,
    jobs: int | None,
    threads: Threads,
    executor: str | None,
    parameters: tuple[str, ...],
    cancel: bool,
    only: str | None,
    seeds: str | None,
    dry_run: bool,
    style: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run recipes by seeds, with a verdict on each claim.

    A study's file names the systems, the data, what is measured and what is claimed.
    Run the same command again to resume. Ctrl-C, SIGTERM and a closed terminal save all runs and
    stop (exit code 75).
    With --executor they stop the waiting alone: the jobs go on, and the same command collects them.
    """
    from sri_cli.studies.plan import plan_study, plan_text
    from sri_cli.studies.runner import cancel_jobs, run_study

    if study is None:
        from sri_cli.config.registry import study_names

        raise SriError("no study given", f"name a file, or one of {', '.join(study_names())}")
    options: dict[str, Any] = {
        "systems": None if only is None else split_names("--only", only),
        "seeds": None if seeds is None else split_seeds(seeds),
    }
    queue = None
    if executor is not None:
        from sri_cli.studies.queues import open_queue

        queue = open_queue(executor, [*usual_parameters(executor), *parameters])
    elif parameters or cancel:
        option = "--cancel" if cancel else "--slurm"
        raise SriError(f"{option} has no effect on runs that are no jobs", "add --executor slurm")
    if cancel and dry_run:
        raise SriError("--cancel has no dry run", "leave out one of the two")
    if cancel and queue is not None:
        cancelled = cancel_jobs(workspace, study, queue, **options)
        if as_json:
            click.echo(to_json({"cancelled": cancelled}))
        else:
            lines = [f"cancelled {name}" for name in cancelled] or [f"{study} has no jobs"]
            click.echo("\n".join(lines), err=not cancelled)
        return
    options |= {"jobs": jobs, "threads": threads, "queue": queue}
    if dry_run:
        plan = plan_study(workspace, study, **options)
        click.echo(to_json(plan) if as_json else plan_text(plan))
        return
    start_threads(threads)
    text, summary, error = run_study(workspace, study, **options, style=style, out=out)
    click.echo(to_json(summary) if as_json else text)
    if error is not None:  # after the table of the other runs
        raise error


def usual_parameters(executor: str) -> list[str]:
    """The words of SRI_SLURM, which are for jobs of SLURM; SriError where they are unbalanced."""
    text = os.environ.get("SRI_SLURM", "") if executor == "slurm" else ""
    try:
        return shlex.split(text)
    except ValueError as error:
        fault = str(error)[:1].lower() + str(error)[1:]
        raise SriError(f"SRI_SLURM={text}: {fault}", "close the quotation mark") from error


def split_names(option: str, text: str) -> list[str]:
    """The names of "a,b"; SriError when there are none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise SriError(f"{option} names nothing", f"leave out {option} for all of them")
    return names


def split_seeds(text: str) -> list[int]:
    """The seeds of "0,1"; SriError for anything else."""
    names = split_names("--seeds", text)
    for name in names:
        if not name.isdecimal():
            raise SriError(f"--seeds {text}: {name} is not a seed", "use --seeds 0,1")
    return [int(name) for name in names]
