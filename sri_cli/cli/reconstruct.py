"""`sri reconstruct`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import (
    DATA_OF_RUN,
    DYNAMIC_SLOTS,
    FIGURE_FILE,
    RUN,
    SPLIT,
    seed_option,
)
from sri_cli.run import Workspace


@click.command()
@RUN
@DATA_OF_RUN
@SPLIT
@click.option("--num", type=int, default=10, show_default=True, help="Images to show.")
@seed_option("Of the posterior samples.")
@FIGURE_FILE
@DYNAMIC_SLOTS
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
    from sri_cli.generation.reconstruct import reconstruct_of_run

    path, words = reconstruct_of_run(workspace, run, data, split, num, seed, out, dynamic_slots)
    click.echo(f"{words}: {path}")
