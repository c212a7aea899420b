"""Options that several verbs share: one name and one help text each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sri_cli.cli import completion
from sri_cli.console import warn
from sri_cli.cores import Threads
from sri_cli.errors import SriError

if TYPE_CHECKING:
    from sri_cli.data.sources.listing import MaskNames

Decorator = Callable[..., Any]
COUNT = click.IntRange(min=1)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; the help lists them in this order."""

    def add(command: Decorator) -> Decorator:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def seed_option(help_text: str) -> Decorator:
    """--seed with default 0."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, metavar="S", help=help_text
    )


def out_option(metavar: str, default: str, help_text: str, **kinds: bool) -> Decorator:
    """--out; `default`: how the help names it, `kinds`: what `click.Path` checks."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, **kinds),
        metavar=metavar,
        show_default=default,
        help=help_text,
    )


def data_option(default: str, help_text: str = "Data file.") -> Decorator:
    """--data; `default`: how the help names it."""
    return click.option(
        "--data",
        metavar="NAME|FILE",
        show_default=default,
        shell_complete=completion.data_sets,
        help=help_text,
    )


def reject(ctx: click.Context, names: Collection[str], when: str) -> None:
    """SriError if one of the options is given, which would have no effect."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(str(option.name))
        if option.name in names and source is not ParameterSource.DEFAULT:
            flag = option.opts[0]
            raise SriError(f"{flag} has no effect {when}", f"leave {flag} out")


def start_threads(threads: Threads) -> None:
    """Let PyTorch use these threads, with a note if other processes use the cores."""
    note = threads.start()
    if note is not None:
        warn(note)


def mask_names(options: dict[str, Any]) -> MaskNames:
    """Where masks are, from the options of TRUE_MASKS, which are taken out of `options`."""
    from sri_cli.data.sources.listing import MaskNames

    folder = options.pop("masks_folder")
    folder = None if folder is None else str(Path(folder))
    return MaskNames(folder, options.pop("mask_suffix"), options.pop("no_masks"))


RUN = click.option(
    "--run",
    metavar="RUN",
    show_default="the latest run",
    shell_complete=completion.runs,
    help="Run, checkpoint, hf:OWNER/NAME or pretrained[-rooms|-tables].",
)
RUNS = click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    show_default="the latest run",
    shell_complete=completion.runs,
    help="Run, checkpoint, hf:OWNER/NAME or pretrained[-rooms|-tables]; repeat for several.",
)
IMAGE_FOLDERS = click.option(
    "--images",
    "folders",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of generated images; repeat for several.",
)
TRUE_MASKS = together(
    click.option(
        "--masks",
        "masks_folder",
        metavar="DIR",
        show_default="masks, labels, segmentation, annotations, ...",
        help="Folder of the masks, by name or path.",
    ),
    click.option(
        "--mask-suffix",
        metavar="TEXT",
        show_default="_mask, -seg, _label, _flat, ...",
        help="End of the names of masks that lie beside their images.",
    ),
    click.option("--no-masks", is_flag=True, help="Take every file as an image."),
)
RECIPE_DATA = data_option("the data set of the recipe")
DATA_OF_RUN = data_option("the data of the run")
SPLIT = click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    help="Split of the data.",
)
THREADS = click.option(
    "--threads",
    default="auto",
    metavar="N|auto",
    callback=lambda _ctx, _option, text: Threads.parse(text),
    help="CPU threads; auto follows the cores that are free.",
)
SLOTS = click.option(
    "--slots", type=int, metavar="K", show_default="as in training", help="Slots per scene."
)
DYNAMIC_SLOTS = click.option(
    "--dynamic-slots", is_flag=True, help="Let the attention choose the number of slots."
)
TEMPERATURE = click.option(
    "--temp", "temperature", type=float, default=1.0, metavar="T", help="Temperature, above 0."
)
FIGURE_FILE = out_option("FILE", "in the figures/ of the run", "Figure to write.", dir_okay=False)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
