"""Options of several verbs: the same word means the same everywhere, and its help says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[..., Any]
COUNT = click.IntRange(min=1)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""

    def add(command: Decorator) -> Decorator:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def seed_option(of: str) -> Decorator:
    """--seed, 0 when left out; `of` is its help."""
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=of)


RUN = click.option("--run", metavar="RUN", help="Run or checkpoint; left out: the latest run.")
RUNS = click.option(
    "--run", "runs", multiple=True, metavar="RUN", help="Repeat for several; none: the latest run."
)
DATA_OF_RUN = click.option(
    "--data", metavar="NAME|FILE", help="Left out: what the run was trained on."
)
SPLIT = click.option("--split", default="test", show_default=True, help="train, val or test.")
DYNAMIC_SLOTS = click.option(
    "--dynamic-slots", is_flag=True, help="As many slots as an image wants (GENESIS-v2 inside)."
)
SLOTS = click.option(
    "--slots", type=int, metavar="K", help="Slots per scene; left out: as in training."
)
TEMPERATURE = click.option(
    "--temp", type=float, default=1.0, show_default=True, help="Temperature, above 0."
)
PICTURE_FOLDERS = click.option(
    "--images",
    "folders",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Pictures that any tool has generated; repeat for several.",
)
FIGURE_FILE = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Left out: the run's figures/.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)
RECIPE_DATA = click.option(
    "--data", metavar="NAME|FILE", help="Data set or file; left out: the recipe's own."
)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
