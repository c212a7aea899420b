"""`sri recipes ls | show | cp | validate`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """List, show, copy and check recipes."""


@command.command()
def ls() -> None:
    """List the shipped recipes with their system, data sets and steps."""
    from sri_cli.config.listing import recipe_table

    click.echo(recipe_table())


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a recipe's file: NAME of a shipped one, or a path."""
    from sri_cli.config.registry import recipe_path

    click.echo(recipe_path(name).read_text("utf-8"), nl=False)


@command.command()
@click.argument("name")
@click.argument("dest", type=click.Path(path_type=Path))
def cp(name: str, dest: Path) -> None:
    """Copy a recipe to the folder or new file DEST, to be changed there."""
    from sri_cli.config.registry import copy_recipe

    click.echo(f"{copy_recipe(name, dest)}: edit it, then `sri train --recipe FILE`")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@click.option("--all", "every", is_flag=True, help="All shipped recipes (as without a name).")
def validate(names: tuple[str, ...], every: bool) -> None:
    """Check recipes, each with every data set it knows; all mistakes at once."""
    from sri_cli.config.load import check_recipes
    from sri_cli.config.registry import recipe_names

    shipped = recipe_names() if every or not names else []
    for name, data_sets in check_recipes([*names, *shipped]):
        click.echo(f"ok  {name}: {', '.join(data_sets)}")
