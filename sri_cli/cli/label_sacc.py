"""`sri label-sacc`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sri_cli.cli.options import PICTURE_FOLDERS, seed_option
from sri_cli.run import Workspace


@click.command(name="label-sacc")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Repeat for several runs.")
@PICTURE_FOLDERS
@click.option("--num", type=int, default=100, show_default=True, help="Scenes of each model.")
@seed_option("Of scenes, catch trials and orders.")
@click.option("--rater", metavar="NAME", help="Who judges; left out: the login name.")
@click.option(
    "--catch",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Pictures mixed in whose verdict is known.",
)
@click.option(
    "--data", metavar="NAME|FILE", help="Real pictures among these; left out: of the run's data."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Left out: 8765, or the next that is free."
)
@click.option("--no-browser", is_flag=True, help="Open no browser; the address is printed.")
@click.option("--terminal", is_flag=True, help="No web page: pictures and keys in this terminal.")
@click.option("--summary", is_flag=True, help="Judge nothing; show what was judged.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@click.pass_obj
def command(
    workspace: Workspace,
    runs: tuple[str, ...],
    folders: tuple[Path, ...],
    num: int,
    seed: int,
    rater: str | None,
    catch: int,
    data: str | None,
    port: int | None,
    no_browser: bool,
    terminal: bool,
    summary: bool,
    as_json: bool,
) -> None:
    """Judge by eye whether the stacks of new scenes are plausible: S-Acc.

    Scenes of all models named (left out: of the latest run) come in one shuffled order, and nothing
    tells whose they are. Every answer is kept at once; the same command goes on where it stopped.
    """
    from sri_cli.labeling import rate
    from sri_cli.labeling.sources import Wanted
    from sri_cli.labeling.words import words

    judge = rate.summary if summary else rate.label
    facts = judge(
        workspace,
        runs,
        folders,
        Wanted(num, seed, catch, data),
        rate.Way(rater, terminal, port, no_browser),
    )
    click.echo(json.dumps(facts) if as_json else words(facts))
