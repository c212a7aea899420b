"""`sri study`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from sri_cli.cli.options import JSON
from sri_cli.errors import SriError
from sri_cli.run import Workspace


@click.command()
@click.argument("study", required=False, metavar="NAME|FILE")
@click.option("--jobs", type=int, help="Runs at a time. Left out: one for each GPU, or one.")
@click.option("--only", metavar="SYSTEM[,..]", help="Run only these systems now.")
@click.option("--seeds", metavar="N[,..]", help="Run only these seeds now.")
@click.option("--dry-run", is_flag=True, help="Show the plan and its hours; run nothing.")
@click.option(
    "--table",
    "style",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    show_default=True,
    help="How the result is printed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Table, summary and figures go there. Left out: the study's folder among the runs.",
)
@JSON
@click.pass_obj
def command(
    workspace: Workspace,
    study: str | None,
    jobs: int | None,
    only: str | None,
    seeds: str | None,
    dry_run: bool,
    style: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run a protocol of recipes and seeds; the same command again resumes.

    Each run is trained, measured and kept; at the end mean and spread over seeds, and whether the
    protocol's claims hold. SIGINT and SIGTERM save all runs and stop (exit code 75).
    """
    if study is None:
        from sri_cli.config.registry import study_names

        raise SriError("which study?", f"a file, or a shipped one: {', '.join(study_names())}")
    systems = None if only is None else words_of("--only", only)
    numbers = None if seeds is None else seeds_of(seeds)
    if dry_run:
        from sri_cli.studies.plan import plan_study, plan_words

        plan = plan_study(workspace, study, systems, numbers, jobs)
        click.echo(json.dumps(plan) if as_json else plan_words(plan))
        return
    from sri_cli.studies.runner import Asked, run_study

    again = shlex.join(["sri", *sys.argv[1:]])
    result = run_study(workspace, Asked(study, systems, numbers, jobs, style, out, again))
    click.echo(json.dumps(result.summary) if as_json else result.words)
    if result.error is not None:  # told after the table: the other runs stand
        raise result.error


def words_of(flag: str, text: str) -> list[str]:
    """'a,b' -> a and b; SriError when there is nothing between the commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise SriError(f"{flag} names nothing", "leave it out for all of them")
    return words


def seeds_of(text: str) -> list[int]:
    """'0,1' -> 0 and 1; SriError for what is no seed."""
    words = words_of("--seeds", text)
    for word in words:
        if not word.isdecimal():
            raise SriError(f"--seeds {text}: {word} is no seed", "--seeds 0,1")
    return [int(word) for word in words]
