"""`sri prepare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sri_cli.cli.options import COUNT, Decorator, seed_option, together
from sri_cli.errors import SriError, SriFailure, did_you_mean
from sri_cli.run import Workspace

if TYPE_CHECKING:
    from sri_cli.data.dataset import DataFile
    from sri_cli.data.prepare import Prepared

SHEET_IMAGES = 48


class DataSets(click.Group):
    """The data sets as subcommands; one that is not there is told as a data set."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if name == "demo-towers":
            raise SriError(
                f"{name} is a preset of shapestacks", "sri prepare shapestacks --preset demo"
            )
        sets = [known for known in self.commands if known != "show"]
        near = did_you_mean(name, self.commands)
        raise SriError(f"no data set {name}{near}", f"sri prepare {', '.join(sets)}")


@click.group(cls=DataSets, invoke_without_command=True)
@click.option("--list", "listing", is_flag=True, help="List the prepared files.")
@click.pass_context
def command(ctx: click.Context, listing: bool) -> None:
    """Make a data file: simulate or convert a data set."""
    if listing:
        if ctx.invoked_subcommand is not None:
            raise SriError(
                f"--list makes nothing, {ctx.invoked_subcommand} does: one or the other",
                "sri prepare --list",
            )
        show_list(ctx.obj)
    elif ctx.invoked_subcommand is None:
        raise SriError("which data set?", "sri prepare shapestacks, or --list what is prepared")


def show_list(workspace: Workspace) -> None:
    """The prepared files."""
    from sri_cli.data.summary import list_files

    click.echo(list_files(workspace) or f"no data files in {workspace.data_root}")


NUMBERS = together(  # of every data set
    click.option(
        "--size",
        "size_px",
        type=int,
        metavar="PX",
        help="Image size [the paper's; of a folder 64].",
    ),
    click.option("--scenes", type=COUNT, help="Training scenes; the others get a sixth."),
    click.option("--val-scenes", type=COUNT, help="Validation scenes."),
    click.option("--test-scenes", type=COUNT, help="Test scenes."),
    seed_option("Of simulated scenes, or of a shuffled split."),
    click.option("--workers", type=COUNT, help="Processes; the file is the same."),
    click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Another place."),
    click.option("--force", is_flag=True, help="Replace a file that was made otherwise."),
)


def sources(places: str) -> Decorator:
    """The options of a data set that is published in several places."""
    place = click.option(
        "--from",
        "source",
        default="simulate",
        show_default=True,
        metavar=places,
        help="Where from.",
    )
    return together(
        place,
        NUMBERS,
        click.option("--views", type=COUNT, help="Cameras a simulated scene."),
        click.option("--offline", is_flag=True, help="Use what was downloaded before."),
    )


@command.command()
@sources("simulate|mirror|DIR|FILE")
@click.option(
    "--preset",
    type=click.Choice(["original", "demo"]),
    default="original",
    show_default=True,
    help="Towers like the original's; or few plain blocks near the camera (demo-towers).",
)
@click.option(
    "--raw",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the simulated towers as the original's files first.",
)
@click.option(
    "--split",
    default="default",
    show_default=True,
    metavar="LIST",
    help="Of the original's files: default, blocks_all or ccs_all.",
)
@click.pass_obj
def shapestacks(workspace: Workspace, **options: Any) -> None:
    """Towers of blocks.

    The same command again resumes.
    """
    from sri_cli.data.source import Options
    from sri_cli.data.sources.shapestacks import prepare_shapestacks

    asked, how = split_options(Options, options)
    show_prepared(prepare_shapestacks(workspace, asked, **how))


@command.command("objects-room")
@sources("simulate|mirror|bucket|FILE")
@click.pass_obj
def objects_room(workspace: Workspace, **options: Any) -> None:
    """Rooms with one to three objects.

    The same command again resumes.
    """
    multi_object(workspace, "objects-room", options)


