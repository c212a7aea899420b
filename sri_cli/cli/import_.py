"""`sri import`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sri_cli.cli.options import JSON, OVERRIDES, RECIPE_DATA
from sri_cli.run import Workspace

if TYPE_CHECKING:
    from sri_cli.training.importing import Imported


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pth")
@click.option("--recipe", metavar="NAME|FILE", help="Left out: the usual one of the system.")
@RECIPE_DATA
@click.option("--run", metavar="DIR", help="Left out: runs/<recipe>-<data set>-imported.")
@click.option("--ignore-unexpected", is_flag=True, help="Leave out tensors that have no place.")
@JSON
@OVERRIDES
@click.pass_obj
def command(
    workspace: Workspace,
    file: Path,
    recipe: str | None,
    data: str | None,
    run: str | None,
    ignore_unexpected: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Make a run of an official checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL.

    FILE.pth is what their training wrote with torch.save; nothing in it is run. KEY=VALUE changes
    a value of the recipe, as in model.slots=7.
    """
    from sri_cli.training.importing import Order, import_run

    order = Order(file, recipe, data, run, overrides, ignore_unexpected)
    imported = import_run(workspace, order, shlex.join(["sri", *sys.argv[1:]]))
    for note in imported.notes:
        click.echo(f"Note: {note}", err=True)
    if as_json:
        click.echo(json.dumps(as_dict(imported)))
        return
    run_words = shlex.quote(str(imported.run_dir))
    more = ["--recipe", imported.recipe_name, *(["--data", data] if data else [])]
    more += ["--run", str(imported.run_dir), *overrides]
    click.echo(
        f"{imported.system}, {imported.parameters:,} parameters, step {imported.step}:"
        f" {imported.checkpoint}\n"
        f"next: sri sample --run {run_words}\n"
        f"train on: {shlex.join(['sri', 'train', *more])}"
    )


def as_dict(imported: Imported) -> dict[str, object]:
    """The outcome as --json prints it."""
    return {
        "run": str(imported.run_dir),
        "checkpoint": str(imported.checkpoint),
        "step": imported.step,
        "system": imported.system,
        "recipe": imported.recipe_name,
        "parameters": imported.parameters,
        "notes": imported.notes,
    }
