"""`sri train`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sri_cli.cli.options import JSON, OVERRIDES, RECIPE_DATA
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json

if TYPE_CHECKING:
    from sri_cli.config.schema import Recipe
    from sri_cli.training.trainer import Outcome


@click.command()
@click.option(
    "--recipe", "recipe_name", required=True, metavar="NAME|FILE", help="Recipe to train."
)
@RECIPE_DATA
@click.option("--run", metavar="DIR", show_default="runs/<recipe>-<data set>", help="Run folder.")
@click.option(
    "--steps", type=int, metavar="N", help="Last step; a larger number trains a run further."
)
@click.option("--gpus", default="auto", metavar="N|auto", help="GPUs to use.")
@click.option(
    "--seed", type=int, metavar="S", help="Seed for initialisation, data order and noise."
)
@click.option("--fresh", is_flag=True, help="Start over; refuses to overwrite a run.")
@click.option("--dry-run", is_flag=True, help="Show recipe, size and time per step; train nothing.")
@JSON
@OVERRIDES
@click.pass_obj
def command(
    workspace: Workspace,
    recipe_name: str,
    data: str | None,
    run: str | None,
    steps: int | None,
    gpus: str,
    seed: int | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train a recipe; the same command again resumes.

    KEY=VALUE changes a value of the recipe, as in train.lr=2e-4. SIGINT, SIGTERM and SIGUSR1 save
    a checkpoint and stop (exit code 75). Several machines: torchrun ... -m sri_cli train ...
    """
    from sri_cli.data.dataset import DataFile
    from sri_cli.device import device_for, gpu_count
    from sri_cli.training.distributed import is_first, is_launched
    from sri_cli.training.run_folder import resolve_run
    from sri_cli.training.trainer import train

    words = [*overrides]
    words += [] if steps is None else [f"train.steps={steps}"]
    words += [] if seed is None else [f"train.seed={seed}"]
    recipe, data, run_dir = resolve_run(workspace, recipe_name, data=data, run=run, overrides=words)
    device, count = device_for(gpus), gpu_count(gpus)
    if dry_run:
        from sri_cli.training.step_timing import dry_run as measure

        result = measure(workspace, recipe, data, run_dir, device)
        show_dry_run(result, recipe, as_json)
        return
    file = DataFile(workspace.find_data(data, recipe.model.image_size))
    resume = shlex.join(["sri", *(word for word in sys.argv[1:] if word != "--fresh")])
    if count > 1 and not is_launched():
        from sri_cli.training.launch import launch

        outcome = launch(count, recipe, file, run_dir, device=device, fresh=fresh, command=resume)
    else:
        outcome = train(recipe, file, run_dir, device=device, fresh=fresh, command=resume)
    if is_first():
        show_outcome(outcome, as_json)


def show_outcome(outcome: Outcome, as_json: bool) -> None:
    """Print the last step and its checkpoint; as JSON with the last record."""
    if as_json:
        click.echo(to_json(asdict(outcome)))
        return
    click.echo(f"step {outcome.step}: {outcome.checkpoint}")
    click.echo(f"next: sri sample --run {shlex.quote(str(outcome.run))}")


def show_dry_run(result: dict[str, Any], recipe: Recipe, as_json: bool) -> None:
    """Print what would be trained, and how long it would take."""
    from sri_cli.config.load import recipe_to_yaml
    from sri_cli.console import duration

    if result["missing"]:
        click.echo(f"Note: {result['missing']}", err=True)
    if as_json:
        click.echo(to_json(result))
        return
    click.echo(recipe_to_yaml(recipe))
    click.echo(
        f"run             {result['run']}\n"
        f"parameters      {result['parameters']:,}\n"
        f"time per step   {result['seconds_per_step']:.3f} s"
        f" (batch {recipe.train.batch}, {result['precision']}, {result['device']})\n"
        f"expected total  {duration(result['expected_seconds'])} for {recipe.train.steps:,} steps"
    )
