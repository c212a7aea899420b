"""`sri prepare`: make data files, list them, describe one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sri_cli.cli import completion
from sri_cli.cli.options import (
    COUNT,
    TRUE_MASKS,
    Decorator,
    mask_names,
    out_option,
    seed_option,
    together,
)
from sri_cli.console import counted
from sri_cli.errors import SriError, SriFailure, did_you_mean
from sri_cli.run import PREPARED_AS, Workspace
from sri_cli.signals import this_command

if TYPE_CHECKING:
    from sri_cli.data.dataset import DataFile
    from sri_cli.data.source import Source

NUM_SHEET_IMAGES = 48
LABEL = click.IntRange(0, 255)


class DataSets(click.Group):
    """The data sets as subcommands; an unknown name is reported as a data set."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if ctx.resilient_parsing:  # the shell completes a line with a misspelt data set
            return self.commands.get(cmd_name)
        if cmd_name not in self.commands:
            if cmd_name in PREPARED_AS:
                made_as = PREPARED_AS[cmd_name]
                base = made_as.split()[0]
                raise SriError(f"{cmd_name} is a variant of {base}", f"sri prepare {made_as}")
            if Path(cmd_name).is_dir():
                hint = f"sri prepare folder {shlex.quote(cmd_name)}"
                raise SriError(f"{cmd_name} is a folder, no data set", hint)
            near = did_you_mean(cmd_name, self.commands)
            known = ", ".join(name for name in self.commands if name != "show")
            raise SriError(f"no data set {cmd_name}{near}", f"sri prepare {known}")
        return self.commands[cmd_name]


@click.group(cls=DataSets, invoke_without_command=True)
@click.option("--list", "listing", is_flag=True, help="List the prepared files.")
@click.pass_context
def command(ctx: click.Context, listing: bool) -> None:
    """Prepare a data set: simulate it or convert published files."""
    if not listing and ctx.invoked_subcommand is None:
        raise SriError(
            "name a data set", "sri prepare shapestacks; --list lists the prepared files"
        )
    if listing and ctx.invoked_subcommand is not None:
        raise SriError(f"--list does not go with {ctx.invoked_subcommand}", "sri prepare --list")
    if listing:
        from sri_cli.data.summary import list_files

        click.echo(list_files(ctx.obj) or f"no data files in {ctx.obj.data_root}")


NUMBERS = ("size_px", "scenes", "val_scenes", "test_scenes", "views", "seed", "test_only")
OUTPUT = ("workers", "out", "force")
SHARED_OPTIONS = together(
    click.option(
        "--size",
        "size_px",
        type=int,
        metavar="PX",
        show_default="that of the data set; 64 for a folder",
        help="Image size.",
    ),
    click.option(
        "--scenes",
        type=COUNT,
        metavar="N",
        help="Training scenes; validation and test then get a sixth each.",
    ),
    click.option("--val-scenes", type=COUNT, metavar="N", help="Validation scenes."),
    click.option("--test-scenes", type=COUNT, metavar="N", help="Test scenes."),
    seed_option("Seed for simulated scenes, or for a shuffled split."),
    click.option(
        "--workers",
        type=COUNT,
        metavar="W",
        show_default="as many as are useful",
        help="Processes; the file is the same.",
    ),
    out_option("FILE", "data/NAME-SIZE.h5", "File to write."),
    click.option("--force", is_flag=True, help="Replace a file made with other settings."),
)


TEST_ONLY = click.option(
    "--test-only", is_flag=True, help="A test set alone: no images for training and validation."
)


def views_option(default: str) -> Decorator:
    """Images of each scene; `default` is what the source chooses without it."""
    text = "Views of each scene, at most 16."
    return click.option("--views", type=COUNT, metavar="V", show_default=default, help=text)


def variant_option(*names: str, what: str = "") -> Decorator:
    """Which variant of a data set; the first is the default, unless files name another."""
    default = f"as DIR or FILE is named, or {names[0]}"
    text = f"Variant{what}."
    return click.option("--variant", type=click.Choice(names), show_default=default, help=text)


