"""Every shipped recipe, with every data set it names, loads and builds; the paper's settings."""

from __future__ import annotations

import pytest
import torch

from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.registry import recipe_names, recipes_folder
from sri_cli.models.build import build_model

EVERY = [(name, data) for name in recipe_names() for data in data_sets(name)]


def test_the_recipes_of_this_version() -> None:
    published = {"genesis", "emorl", "sri-g", "sri-mog", "sri-emorl", "sri-sa", "sri-mog-tiny"}
    published |= {"genesis-v2-g", "genesis-v2-mog", "genesis-scene", "genesis-v2-scene"}
    published |= {"sri-g-no-scene", "sri-g-no-alignment", "sri-g-no-cross-order"}
    assert set(recipe_names()) == published
    files = [path for path in recipes_folder().rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".yaml", ".md"}


@pytest.mark.parametrize(("name", "data"), EVERY)
def test_loads_and_builds(name: str, data: str) -> None:
    recipe = load_recipe(name, data)
    assert (recipe.name, recipe.data) == (name, data)
    assert 0 < len(recipe.description) < 60
    with torch.device("meta"):
        model = build_model(**recipe.model.model_dump())
    assert (model.num_slots, model.image_size) == (recipe.model.slots, recipe.model.image_size)


@pytest.mark.parametrize(("name", "geco_lr"), [("sri-mog", 1e-6), ("genesis-v2-mog", 1e-5)])
@pytest.mark.parametrize(
    ("data", "size", "slots", "steps", "target", "std", "normalised"),
    [
        ("shapestacks", 64, 9, 500_000, 0.5655, 0.7, True),
        ("objects-room", 64, 7, 500_000, 0.5655, 0.7, True),
        ("clevr6", 96, 7, 425_000, -2.265, 0.1, False),
    ],
)
def test_the_published_settings(
    name: str,
    geco_lr: float,
    data: str,
    size: int,
    slots: int,
    steps: int,
    target: float,
    std: float,
    normalised: bool,
) -> None:
    recipe = load_recipe(name, data)
    model, train = recipe.model, recipe.train
    assert (model.image_size, model.slots, model.slot_size) == (size, slots, 64)
    assert (model.likelihood, model.std, model.normalised) == ("mog", std, normalised)
    assert (train.steps, train.batch, train.lr, train.clip_grad) == (steps, 32, 1e-4, None)
    assert (train.geco_target, train.geco_lr, train.geco_speedup) == (target, geco_lr, 10)
    assert (train.lr_decay_steps, train.lr_warmup, train.geco_warmup) == (0, 0, 0)


GAUSSIAN = {"shapestacks": -0.353, "objects-room": -0.353, "clevr6": -0.356}


@pytest.mark.parametrize("name", ["sri-g", "genesis-v2-g"])
@pytest.mark.parametrize("data", GAUSSIAN)
def test_the_gaussian_rows(name: str, data: str) -> None:
    recipe = load_recipe(name, data)
    model, train = recipe.model, recipe.train
    assert (model.likelihood, model.std, model.normalised) == ("gaussian", 0.7, False)
    assert (train.geco_target, train.geco_lr) == (GAUSSIAN[data], 1e-6)
    assert (model.image_size, model.slots) == ((96, 7) if data == "clevr6" else (64, model.slots))
    assert (train.steps, train.lr, train.clip_grad) == (
        425_000 if data == "clevr6" else 500_000,
        1e-4,
        None,
    )


@pytest.mark.parametrize(
    ("name", "data", "target", "lr", "steps", "refinements"),
    [
        ("emorl", "shapestacks", -2.206, 4e-4, 500_000, 3),
        ("emorl", "clevr6", -2.206, 4e-4, 425_000, 3),
        ("sri-emorl", "clevr6", -2.265, 4e-4, 225_000, 2),
    ],
)
def test_the_emorl_rows(
    name: str, data: str, target: float, lr: float, steps: int, refinements: int
) -> None:
    recipe = load_recipe(name, data)
    model, train = recipe.model, recipe.train
    assert (model.std, model.normalised, model.decoder) == (0.1, False, "iodine")
    assert (train.geco_target, train.lr, train.steps) == (target, lr, steps)
    assert (model.refinements, train.clip_grad) == (refinements, 5.0)
    assert (train.lr_warmup, train.lr_half_life, train.geco_warmup) == (10_000, 100_000, 1000)


@pytest.mark.parametrize("name", recipe_names())
def test_tiny_of_any_recipe(name: str) -> None:
    recipe = load_recipe(name, None, ["size=tiny", "train.batch=3"])
    assert (recipe.size, recipe.model.image_size, recipe.model.slot_size) == ("tiny", 32, 32)
    assert recipe.train.batch == 3  # what is asked for beside it counts
    assert (recipe.train.lr_warmup, recipe.train.geco_warmup) == (0, 0)
    paper = load_recipe(name)
    assert recipe.train.geco_target == paper.train.geco_target
    assert (paper.size, paper.model.system) == ("paper", recipe.model.system)
