"""`sri runs ls | diff | rm`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal

from sri_cli.cli import completion
from sri_cli.cli.options import JSON
from sri_cli.console import duration, format_table, print_line
from sri_cli.errors import SriError, Stopped
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json

if TYPE_CHECKING:
    from sri_cli.metrics.records import Measurement
    from sri_cli.runs import Difference, Summary

SHOWN = 4  # measurements of a run in the list
SORTED_BY = {  # --sort -> the attribute of a Summary, and whether the largest comes first
    "date": ("time", True),
    "name": ("run", False),
    "recipe": ("recipe", False),
    "step": ("step", True),
    "size": ("bytes", True),
    "error": ("error", False),
}


@click.group()
def command() -> None:
    """List, compare and remove runs."""


@command.command()
@click.option("--sort", type=click.Choice(list(SORTED_BY)), default="date", help="Order.")
@JSON
@click.pass_obj
def ls(workspace: Workspace, sort: str, as_json: bool) -> None:
    """List the runs with what they were trained on, their state and what was measured."""
    from sri_cli.runs import summaries

    key, largest_first = SORTED_BY[sort]
    runs = summaries(workspace)
    known = [one for one in runs if getattr(one, key) is not None]
    known.sort(key=lambda one: getattr(one, key), reverse=largest_first)
    runs = known + [one for one in runs if getattr(one, key) is None]
    if as_json:
        click.echo(to_json({"runs": [asdict(one) for one in runs]}))
    elif runs:
        click.echo(list_text(runs))
    else:
        example = "to train one in minutes: sri train sri-g --data demo-towers size=tiny"
        print_line(f"no runs in {workspace.runs_root}; {example}")


def _rank(m: Measurement, data: str | None) -> tuple[bool, bool, int]:
    """Which of several values is shown: one of test images of the run's own data, of the most."""
    from sri_cli.metrics.records import sample_size

    of = m.get("data") or {}
    own = (of.get("name", data), of.get("split", "test")) == (data, "test")
    is_known, number = sample_size(m)
    return is_known, own, number


def list_text(runs: list[Summary]) -> str:
    """A line for each run."""
    from sri_cli.metrics.tables import COLUMNS, rounded

    now, rows = datetime.now(UTC), []
    for one in runs:
        age = duration(max(0.0, (now - datetime.fromisoformat(one.time)).total_seconds()))
        best = {m["metric"]: m for m in sorted(one.metrics, key=lambda m: _rank(m, one.data))}
        values = [
            f"{best[name]['name']} {rounded(best[name]['value'], name)}"
            for name in COLUMNS
            if name in best and best[name]["value"] is not None
        ]
        if len(values) > SHOWN:
            values[SHOWN - 1 :] = [f"and {len(values) - SHOWN + 1} more"]
        rows.append(
            [
                one.run,
                f"{one.recipe or '?'}{'' if one.size in (None, 'paper') else f' {one.size}'}",
                one.data or "?",
                f"{one.step:,}/{one.steps:,}" if one.steps else f"{one.step:,}",
                "training" if one.training else age,
                decimal(one.bytes),
                "-" if one.error is None else f"{one.error:.4f}",
                "-" if one.kl is None else f"{one.kl:.1f}",
                ", ".join(values) or "-",
            ]
        )
    header = ("RUN", "RECIPE", "DATA", "STEP", "AGE", "SIZE", "ERROR", "KL", "MEASURED")
    return format_table(header, rows, left=len(header))


@command.command()
@click.argument("runs", nargs=2, metavar="A B", shell_complete=completion.runs)
@JSON
@click.pass_obj
def diff(workspace: Workspace, runs: tuple[str, str], as_json: bool) -> None:
    """Show what differs between two runs: settings, data, code, results and commands."""
    from sri_cli.runs import compare

    found = compare(workspace, runs)
    click.echo(to_json(asdict(found)) if as_json else difference_text(found))


def difference_text(found: Difference) -> str:
    """The differences as tables below each other."""
    from sri_cli.metrics.tables import evaluation_text

    titles = [f"{run}, step {step:,}" for run, step in zip(found.runs, found.steps, strict=True)]
    code = {key: values for key, values in found.code.items() if values[0] != values[1]}
    results = {
        key: ["-" if value is None else f"{value:.4g}" for value in values]
        for key, values in found.training.items()
    }
    rows = [[key, *values] for key, values in (found.settings | code | results).items()]
    parts = [
        f"{len(found.settings)} of {found.compared} settings differ",
        format_table(["", *titles], rows, left=3),
    ]
    records = [
        {**m, "subject": {**m["subject"], "run": run}}
        for run, own in zip(found.runs, found.metrics, strict=True)
        for m in own
    ]
    parts += ["", evaluation_text(records)] if records else []
    for run, lines in zip(found.runs, found.commands, strict=True):
        parts += ["", f"# {run}", *(lines or ["# not recorded"])]
    return "\n".join(parts)


@command.command()
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.run_folders
)
@click.option(
    "--old-checkpoints", is_flag=True, help="Keep the runs; remove all but the newest checkpoint."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(workspace: Workspace, runs: tuple[str, ...], old_checkpoints: bool, yes: bool) -> None:
    """Remove runs, or studies with all runs and results.

    Only folders in the runs folder are removed, and no run that is being trained.
    """
    from sri_cli.runs import bytes_in, removable, remove

    folders = removable(workspace, runs)
    if not yes:
        if not sys.stdin.isatty():
            raise SriError("without a terminal nobody can confirm", "add --yes")
        for folder in folders:
            print_line(f"{folder}  {decimal(bytes_in(folder))}")
        what = "all but the newest checkpoint of each" if old_checkpoints else "all of this"
        if not click.confirm(f"Remove {what}?", err=True):
            print_line("Nothing was removed.")
            return
    for folder in folders:
        try:
            freed = remove(folder, old_checkpoints)
        except KeyboardInterrupt as stop:
            raise Stopped(
                f"Stopped; {folder} may be removed in part.", "`sri runs rm` removes the rest."
            ) from stop
        click.echo(f"{folder}: {freed:,} bytes freed")
