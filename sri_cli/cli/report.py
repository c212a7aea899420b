"""`sri report`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import RUNS
from sri_cli.run import Workspace


@click.command()
@RUNS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Left out: report.html in the run's folder, or here for several runs.",
)
@click.pass_obj
def command(workspace: Workspace, runs: tuple[str, ...], out: Path | None) -> None:
    """Gather all about runs in one HTML page: recipe, data, training, measurements, pictures.

    The page is one file that needs nothing from outside. Nothing is measured by it.
    """
    from sri_cli.plotting.report_write import report_of_runs

    click.echo(f"look: {report_of_runs(workspace, runs, out)}")
