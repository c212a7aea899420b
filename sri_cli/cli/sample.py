"""`sri sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sri_cli.cli.options import COUNT, RUN, SLOTS, TEMPERATURE, THREADS, seed_option, start_threads
from sri_cli.console import counted, warn
from sri_cli.cores import Threads
from sri_cli.run import Workspace


@click.command()
@RUN
@SLOTS
@TEMPERATURE
@click.option("--num", type=COUNT, default=64, metavar="N", help="Number of scenes.")
@seed_option("Seed; image i depends on it and on i alone.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="in the samples/ of the run",
    help="Folder to write.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "npz", "h5"]),
    default="png",
    help="Format of the images.",
)
@click.option("--masks", is_flag=True, help="Write the mask of every slot too.")
@click.option(
    "--layers",
    is_flag=True,
    help="Write every slot as an RGBA layer; the layers, one over the other, give the image.",
)
@click.option(
    "--latents", is_flag=True, help="Write the slots and scene latents; with PNG in latents.npz."
)
@THREADS
@click.pass_obj
def command(workspace: Workspace, run: str | None, threads: Threads, **options: Any) -> None:
    """Sample new scenes from a trained model.

    Writes single images and a grid of them.
    """
    from sri_cli.generation.sample import check_request
    from sri_cli.generation.trained_run import open_run, slots_notes
    from sri_cli.plotting.samples import write_samples

    slots = 1 if options["slots"] is None else options["slots"]
    check_request(options["num"], slots, options["temperature"], options["seed"])
    trained = open_run(workspace, run)
    start_threads(threads)
    folder = write_samples(trained, **options)
    for note in slots_notes([trained], options["slots"]):
        warn(note)
    click.echo(f"{counted(options['num'], 'scene')} ({trained.title}): {folder}")
    click.echo(folder / "grid.png")
