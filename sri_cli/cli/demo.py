"""`sri demo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sri_cli.cli.options import COUNT, THREADS
from sri_cli.console import duration, format_table
from sri_cli.cores import Threads


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="sri-demo",
    metavar="DIR",
    help="Folder of data, run and report.",
)
@click.option("--steps", type=COUNT, metavar="N", default=6000, help="Training steps.")
@click.option(
    "--scenes", type=COUNT, metavar="N", show_default="as in the preset", help="Training scenes."
)
@THREADS
def command(out: Path, steps: int, scenes: int | None, threads: Threads) -> None:
    """Prepare data, train and write a report in about ten minutes.

    Run the same command again to resume.
    """
    from sri_cli.demo import run_demo
    from sri_cli.run import run_argument

    demo = run_demo(out, steps, scenes, threads)
    click.echo(
        f"{format_table(demo.comparison[0], demo.comparison[1:])}\n\n"
        f"samples: {demo.samples / 'grid.png'}\n"
        f"report: {demo.report} (after {duration(demo.seconds)})\n"
        f"next: sri sample --run {shlex.quote(run_argument(demo.run.run_dir))}"
    )
