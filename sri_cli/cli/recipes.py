"""`sri recipes ls | show | keys | cp | validate`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sri_cli.cli import completion
from sri_cli.console import format_table


@click.group()
def command() -> None:
    """List, show, copy and check recipes."""


@command.command()
def ls() -> None:
    """List the shipped recipes with their system, data sets and steps."""
    from sri_cli.config.load import data_sets, load_recipe
    from sri_cli.config.registry import recipe_names

    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)  # steps are those on the default data set
        sets, steps = ", ".join(data_sets(name)), f"{recipe.train.steps:,}"
        rows.append((name, recipe.model.system, sets, steps, recipe.description))
    header = ("NAME", "SYSTEM", "DATA SETS", "STEPS", "DESCRIPTION")
    click.echo(format_table(header, rows, left=len(header)))


@command.command()
@click.argument("name", shell_complete=completion.recipes)
def show(name: str) -> None:
    """Print the file of the recipe NAME, shipped or a path."""
    from sri_cli.config.registry import read_recipe, recipe_path

    click.echo(read_recipe(recipe_path(name)), nl=False)


@command.command()
def keys() -> None:
    """List every key of a recipe with its type, default and meaning."""
    from sri_cli.config.schema import describe_keys

    click.echo(format_table(("KEY", "TYPE", "DEFAULT", "MEANING"), list(describe_keys()), left=4))


@command.command()
@click.argument("name", shell_complete=completion.recipes)
@click.argument("dest", type=click.Path(path_type=Path))
def cp(name: str, dest: Path) -> None:
    """Copy a recipe to the folder or new file DEST, to edit it there."""
    from sri_cli.config.registry import copy_recipe

    file = copy_recipe(name, dest)
    click.echo(f"{file}: edit it, then: sri train --recipe {shlex.quote(str(file))}")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...", shell_complete=completion.recipes)
@click.option("--all", "every", is_flag=True, help="All shipped recipes (as without a name).")
def validate(names: tuple[str, ...], every: bool) -> None:
    """Check recipes, each with all of its data sets, and report all faults at once."""
    from sri_cli.config.load import check_recipes
    from sri_cli.config.registry import recipe_names

    shipped = recipe_names() if every or not names else []
    for name, sets in check_recipes([*names, *shipped]):
        click.echo(f"ok  {name}: {', '.join(sets)}")