@command.command()
@sources("simulate|mirror|bucket|FILE")
@click.pass_obj
def clevr6(workspace: Workspace, **options: Any) -> None:
    """Tables with three to six objects.

    The same command again resumes.
    """
    multi_object(workspace, "clevr6", options)


def multi_object(workspace: Workspace, name: str, options: dict[str, Any]) -> None:
    """One of the Multi-Object Datasets."""
    from sri_cli.data.source import Options
    from sri_cli.data.sources.multi_object import prepare_multi_object

    asked, how = split_options(Options, options)
    show_prepared(prepare_multi_object(workspace, name, asked, **how))


@command.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@NUMBERS
@click.option("--name", help="The data set's name [the folder's].")
@click.option("--crop", type=COUNT, metavar="PX", help="Centre crop [the largest square].")
@click.option(
    "--background",
    "background_labels",
    type=click.IntRange(0, 255),
    default=1,
    show_default=True,
    help="Labels of the masks, from 0, that are background.",
)
@click.option("--strict", is_flag=True, help="Stop at a file that cannot be read.")
@click.pass_obj
def folder(workspace: Workspace, folder: Path, **options: Any) -> None:
    """Images of your own.

    Integer-label PNGs of the same names in masks/ are their masks. The same command again resumes.
    """
    from sri_cli.data.sources.folder import FolderOptions, prepare_folder

    settings, how = split_options(FolderOptions, options)
    show_prepared(prepare_folder(workspace, folder, settings, **how))


@command.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--size", type=COUNT, metavar="PX", help="Only the file of this size.")
@click.pass_obj
def show(workspace: Workspace, name: str, size: int | None) -> None:
    """Describe a prepared file.

    Its contact sheet is written beside it.
    """
    from sri_cli.data.dataset import DataFile
    from sri_cli.data.summary import check_intact, describe, find_files, mask_facts

    for path in find_files(workspace, name, size):
        data = DataFile(path)
        check_intact(data)
        facts = mask_facts(data)
        click.echo(describe(data, facts))
        click.echo(f"contact     {write_contact_sheet(data)}")


def write_contact_sheet(data: DataFile) -> str:
    """Draw training images and their masks to a PNG beside the file; its path, or why not."""
    from sri_cli.plotting.contact import contact_panel
    from sri_cli.plotting.figures import draw, write_figure

    split = data.split("train")
    picked = split.pick(SHEET_IMAGES)
    masks = split.masks_of(picked)
    panel = contact_panel(split.images[picked], masks, data.background_labels)
    title = f"{data.caption}, {data.size} px, training images"
    path = data.path.with_suffix(".png")
    try:
        write_figure(draw([[panel]], title, scale=1), path)
    except SriFailure as error:
        return f"none: {error.message}"
    return str(path)


def split_options(kind: Callable[..., Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What to make, as `kind`, left-out numbers as its own; and how to make it."""
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    what = {key: value for key, value in options.items() if key in fields and value is not None}
    how = {key: value for key, value in options.items() if key not in fields}
    return kind(**what), how | {"command": shlex.join(["sri", *sys.argv[1:]])}


def show_prepared(prepared: Prepared) -> None:
    """The file, and how fast it was made."""
    from sri_cli.console import counted
    from sri_cli.data.summary import counts_text

    data = prepared.data
    click.echo(f"{data.path}: {data.caption}, {counts_text(data)}")
    skipped, discarded = data.attrs.get("skipped", 0), data.attrs.get("discarded", 0)
    if skipped:
        click.echo(f"left out, for they could not be read: {counted(skipped, 'file')}")
    if prepared.made:
        broke = f", {counted(discarded, 'scenario')} discarded by the rules" if discarded else ""
        rate = f"{prepared.images_per_second:.0f} a second"
        made = f"{counted(prepared.made, 'view')} in {prepared.seconds:.0f} s ({rate})"
        click.echo(f"{made}{broke}")
