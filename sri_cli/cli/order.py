"""`sri order`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sri_cli.cli.options import FIGURE_FILE, JSON, RUN, seed_option
from sri_cli.run import Workspace


@click.command()
@RUN
@click.option("--num", type=int, default=100, show_default=True, help="Random scenes to compare.")
@seed_option("Of scenes and bootstrap.")
@FIGURE_FILE
@JSON
@click.pass_obj
def command(
    workspace: Workspace, run: str | None, num: int, seed: int, out: Path | None, as_json: bool
) -> None:
    """Show random scenes slot by slot, and score how constant their order is.

    Both scores are 0 without order; beside them stand those of randomly shuffled slots.
    """
    from sri_cli.generation.order import order_of_run, words

    record = order_of_run(workspace, run, num, seed, out)
    click.echo(json.dumps(record) if as_json else words(record))
