"""The table that `sri recipes ls` prints."""

from __future__ import annotations

from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.registry import recipe_names

HEADER = ("NAME", "SYSTEM", "DATA SETS", "STEPS", "DESCRIPTION")


def recipe_table() -> str:
    """One line for each shipped recipe; steps are those on the default data set."""
    rows = [HEADER, *(_row(name) for name in recipe_names())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER) - 1)]
    return "\n".join(_line(row, widths) for row in rows)


def _row(name: str) -> tuple[str, ...]:
    recipe = load_recipe(name)
    sets = ", ".join(data_sets(name))
    return name, recipe.model.system, sets, f"{recipe.train.steps:,}", recipe.description


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    *cells, last = row
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([*padded, last]).rstrip()
