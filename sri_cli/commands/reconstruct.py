"""`sri reconstruct`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.workspace import Workspace


@click.command()
@click.option("--run", metavar="RUN", help="Run or checkpoint; left out: the latest run.")
@click.option("--data", metavar="NAME|FILE", help="Left out: what the run was trained on.")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--num", type=int, default=10, show_default=True, help="Images to show.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the posterior samples.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Left out: the run's figures/.",
)
@click.option(
    "--dynamic-slots", is_flag=True, help="As many slots as an image wants (GENESIS-v2 inside)."
)
@click.pass_obj
def command(
    workspace: Workspace,
    run: str | None,
    data: str | None,
    split: str,
    num: int,
    seed: int,
    out: Path | None,
    dynamic_slots: bool,
) -> None:
    """Show images as the model sees them.

    Rows: input, segregation masks, reconstruction, decoded masks, imagination rollout.
    """
    from sri_cli.looking.reconstruct import reconstruct_of_run

    path, caption = reconstruct_of_run(workspace, run, data, split, num, seed, out, dynamic_slots)
    click.echo(f"{num} images of {caption}, {split} split: {path}")
