"""Shipped recipes for tests that train."""

from __future__ import annotations

from typing import Any

import pytest

from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_names


def one_of_each_system() -> list[Any]:
    """All recipes; those after the first of a system and segregation model are slow."""
    known: set[tuple[str, str]] = set()
    params = []
    for name in recipe_names():
        model = load_recipe(name).model
        kind = (model.system, model.segregation)
        params.append(pytest.param(name, marks=[pytest.mark.slow] if kind in known else []))
        known.add(kind)
    return params
