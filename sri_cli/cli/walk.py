"""`sri walk`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import RUNS, SLOTS, TEMPERATURE, seed_option
from sri_cli.run import Workspace


@click.command()
@RUNS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_default="in the figures/ of the run",
    help="A .mp4 or .gif; without an ending both.",
)
@click.option("--num", type=click.IntRange(1, 36), default=4, help="Walks side by side.")
@click.option("--frames", type=click.IntRange(2, 1500), default=150, help="Frames of the film.")
@click.option("--fps", type=click.IntRange(1, 50), default=25, help="Frames per second.")
@seed_option("Walk i begins at scene i of the seed.")
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
) -> None:
    """Film random walks of the scene latent, or of one slot; the last frame meets the first.

    The noise of the slots is held while the scene moves. With --slot k all other slots are held
    as they were drawn, those after it too.
    """
    from sri_cli.plotting.video import walk_runs

    files, notes = walk_runs(
        workspace,
        runs,
        num=num,
        frames=frames,
        fps=fps,
        seed=seed,
        slots=slots,
        temperature=temp,
        masks=masks,
        slot=slot,
        between=between,
        out=out,
    )
    for note in notes:
        click.echo(note, err=True)
    click.echo("\n".join(map(str, files)))
