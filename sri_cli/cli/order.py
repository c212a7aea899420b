"""`sri order`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import FIGURE_FILE, JSON, RUN, seed_option
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json


@click.command()
@RUN
@click.option(
    "--num",
    type=click.IntRange(2, 1024),
    metavar="N",
    default=100,
    help="Random scenes to compare.",
)
@seed_option("Seed for scenes and shuffled slots.")
@FIGURE_FILE
@JSON
@click.pass_obj
def command(
    workspace: Workspace, run: str | None, num: int, seed: int, out: Path | None, as_json: bool
) -> None:
    """Score and draw the order in which a model generates its slots.

    Draws random scenes slot by slot. Both scores are 0 without an order; beside them are those of
    randomly shuffled slots.
    """
    from sri_cli.generation.trained_run import open_run
    from sri_cli.metrics.tabular import estimate_words
    from sri_cli.plotting.from_runs import order_of_run

    record = order_of_run(open_run(workspace, run), num, seed, out)
    if as_json:
        click.echo(to_json(record))
        return
    click.echo(f"order consistency of {num} random scenes, {record['slots']} slots")
    for key, name in (
        ("iou_over_chance", "IoU over chance"),
        ("mutual_information", "mutual information"),
    ):
        model, shuffled = (estimate_words(**record[which][key]) for which in ("model", "shuffled"))
        click.echo(f"{name:<20}{model}   slots shuffled: {shuffled}")
    click.echo(record["figure"])
