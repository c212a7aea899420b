"""`sri report`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import RUNS, out_option
from sri_cli.run import Workspace


@click.command()
@RUNS
@out_option("FILE", "report-NNN.html in the run's folder, or here for several runs", "The page.")
@click.pass_obj
def command(workspace: Workspace, runs: tuple[str, ...], out: Path | None) -> None:
    """Write one HTML page about runs.

    It shows recipe, data, training, images and earlier measurements, in a single file.
    """
    from sri_cli.plotting.report import report_of_runs

    click.echo(report_of_runs(workspace, runs, out))
