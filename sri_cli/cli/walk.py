"""`sri walk`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import RUNS, SLOTS, TEMPERATURE
from sri_cli.run import Workspace


@click.command()
@RUNS
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Left out: the run's figures/."
)
@click.option("--num", type=int, default=4, show_default=True, help="Walks side by side.")
@click.option("--frames", type=int, default=150, show_default=True, help="Frames of the film.")
@click.option("--fps", type=int, default=25, show_default=True, help="Frames a second.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Walk i begins at image i of the seed."
)
@SLOTS
@TEMPERATURE
@click.option("--masks", is_flag=True, help="Show the slots' masks beside the scenes.")
@click.option("--slot", type=int, metavar="k", help="Only slot k walks, the first being 1.")
@click.option(
    "--between", type=int, nargs=2, metavar="A B", help="From the scenes of seed A to those of B."
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["mp4", "gif", "both"]),
    help="Left out: as FILE ends, else both.",
)
@click.pass_obj
def command(
    workspace: Workspace,
    runs: tuple[str, ...],
    out: Path | None,
    num: int,
    frames: int,
    fps: int,
    seed: int,
    slots: int | None,
    temp: float,
    masks: bool,
    slot: int | None,
    between: tuple[int, int] | None,
    file_format: str | None,
) -> None:
    """Film random walks in the scene latent, or of one slot; the last frame meets the first.

    The slots' noise is held while the scene moves. With --slot k all slots but k are held as they
    were drawn, those after it too.
    """
    from sri_cli.generation.walk_film import Request, walk_runs

    request = Request(num, frames, fps, seed, slots, temp, masks, slot, between, file_format)
    result = walk_runs(workspace, runs, request, out)
    click.echo("\n".join(result.notes), err=True)
    click.echo("\n".join([*result.lines, *(f"look: {path}" for path in result.files)]))
