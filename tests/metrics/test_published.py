"""The published figures, and that our recipes are trained as the paper's."""

from __future__ import annotations

import pytest

from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.metrics.published import DATA, LAYOUTS, PUBLISHED, SIZE_PX, steps

RECIPES = sorted({recipe for layout in LAYOUTS for recipe in layout.rows.values()})


def find(table: int, row: str, data: str, metric: str) -> tuple[float | None, str]:
    (cell,) = [
        cell
        for cell in PUBLISHED
        if (cell.table, cell.row, cell.data, cell.metric) == (table, row, data, metric)
    ]
    return cell.value, cell.text


def test_figures() -> None:
    assert len(PUBLISHED) == 6 + 41 + 12 + 13
    assert find(2, "GENESIS", "objects-room", "fid") == (62.8, "62.8*")
    assert find(2, "SRI-EMORL", "clevr6", "fid") == (48.9, "48.9")
    assert find(2, "GENESIS-v2-MoG", "shapestacks", "sacc") == (59, "59")
    assert find(1, "SRI-SA", "shapestacks", "ari_fg") == (None, "worse")
    assert find(4, "GENESIS + scene", "shapestacks", "bits_per_dimension") == (1.051, "1.051")


def test_what_was_taken_over() -> None:
    taken = {(cell.recipe, cell.data, cell.metric) for cell in PUBLISHED if cell.taken_over}
    assert taken == {
        (recipe, data, metric)
        for recipe in ("genesis", "genesis-v2-mog")
        for data in ("objects-room", "shapestacks")
        for metric in ("fid", "ari_fg")
    }


def test_ablations_are_of_the_validation_split() -> None:
    assert {(cell.table, cell.split) for cell in PUBLISHED} == {
        (1, None),
        (2, "test"),
        (3, "val"),
        (4, "val"),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_shipped_and_as_long_and_large(name: str) -> None:
    """A run of the shipped recipe bears no remark on its steps or its size."""
    assert name in recipe_names()
    for data in set(data_sets(name)) & set(DATA):
        recipe = load_recipe(name, data)
        assert (recipe.train.steps, recipe.model.image_size) == (steps(name, data), SIZE_PX[data])
