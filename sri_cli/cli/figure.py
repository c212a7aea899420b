"""`sri figure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sri_cli.cli.options import (
    COUNT,
    DATA_OF_RUN,
    DYNAMIC_SLOTS,
    FIGURE_FILE,
    RUNS,
    SLOTS,
    SPLIT,
    TEMPERATURE,
    reject,
    seed_option,
)
from sri_cli.console import warn

NAMES = (
    "samples",
    "order",
    "slots",
    "temperature",
    "reconstructions",
    "segmentation",
    "matching",
    "failures",
    "curves",
    "table",
)


@click.command()
@click.argument("name", type=click.Choice(NAMES), metavar="NAME")
@RUNS
@FIGURE_FILE
@click.option(
    "--num",
    type=COUNT,
    metavar="N",
    show_default="suits the figure",
    help="Scenes or images of each run.",
)
@SLOTS
@TEMPERATURE
@seed_option("Seed for scenes and posterior samples.")
@DATA_OF_RUN
@SPLIT
@DYNAMIC_SLOTS
@click.option(
    "--scale",
    default="2x",
    metavar="Nx|PX",
    help="Size of a PNG: a factor, or the side of an image in pixels.",
)
@click.option("--rows", is_flag=True, help="For samples: one named row for each run.")
@click.option("--captions/--no-captions", default=True, help="Write text around the images.")
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    runs: tuple[str, ...],
    out: Path | None,
    scale: str,
    captions: bool,
    **options: Any,  # passed on
) -> None:
    """Draw a figure from trained runs, as PNG or PDF.

    NAME is one of:

    \b
    samples          random scenes: a row for each system, a column for each data set
    order            random scenes and their slots in generation order (Figure 4)
    slots            the same scene latents with fewer and more slots
    temperature      the same noise at several temperatures
    reconstructions  test images, masks, reconstructions and prior rollouts
    segmentation     test images, attention, decoded and true masks, every slot
    matching         what greedy, Hungarian, Sinkhorn and random order of SRI's slots cost the bound
    failures         random scenes that raters, or the S-Acc estimate, judged broken
    curves           errors, KLs and their weights in training
    table            recorded measurements beside the published rows (Tables 1 to 4)

    A file name that ends in .pdf gives a PDF. Image pixels are never smoothed, and a slot has the
    same colour in every figure. `slots` and `temperature` have one more row for the value of
    --slots or --temp.
    """
    from sri_cli.plotting.from_runs import DRAWN, IMAGE_FIGURES, IMAGES, Options, figure_of_runs

    used = IMAGE_FIGURES[name].options if name in IMAGE_FIGURES else set()
    reject(ctx, (DRAWN | IMAGES | {"rows"}) - used, f"in the figure {name}")
    chosen = Options(**options | {"num": options["num"] or 0})
    path, notes = figure_of_runs(ctx.obj, name, runs, chosen, out, scale, captions)
    for note in notes:
        warn(note)
    click.echo(path)
