"""`sri judge train | check`: the two networks that look at stacks."""

from __future__ import annotations

import json

import click

from sri_cli.cli.options import JSON

WHICH = click.Choice(["factors", "touching"])


@click.group()
def command() -> None:
    """Make or check the networks behind stack-FD and the S-Acc estimate."""


@command.command()
@click.argument("which", type=WHICH)
@click.option("--out", default="judge", show_default=True, metavar="DIR", help="For the two files.")
@click.option(
    "--pictures",
    type=click.IntRange(min=64),
    default=48_000,
    show_default=True,
    help="Simulated, to learn from.",
)
@click.option(
    "--held-out",
    type=click.IntRange(min=64),
    default=8000,
    show_default=True,
    help="Others, to count its errors on.",
)
@click.option("--steps", type=click.IntRange(min=1), default=6000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Left out: one per core.")
def train(
    which: str,
    out: str,
    pictures: int,
    held_out: int,
    steps: int,
    seed: int,
    workers: int | None,
) -> None:
    """Train a network; the shipped ones' commands stand in the .json beside their weights."""
    from pathlib import Path

    from sri_cli.metrics.stack_classifiers.judging import train_network

    click.echo(train_network(which, Path(out), pictures, held_out, steps, seed, workers))


@command.command()
@click.option(
    "--num",
    type=click.IntRange(min=200),
    default=2000,
    show_default=True,
    help="Pictures of each kind of damage.",
)
@click.option("--random-inception", is_flag=True, help="The same of random features (slow).")
@click.option("--workers", type=click.IntRange(min=1), help="Left out: one per core.")
@JSON
def check(num: int, random_inception: bool, workers: int | None, as_json: bool) -> None:
    """Try the shipped networks on new simulated pictures, sound and damaged."""
    from sri_cli.metrics.stack_classifiers.judging import check_networks, check_words

    found = check_networks(num, random_inception, workers)
    click.echo(json.dumps(found) if as_json else check_words(found))
