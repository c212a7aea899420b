"""`sri export`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sri_cli.cli import completion
from sri_cli.cli.options import RUN
from sri_cli.run import Workspace, run_argument


@click.command()
@RUN
@click.option("--half", is_flag=True, help="Store the weights as float16: half the size.")
@click.option(
    "--license",
    "licence",
    default="apache-2.0",
    metavar="ID",
    help="Licence of the weights, for the card.",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=completion.metrics,
    help="Measure the exported weights first, as `sri eval` does.",
)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.pass_obj
def command(
    workspace: Workspace,
    run: str | None,
    half: bool,
    licence: str,
    metrics: str | None,
    directory: Path,
) -> None:
    """Write a model and its card for the Hugging Face Hub.

    DIR holds weights (safetensors), recipe, log, measurements and a README.md. It works as --run
    DIR, and as --run hf:OWNER/NAME once it is uploaded: hf upload OWNER/NAME DIR
    """
    from sri_cli.export import export
    from sri_cli.metrics.evaluate import parse_metrics

    names = () if metrics is None else parse_metrics(metrics)
    folder = export(workspace, run, directory, half=half, licence=licence, metrics=names)
    click.echo(f"{folder}: weights, config, {licence} licence; read README.md before you upload it")
    click.echo(f"next: sri sample --run {shlex.quote(run_argument(folder))}")