def data_set(name: str, choices: str, text: str, *more_options: Decorator) -> None:
    """Add the subcommand of a data set that can be simulated or converted.

    `choices`: what --from may be; `text`: the help, which ends with how to resume.
    """

    @command.command(name, help=f"{text}Run the same command again to resume.")
    @click.option(
        "--from",
        "where",
        default="simulate",
        metavar=choices,
        help="Simulate the data set, or where its files are.",
    )
    @SHARED_OPTIONS
    @click.option("--offline", is_flag=True, help="Use only files downloaded before.")
    @together(*more_options)
    @click.pass_obj
    def convert(workspace: Workspace, **options: Any) -> None:
        from sri_cli.data.source import Options
        from sri_cli.data.sources.choose import choose_source

        output = {key: options.pop(key) for key in OUTPUT}
        numbers = Options(**{key: options.pop(key) for key in NUMBERS if key in options})
        downloads = workspace.data_root / "downloads"
        make(workspace, choose_source(name, numbers, downloads=downloads, **options), **output)


data_set(
    "shapestacks",
    "simulate|mirror|DIR|FILE",
    "Towers of blocks.\n\n",
    views_option("16; demo 4"),
    click.option(
        "--preset",
        type=click.Choice(["original", "demo"]),
        default="original",
        help="Simulate towers like the original's, or 2 or 3 blocks seen from near (demo-towers).",
    ),
    click.option(
        "--raw",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Write the simulated towers in the original's file layout first.",
    ),
    click.option(
        "--split",
        default="default",
        metavar="LIST",
        help="Split lists of the original files: default, blocks_all or ccs_all.",
    ),
)
data_set(
    "objects-room",
    "simulate|mirror|bucket|FILE",
    "Rooms with one to three objects.\n\nThe published test sets become data sets of their own,"
    " such as objects-room-six-objects. ",
    views_option("1"),
    TEST_ONLY,
    click.option(
        "--test-set",
        type=click.Choice(["empty_room", "six_objects", "identical_color"]),
        help="A test set of the bucket instead of the training file.",
    ),
)
data_set(
    "clevr6",
    "simulate|mirror|bucket|FILE",
    "Tables with three to six objects.\n\n",
    views_option("1"),
    TEST_ONLY,
)
data_set(
    "clevr10",
    "simulate|mirror|bucket|FILE",
    "Tables with three to ten objects: CLEVR6 without its limit, from the same files.\n\n",
    views_option("1"),
    TEST_ONLY,
)
data_set(
    "multi-dsprites",
    "simulate|bucket|FILE",
    "Flat squares, ellipses and hearts that hide one another.\n\nOther variants than"
    " colored_on_grayscale become data sets of their own, such as multi-dsprites-binarized. ",
    variant_option(
        "colored_on_grayscale",
        "colored_on_colored",
        "binarized",
        what=": 2 to 5 coloured sprites on grey, 1 to 4 on a colour, or 2 to 3 white ones on black",
    ),
    TEST_ONLY,
)
data_set(
    "tetrominoes",
    "simulate|bucket|FILE",
    "Three flat pieces of four cells on black.\n\nPublished at 35 px and resized. ",
    TEST_ONLY,
)


@command.command()
@click.option(
    "--from",
    "where",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the unpacked archives.",
)
@variant_option("full", "pbg", "vbg", "grassbg", "camo", "outd")
@SHARED_OPTIONS
@TEST_ONLY
@click.pass_obj
def clevrtex(workspace: Workspace, where: Path, variant: str | None, **options: Any) -> None:
    """CLEVR with textures, from its archives.

    The variant outd is a test set alone. Run the same command again to resume.
    """
    from sri_cli.data.source import Options
    from sri_cli.data.sources.clevrtex import ClevrTex

    output = {key: options.pop(key) for key in OUTPUT}
    make(workspace, ClevrTex(where, Options(**options), variant), **output)


