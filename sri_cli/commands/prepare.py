"""`sri prepare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sri_cli.errors import SriError, did_you_mean
from sri_cli.workspace import Workspace

if TYPE_CHECKING:
    from sri_cli.data.prepare import Prepared

LATER = ("objects-room", "clevr6", "folder")  # named in the contract, not in this version
COUNT = click.IntRange(min=1)


class DataSets(click.Group):
    """The data sets as subcommands; one that is not there is told as a data set."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if name in LATER:
            raise SriError(f"{name} is not available yet", "available: sri prepare shapestacks")
        if name == "demo-towers":
            raise SriError(
                f"{name} is a preset of shapestacks", "sri prepare shapestacks --preset demo"
            )
        near = did_you_mean(name, [*self.commands, *LATER])
        raise SriError(f"no data set {name}{near}", "available: sri prepare shapestacks")


@click.group(cls=DataSets, invoke_without_command=True)
@click.option("--list", "listing", is_flag=True, help="List the prepared files.")
@click.pass_context
def command(ctx: click.Context, listing: bool) -> None:
    """Make a data file: simulate or convert a data set."""
    if listing:
        show_list(ctx.obj)
    elif ctx.invoked_subcommand is None:
        raise SriError("which data set?", "sri prepare shapestacks, or --list what is prepared")


def show_list(workspace: Workspace) -> None:
    """The prepared files."""
    from sri_cli.data.listing import data_table

    rows = data_table(workspace)
    click.echo("\n".join(rows) or f"nothing prepared in {workspace.data_root}")


@command.command()
@click.option(
    "--from",
    "source",
    default="simulate",
    show_default=True,
    metavar="simulate",
    help="Where from; only simulation in this version.",
)
@click.option(
    "--preset",
    type=click.Choice(["original", "demo"]),
    default="original",
    show_default=True,
    help="Towers like the original's; or few plain blocks near the camera (demo-towers).",
)
@click.option("--size", "size_px", type=int, metavar="PX", help="Image size [64; demo 32].")
@click.option("--scenes", type=COUNT, help="Training scenarios [1000; demo 1500].")
@click.option("--val-scenes", type=COUNT, help="Validation scenarios [160, or a sixth].")
@click.option("--test-scenes", type=COUNT, help="Test scenarios [640, or a sixth].")
@click.option("--views", type=COUNT, help="Cameras a scenario, up to 16 [16; demo 4].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=COUNT, help="Processes [one a core]; the file is the same.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Another place.")
@click.option("--force", is_flag=True, help="Replace a file that was made otherwise.")
@click.pass_obj
def shapestacks(
    workspace: Workspace,
    source: str,
    workers: int | None,
    out: Path | None,
    force: bool,
    **numbers: Any,
) -> None:
    """Towers of blocks, simulated; the same command again resumes."""
    from sri_cli.data.sources.shapestacks import choose_towers, prepare_shapestacks

    prepared = prepare_shapestacks(
        workspace,
        choose_towers(**numbers),
        source=source,
        out=out,
        workers=workers,
        force=force,
        command=shlex.join(["sri", *sys.argv[1:]]),
    )
    show_prepared(prepared)


@command.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--size", type=COUNT, metavar="PX", help="Only the file of this size.")
@click.pass_obj
def show(workspace: Workspace, name: str, size: int | None) -> None:
    """Describe a prepared file and write its contact sheet beside it."""
    from sri_cli.data.listing import describe

    for description in describe(workspace, name, size):
        click.echo("\n".join([*description.lines, f"contact     {description.sheet}"]))


def show_prepared(prepared: Prepared) -> None:
    """The file, and how fast it was made."""
    from sri_cli.data.listing import counts_text

    data = prepared.data
    click.echo(f"{data.path}: {data.caption}, {counts_text(data)}")
    if prepared.made:
        click.echo(
            f"{prepared.made:,} views in {prepared.seconds:.0f} s"
            f" ({prepared.views_per_second:.0f} a second),"
            f" {data.attrs['discarded']} scenarios discarded by physics"
        )
