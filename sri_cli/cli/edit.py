"""`sri edit`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import FIGURE_FILE, RUN, SLOTS, TEMPERATURE
from sri_cli.run import Workspace


@click.command()
@click.argument("action", type=click.Choice(["remove", "repeat", "exchange", "reimagine"]))
@RUN
@click.option(
    "--slot",
    type=int,
    multiple=True,
    metavar="k",
    help="The slot, the first being 1; repeat for several at once; left out: each in turn.",
)
@click.option("--num", type=int, help="Number of scenes; left out: as many as suit the action.")
@click.option("--seed", type=int, default=0, show_default=True, help="Scene i is image i of it.")
@SLOTS
@TEMPERATURE
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Edit this picture, or exchange slots with it.",
)
@click.option("--index", type=int, metavar="i", help="As --image, with image i of the test split.")
@click.option("--variants", type=int, help="Of reimagine; left out: 6.")
@FIGURE_FILE
@click.pass_obj
def command(
    workspace: Workspace,
    action: str,
    run: str | None,
    slot: tuple[int, ...],
    num: int | None,
    seed: int,
    slots: int | None,
    temp: float,
    image: Path | None,
    index: int | None,
    variants: int | None,
    out: Path | None,
) -> None:
    """Change scenes slot by slot, and show them before and after with their masks.

    \b
    remove     scenes without a slot
    repeat     a slot twice in its scene, and in the place of other scenes' slots
    exchange   slots exchanged between two scenes, or between scenes and a picture
    reimagine  from slot k on drawn anew; the scene latent and the slots before stay

    Slots are numbered and coloured as in `sri order`.
    """
    from sri_cli.generation.edit_show import Request, edit_run

    request = Request(action, slot, num, seed, slots, temp, image, index, variants)
    result = edit_run(workspace, run, request, out)
    for note in result.notes:
        click.echo(note, err=True)
    click.echo(f"{result.title}\nlook: {result.path}")
