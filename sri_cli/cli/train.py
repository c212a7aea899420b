"""`sri train`."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from sri_cli.cli.options import JSON, OVERRIDES, RECIPE_DATA
from sri_cli.run import Workspace

if TYPE_CHECKING:
    from sri_cli.config.schema import Recipe
    from sri_cli.training.trainer import Outcome


@click.command()
@click.option("--recipe", "recipe_name", required=True, metavar="NAME|FILE", help="What to train.")
@RECIPE_DATA
@click.option("--run", metavar="DIR", help="Run folder; left out: runs/<recipe>-<data set>.")
@click.option("--steps", type=int, help="Last step; a larger number trains a run on.")
@click.option("--gpus", default="auto", metavar="N|auto", show_default=True, help="GPUs to use.")
@click.option("--seed", type=int, help="Of weights, batches and noise.")
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
    from sri_cli.training.plan import dry_run as do_dry_run
    from sri_cli.training.plan import make_plan

    plan = make_plan(
        workspace,
        recipe_name,
        data=data,
        run=run,
        steps=steps,
        seed=seed,
        gpus=gpus,
        overrides=overrides,
    )
    if dry_run:
        show_dry_run(do_dry_run(plan, workspace), plan.recipe, as_json)
        return
    from sri_cli.training.distributed import is_first
    from sri_cli.training.launch import train_on

    outcome = train_on(plan.gpus, plan.job(workspace, fresh, resume_command(sys.argv[1:])))
    if is_first():
        show_outcome(outcome, as_json)


def resume_command(words: list[str]) -> str:
    """The command that goes on with the run."""
    return shlex.join(["sri", *(word for word in words if word != "--fresh")])


def show_outcome(outcome: Outcome, as_json: bool) -> None:
    """The result: where the run stands and its last record."""
    if as_json:
        click.echo(json.dumps(outcome_dict(outcome)))
        return
    click.echo(f"step {outcome.step}: {outcome.checkpoint}")
    click.echo(f"next: sri sample --run {shlex.quote(str(outcome.run_dir))}")


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """The outcome as --json prints it."""
    from sri_cli.training.log import finite_or_none

    return {
        "run": str(outcome.run_dir),
        "step": outcome.step,
        "resumed_from": outcome.resumed_from,
        "checkpoint": str(outcome.checkpoint),
        "seconds": outcome.seconds,
        "record": {name: finite_or_none(value) for name, value in outcome.record.items()},
    }


def show_dry_run(result: dict[str, Any], recipe: Recipe, as_json: bool) -> None:
    """What would be trained."""
    from sri_cli.config.load import recipe_to_yaml
    from sri_cli.console import duration

    if result["missing"]:
        click.echo(f"Note: {result['missing']}", err=True)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(recipe_to_yaml(recipe))
    click.echo(
        f"run             {result['run']}\n"
        f"parameters      {result['parameters']:,}\n"
        f"time per step   {result['seconds_per_step']:.3f} s"
        f" (batch {recipe.train.batch}, {result['precision']}, {result['device']})\n"
        f"expected total  {duration(result['expected_seconds'])} for {recipe.train.steps:,} steps"
    )
