"""`sri segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sri_cli.cli.options import (
    COUNT,
    DYNAMIC_SLOTS,
    JSON,
    RUN,
    THREADS,
    TRUE_MASKS,
    mask_names,
    out_option,
    seed_option,
    start_threads,
)
from sri_cli.console import counted, warn
from sri_cli.cores import Threads
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json


@click.command()
@RUN
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder of images of any kind and size.",
)
@out_option("DIR", "in the segments/ of the run", "Folder to write.")
@click.option(
    "--crop",
    type=COUNT,
    metavar="PX",
    show_default="as the run's own images, or the largest square",
    help="Centre crop.",
)
@click.option(
    "--model-size", is_flag=True, help="Write masks at the size of the model, not of the images."
)
@seed_option("Seed of the posterior samples; image i depends on it and on i.")
@DYNAMIC_SLOTS
@TRUE_MASKS
@THREADS
@JSON
@click.pass_obj
def command(
    workspace: Workspace,
    run: str | None,
    dynamic_slots: bool,
    threads: Threads,
    as_json: bool,
    **options: Any,  # images, out, seed, crop, model_size, and where true masks are
) -> None:
    """Segment a folder of images: masks, layers and latents.

    Writes for every image a mask as indexed PNG (index k is slot k + 1, 255 lies outside of the
    crop), its slots as RGBA layers and their latents, and a sheet of the first images. Where true
    masks lie beside the images, as for `sri prepare folder`, ARI-FG, mBO and mIoU are measured.
    """
    from sri_cli.generation.trained_run import open_run
    from sri_cli.metrics.model_metrics import SEGMENTATION as NAMES
    from sri_cli.metrics.tabular import estimate_words
    from sri_cli.plotting.segments import segment_folder

    options["masks"] = mask_names(options)
    trained = open_run(workspace, run, dynamic_slots)
    start_threads(threads)
    folder, record, notes = segment_folder(trained, **options)
    for note in notes:
        warn(note)
    if as_json:
        click.echo(to_json(record | {"folder": str(folder)}))
        return
    click.echo(f"{counted(record['segmented'], 'image')} ({trained.title}): {folder}")
    for key, score in record["scores"].items():
        estimate = estimate_words(score["value"], score["low"], score["high"])
        click.echo(f"{NAMES[key]:<8}{estimate}  ({counted(score['images'], 'image')} with masks)")
    click.echo(folder / "sheet.png")
