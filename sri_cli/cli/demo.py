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
    help="Folder for data, run and report.",
)
@click.option("--steps", type=int, help="Training steps.  [default: the recipe's]")
@click.option("--scenes", type=int, help="Training scenarios.  [default: the preset's]")
def command(out: Path, steps: int | None, scenes: int | None) -> None:
    """Go from nothing to a report with new scenes, in minutes.

    Run the same command again to resume.
    """
    from sri_cli.console import duration
    from sri_cli.demo import SAMPLES, run_demo

    demo = run_demo(out, steps, scenes)
    click.echo(
        f"S-Acc estimate: {demo.sacc_estimate:.0%} of {SAMPLES} samples are plausible stacks"
        f" ({demo.run.title})\n"
        f"samples: {demo.samples / 'grid.png'}\n"
        f"report: {demo.report} (after {duration(demo.seconds)})"
    )