@command.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@SHARED_OPTIONS
@TEST_ONLY
@click.option("--name", show_default="the folder's", help="Name of the data set.")
@click.option(
    "--crop", type=COUNT, metavar="PX", show_default="the largest square", help="Centre crop."
)
@click.option(
    "--background",
    "background_labels",
    type=LABEL,
    metavar="N",
    default=1,
    help="How many mask labels, from 0, are background.",
)
@click.option(
    "--background-label",
    type=LABEL,
    metavar="L",
    show_default="0",
    help="The one mask label that is background.",
)
@click.option(
    "--void",
    "void_label",
    type=LABEL,
    metavar="L",
    help="Mask label that counts nowhere (VOC: 255).",
)
@TRUE_MASKS
@click.option(
    "--group-by",
    metavar="PATTERN",
    help="Keep images in one split whose names agree in the parentheses of a regular expression:"
    " '(.+)_' groups clip3_0001 and clip3_0002.",
)
@click.option("--strict", is_flag=True, help="Stop at a file that cannot be read.")
@click.pass_obj
def folder(workspace: Workspace, directory: Path, **options: Any) -> None:
    """Images of your own.

    Masks hold integer labels (PNG, TIFF, .npy) and have the names of their images, in a folder such
    as masks/ or with a suffix such as _mask. If fewer than half of the images have one, those are
    for validation and test. Run the same command again to resume.
    """
    from sri_cli.data.sources.folder import FolderOptions, FolderSource

    output = {key: options.pop(key) for key in OUTPUT}
    options["masks"] = mask_names(options)
    make(workspace, FolderSource(directory, FolderOptions(**options)), **output)


def make(
    workspace: Workspace, source: Source, workers: int | None, out: Path | None, force: bool
) -> None:
    """Make the data file and print what it holds and how fast it was made."""
    from sri_cli.data.prepare import prepare
    from sri_cli.data.summary import counts_text, discarded_text, skipped_text

    path = out or workspace.data_path(source.header.name, source.header.size)
    typed = this_command()
    prepared = prepare(source, path, workers=workers, force=force, command=typed)
    data = prepared.data
    click.echo(f"{data.path}: {data.caption}, {counts_text(data)}")
    if prepared.made:
        rate = prepared.made / max(prepared.seconds, 1e-3)
        images, seconds = counted(prepared.made, "image"), prepared.seconds
        click.echo(f"{images} in {seconds:.0f} s ({rate:.0f} per second)")
        if text := discarded_text(int(data.attrs.get("discarded", 0))):
            click.echo(f"discarded {text}")
    if text := skipped_text(data.attrs):
        click.echo(f"left out {text}")


@command.command()
@click.argument("name", metavar="NAME|FILE", shell_complete=completion.data_sets)
@click.option("--size", type=COUNT, metavar="PX", show_default="all", help="File of one size.")
@click.pass_obj
def show(workspace: Workspace, name: str, size: int | None) -> None:
    """Check and describe a prepared file.

    A contact sheet of its images and masks is written beside it.
    """
    from sri_cli.data.dataset import DataFile
    from sri_cli.data.summary import describe, find_files

    for path in find_files(workspace, name, size):
        data = DataFile(path)
        click.echo(describe(data))
        click.echo(f"contact     {write_contact_sheet(data)}")


def write_contact_sheet(data: DataFile) -> str:
    """Draw images and their masks to a PNG beside the file; its path, or why not."""
    from sri_cli.plotting.blocks import contact_panel
    from sri_cli.plotting.figures import draw, write_figure

    panel, text = contact_panel(data, NUM_SHEET_IMAGES)
    title = f"{data.caption}, {data.size} px, {text}"
    path = data.path.with_suffix(".png")
    try:
        write_figure(draw([[panel]], title), path)
    except SriFailure as error:
        return f"none: {error.message}"
    return str(path)
