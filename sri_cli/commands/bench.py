"""`sri bench train | sample | order`."""

from __future__ import annotations

import json
from typing import Any

import click

from sri_cli.workspace import Workspace

PRECISION = click.Choice(["auto", "fp32", "bf16"])


@click.group()
def command() -> None:
    """Time training, sampling and matching on this machine."""


@command.command()
@click.option("--recipe", "recipe_name", default="sri-mog", show_default=True, metavar="NAME|FILE")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Timed.")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Images per step; left out: the recipe's."
)
@click.option("--precision", type=PRECISION, default="auto", show_default=True)
@click.option("--gpus", default="auto", metavar="0|1|auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def train(
    recipe_name: str, steps: int, batch: int | None, precision: str, gpus: str, as_json: bool
) -> None:
    """Seconds per training step, on random images."""
    from sri_cli.precision import device_for
    from sri_cli.recipe.load import load_recipe
    from sri_cli.training.measure import bench_training

    words = [] if batch is None else [f"train.batch={batch}"]
    recipe = load_recipe(recipe_name, None, words)
    result = bench_training(recipe, steps, device_for(gpus), precision)
    click.echo(json.dumps(result) if as_json else training_text(result))


@command.command()
@click.option("--recipe", "recipe_name", default="sri-mog", show_default=True, metavar="NAME|FILE")
@click.option("--num", type=click.IntRange(min=1), default=64, show_default=True, help="Images.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--precision", type=PRECISION, default="auto", show_default=True)
@click.option("--gpus", default="auto", metavar="0|1|auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sample(
    recipe_name: str, num: int, repeats: int, precision: str, gpus: str, as_json: bool
) -> None:
    """Images per second of sampling, with an untrained model."""
    from sri_cli.precision import device_for
    from sri_cli.recipe.load import load_recipe
    from sri_cli.training.measure import bench_sampling

    recipe = load_recipe(recipe_name)
    result = bench_sampling(recipe, num, repeats, device_for(gpus), precision)
    click.echo(json.dumps(result) if as_json else sampling_text(result))


@command.command()
@click.option("--run", metavar="RUN", help="Match what this run matches; left out: made-up means.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Images at once."
)
@click.option("--gpus", default="auto", metavar="0|1|auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.pass_obj
def order(
    workspace: Workspace, run: str | None, seed: int, batch: int, gpus: str, as_json: bool
) -> None:
    """Greedy against Hungarian matching of slots: time, and how far they are apart.

    The excess is how much larger the greedy total distance is than the least one.
    """
    from sri_cli.looking.matching import bench_order, words
    from sri_cli.precision import device_for

    result = bench_order(workspace, run, batch, seed, device_for(gpus))
    click.echo(json.dumps(result) if as_json else words(result, machine_text(result)))


def training_text(result: dict[str, Any]) -> str:
    """The figures of `bench train` for people."""
    return (
        f"{machine_text(result)}\n"
        f"{result['recipe']}: {result['parameters']:,} parameters, batch {result['batch']},"
        f" {result['dtype']}\n"
        f"{result['seconds_per_step']:.3f} s a step (median of {result['steps']};"
        f" {result['seconds_min']:.3f} to {result['seconds_max']:.3f}),"
        f" {result['images_per_second']:.1f} images/s\n"
        f"{result['gflop_per_step']:.1f} GFLOP, {result['aten_calls']:,} ATen calls,"
        f" {result['host_reads']} host reads a step"
    )


def sampling_text(result: dict[str, Any]) -> str:
    """The figures of `bench sample` for people."""
    return (
        f"{machine_text(result)}\n"
        f"{result['recipe']}: {result['num']} images of {result['slots']} slots,"
        f" {result['dtype']}\n"
        f"{result['images_per_second']:.1f} images/s (median of {result['repeats']};"
        f" {result['images_per_second_min']:.1f} to {result['images_per_second_max']:.1f})"
    )


def machine_text(result: dict[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{result['machine']}, {result['cores']} cores, {result['threads']} threads,"
        f" {result['device']}, torch {result['torch']}"
    )
