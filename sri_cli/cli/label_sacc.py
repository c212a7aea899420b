"""`sri label-sacc`."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from sri_cli.cli.options import IMAGE_FOLDERS, JSON, RUNS, data_option, reject, seed_option
from sri_cli.console import print_line
from sri_cli.errors import SriError
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json

OF_LABELLING = {"num", "seed", "rater", "catch", "data", "port", "no_browser"}


@click.command(name="label-sacc")
@RUNS
@IMAGE_FOLDERS
@click.option("--num", type=int, metavar="N", default=100, help="Scenes of each model.")
@seed_option("Seed for scenes, catch trials and orders.")
@click.option("--rater", metavar="NAME", show_default="your login name", help="Who judges.")
@click.option(
    "--catch",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    help="Number of images with a known verdict mixed in.",
)
@data_option("the data of the run", "Data file from which real catch trials are taken.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="P",
    show_default="8765, or the next free port",
    help="Port of the page on this machine; 0: any.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, open no browser.")
@click.option("--summary", is_flag=True, help="Show the results so far instead of labelling.")
@JSON
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    folders: tuple[Path, ...],
    num: int,
    seed: int,
    rater: str | None,
    catch: int,
    data: str | None,
    port: int | None,
    no_browser: bool,
    summary: bool,
    as_json: bool,
) -> None:
    """Judge by eye whether generated scenes are plausible.

    The share of plausible stacks is S-Acc; rooms and tables have a question of their own. A web
    page shows the scenes of all models in one shuffled order and does not say which model a scene
    is from. Each answer is saved at once; run the same command again to continue.
    """
    from sri_cli.labeling.session import Session, check_rater, read_session
    from sri_cli.labeling.statistics import run_weights, summarise, summary_text

    workspace: Workspace = ctx.obj
    if summary:
        reject(ctx, OF_LABELLING, "with --summary")
        models = run_weights(workspace, runs)
    else:
        from sri_cli.labeling.app import serve
        from sri_cli.labeling.scenes import prepare_session

        rater = check_rater(rater or login_name())
        folder = prepare_session(workspace, runs, folders, num, seed, catch, data)
        print_line(f"rater {rater}, session {folder}")
        serve(Session(folder, rater), port, not no_browser)
        models, folders = {one.weights: one.name for one in read_session(folder).models}, ()
    facts = summarise(workspace, models, folders)
    click.echo(to_json(facts) if as_json else summary_text(facts))


def login_name() -> str:
    """The user's name; SriError where there is none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise SriError("your user has no login name", "--rater NAME") from error
