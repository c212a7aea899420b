"""`sri figure`."""

from __future__ import annotations

from pathlib import Path

import click

from sri_cli.cli.options import RUNS
from sri_cli.run import Workspace


@click.command()
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="Say what figures there are.")
@RUNS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Left out: figure-NAME.png in the run's figures/.",
)
@click.option("--num", type=int, help="Scenes or images of each run.")
@click.option("--slots", type=int, metavar="K", help="Slots per scene; of `slots`: one more row.")
@click.option(
    "--temp", type=float, metavar="T", help="Temperature, above 0; of `temperature`: one more row."
)
@click.option("--seed", type=int, help="Of scenes and posterior samples.  [default: 0]")
@click.option(
    "--scale",
    default="2x",
    show_default=True,
    metavar="PX|Nx",
    help="Of a PNG: a picture's side in pixels, or times its standard size.",
)
@click.option(
    "--captions/--no-captions", default=True, show_default=True, help="Words beside the pictures."
)
@click.option(
    "--format", "file_format", type=click.Choice(["png", "pdf"]), help="Left out: as FILE ends."
)
@click.pass_obj
def command(
    workspace: Workspace,
    name: str | None,
    listed: bool,
    runs: tuple[str, ...],
    out: Path | None,
    num: int | None,
    slots: int | None,
    temp: float | None,
    seed: int | None,
    scale: str,
    captions: bool,
    file_format: str | None,
) -> None:
    """Draw a figure of the paper from trained runs, as PNG or as PDF for print.

    A PDF has words and lines as vectors, and its pictures pixel by pixel.
    """
    from sri_cli.plotting.figure_names import listing

    if listed:
        click.echo(listing())
        return
    from sri_cli.plotting.figure_draw import Request, figure_of_runs

    request = Request(name, num, slots, temp, seed, scale, captions, file_format)
    result = figure_of_runs(workspace, runs, request, out)
    for note in result.notes:
        click.echo(note, err=True)
    click.echo(f"look: {result.path}")
