"""What the paper publishes (published.yaml): Tables 1 to 4, data sets, names of systems."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml


class Published(NamedTuple):
    """One data set's part of a table of the paper."""

    number: int
    caption: str
    split: str | None  # None: not known
    data: str
    columns: list[str]
    recipes: dict[str, str]  # row -> recipe
    cells: dict[str, list[str]]  # row -> cells; rows without any are missing


@cache
def published_tables() -> list[Published]:
    """Tables 1 to 4, a part for each data set."""
    return [
        Published(
            table["number"],
            table["caption"],
            table["split"],
            data,
            result["columns"].split(),
            table["recipes"],
            {row: cells.split() for row, cells in result.items() if row != "columns"},
        )
        for table in _published()["tables"]
        for data, result in table["results"].items()
    ]


def published_steps(recipe: str, data: str) -> int | None:
    """Training steps of a system in the paper; None for a data set that it does not use."""
    facts = published_data().get(data, {})
    return facts.get("steps_of", {}).get(recipe, facts.get("steps"))


def system_name(recipe: str, size: str) -> str:
    """A system as the paper calls it, or its recipe; a size other than the paper's is named."""
    # The names of the last one count most.
    tables = sorted(published_tables(), key=lambda table: (3, 4, 1, 2).index(table.number))
    names = {
        own: f"SRI-G {row}" if table.number == 3 else row
        for table in tables
        for row, own in table.recipes.items()
    }
    base = recipe.removesuffix("-tiny")
    if base != recipe and base in names:
        recipe, size = base, "tiny"
    return f"{names.get(recipe, recipe)} {'' if size == 'paper' else size}".strip()


def published_data() -> dict[str, Any]:
    """By data set: `title`, `size_px`, `steps` of training, and `steps_of` those that differ."""
    return _published()["data"]


@cache
def _published() -> dict[str, Any]:
    text = resources.files("sri_cli.metrics").joinpath("published.yaml").read_text("utf-8")
    return yaml.safe_load(text)
