"""`sri import`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from sri_cli.cli import completion
from sri_cli.cli.options import JSON, OVERRIDES, RECIPE_DATA
from sri_cli.console import warn
from sri_cli.run import Workspace, run_argument
from sri_cli.signals import this_command
from sri_cli.strict_json import to_json


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pth")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    show_default="that of the system in FILE",
    shell_complete=completion.recipes,
    help="Recipe.",
)
@RECIPE_DATA
@click.option(
    "--run", metavar="DIR", show_default="runs/<recipe>-<data set>-imported", help="Run folder."
)
@click.option("--ignore-unexpected", is_flag=True, help="Leave out tensors that the model lacks.")
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
    """Make a run from an official checkpoint file.

    FILE.pth is what the training of SRI, GENESIS, GENESIS-v2, EfficientMORL or Slot-VAE wrote with
    torch.save; no code in it is run. KEY=VALUE changes a value of the recipe, as in model.slots=7.
    """
    from sri_cli.training.importing import import_run

    imported = import_run(
        workspace,
        file,
        recipe,
        data=data,
        run=run,
        overrides=overrides,
        ignore_unexpected=ignore_unexpected,
        command=this_command(),
    )
    for note in imported.notes:
        warn(f"Note: {note}")
    if as_json:
        click.echo(to_json(asdict(imported)))
        return
    folder = run_argument(imported.run)
    words = ["--recipe", imported.recipe, *(["--data", data] if data else [])]
    # Without it, training takes the size of whatever file of that name is prepared.
    size = f"model.image_size={imported.image_size}"
    words += ["--run", folder, *dict.fromkeys([*overrides, size])]
    click.echo(
        f"{imported.system}, {imported.parameters:,} parameters, step {imported.step}:"
        f" {imported.checkpoint}\n"
        f"next: sri sample --run {shlex.quote(folder)}\n"
        f"train further: {shlex.join(['sri', 'train', *words])}"
    )
