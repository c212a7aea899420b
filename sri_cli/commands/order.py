"""`sri order`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sri_cli.workspace import Workspace


@click.command()
@click.option("--run", metavar="RUN", help="Run or checkpoint; left out: the latest run.")
@click.option("--num", type=int, default=100, show_default=True, help="Random scenes to compare.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of scenes and bootstrap.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Left out: the run's figures/.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_obj
def command(
    workspace: Workspace, run: str | None, num: int, seed: int, out: Path | None, as_json: bool
) -> None:
    """Show random scenes slot by slot, and score how constant their order is.

    Both scores are 0 without order; beside them stand those of randomly shuffled slots.
    """
    from sri_cli.looking.order import order_of_run, words

    record = order_of_run(workspace, run, num, seed, out)
    click.echo(json.dumps(record) if as_json else words(record))
