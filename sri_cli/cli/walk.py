"""`sri walk`."""

from __future__ import annotations

from typing import Any

import click

from sri_cli.cli.options import RUNS, SLOTS, TEMPERATURE, out_option, reject, seed_option
from sri_cli.console import warn


@click.command()
@RUNS
@out_option("FILE", "in the figures/ of the run", "MP4 or GIF to write; without a suffix both.")
@click.option(
    "--num", type=click.IntRange(1, 36), metavar="N", default=4, help="Walks side by side."
)
@click.option(
    "--frames", type=click.IntRange(2, 1500), metavar="N", default=150, help="Frames of the video."
)
@click.option(
    "--fps", type=click.IntRange(1, 50), metavar="N", default=25, help="Frames per second."
)
@seed_option("Seed; walk i begins at its scene i.")
@SLOTS
@TEMPERATURE
@click.option("--masks", is_flag=True, help="Show the masks beside the scenes.")
@click.option("--slot", type=int, metavar="k", help="Only slot k walks, counted from 1.")
@click.option(
    "--between",
    type=click.IntRange(min=0),
    nargs=2,
    metavar="A B",
    help="From the scenes of seed A to those of seed B and back.",
)
@click.pass_context
def command(ctx: click.Context, runs: tuple[str, ...], **options: Any) -> None:
    """Write videos of walks through the scene latent or one slot.

    The last frame leads to the first. While the scene latent moves, the noise of the slots stays
    the same. With --slot k all other slots stay as they were drawn.
    """
    from sri_cli.plotting.video import walk_runs

    if options["between"] is not None:
        reject(ctx, {"seed"}, "with --between")
    files, notes = walk_runs(ctx.obj, runs, **options)
    for note in notes:
        warn(note)
    click.echo("\n".join(map(str, files)))
