"""`sri edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sri_cli.cli.options import COUNT, FIGURE_FILE, RUN, SLOTS, TEMPERATURE, reject, seed_option
from sri_cli.console import warn


@click.command()
@click.argument("action", type=click.Choice(["remove", "repeat", "exchange", "reimagine"]))
@RUN
@click.option(
    "--slot",
    type=int,
    multiple=True,
    metavar="k",
    show_default="each in turn",
    help="Slot, counted from 1; repeat for several at once.",
)
@click.option(
    "--num", type=COUNT, metavar="N", show_default="suits the action", help="Number of scenes."
)
@seed_option("Seed for scenes, posterior samples and variants.")
@SLOTS
@TEMPERATURE
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Edit this image, or exchange slots with it.",
)
@click.option(
    "--index", type=int, metavar="i", help="The same with image i of the test split, from 1."
)
@click.option(
    "--variants",
    type=click.IntRange(1, 21),
    metavar="N",
    default=6,
    help="Variants per scene for reimagine.",
)
@FIGURE_FILE
@click.pass_context
def command(ctx: click.Context, action: str, run: str | None, **options: Any) -> None:
    """Remove, repeat, exchange or reimagine slots of scenes.

    Draws the scenes before and after with their masks.

    \b
    remove     scenes without a slot
    repeat     a slot twice in its scene, and in place of other scenes' slots
    exchange   slots exchanged between two scenes, or between scenes and an image
    reimagine  drawn again from slot k on; the scene latent and the slots before stay

    Slots are numbered and coloured as in `sri order`.
    """
    from sri_cli.plotting.edits import WITH_SCENES, edit_run

    if action != "reimagine":
        reject(ctx, {"variants"}, f"with {action}")
    if options["image"] is not None:
        reject(ctx, {"index"}, "with --image")
    if options["image"] is not None or options["index"] is not None:
        without_effect = {"slots"} if action in WITH_SCENES else {"slots", "num"}
        without_effect |= {"temperature"} if action == "remove" else set()
        reject(ctx, without_effect, f"when {action} edits an image")
    path, notes = edit_run(ctx.obj, run, action, **options)
    for note in notes:
        warn(note)
    click.echo(path)
