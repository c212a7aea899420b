"""`sri demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="sri-demo",
    show_default=True,
    metavar="DIR",
    help="Data, run and report lie here.",
)
@click.option("--steps", type=int, help="Training steps; left out: the recipe's.")
@click.option("--scenes", type=int, help="Training scenarios; left out: the preset's.")
def command(out: Path, steps: int | None, scenes: int | None) -> None:
    """From nothing to a report with new scenes, in minutes; again: goes on where it stopped."""
    from sri_cli.demo import run_demo, words

    report, shown = run_demo(out, steps, scenes)
    click.echo(words(report, shown))
