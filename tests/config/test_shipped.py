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


# name, data: image size, slots, steps, target, GECO's rate, std, normalised (MODELS, section 6)
PUBLISHED = {
    ("sri-mog", "shapestacks"): (64, 9, 500_000, 0.5655, 1e-6, 0.7, True),
    ("sri-mog", "objects-room"): (64, 7, 500_000, 0.5655, 1e-6, 0.7, True),
    ("sri-mog", "clevr6"): (96, 7, 425_000, -2.265, 1e-6, 0.1, False),
    ("genesis-v2-mog", "shapestacks"): (64, 9, 500_000, 0.5655, 1e-5, 0.7, True),
    ("genesis-v2-mog", "objects-room"): (64, 7, 500_000, 0.5655, 1e-5, 0.7, True),
    ("genesis-v2-mog", "clevr6"): (96, 7, 425_000, -2.265, 1e-5, 0.1, False),
    ("sri-g", "shapestacks"): (64, 9, 500_000, -0.353, 1e-6, 0.7, False),
    ("sri-g", "clevr6"): (96, 7, 425_000, -0.356, 1e-6, 0.7, False),
    ("genesis-v2-g", "objects-room"): (64, 7, 500_000, -0.353, 1e-6, 0.7, False),
    ("genesis-v2-g", "clevr6"): (96, 7, 425_000, -0.356, 1e-6, 0.7, False),
    ("emorl", "shapestacks"): (64, 9, 500_000, -2.206, 1e-6, 0.1, False),
    ("emorl", "clevr6"): (96, 7, 425_000, -2.206, 1e-6, 0.1, False),
    ("sri-emorl", "clevr6"): (96, 7, 225_000, -2.265, 1e-6, 0.1, False),
}


@pytest.mark.parametrize(("name", "data"), PUBLISHED)
def test_the_published_settings(name: str, data: str) -> None:
    recipe = load_recipe(name, data)
    model, train = recipe.model, recipe.train
    sizes = (model.image_size, model.slots, train.steps, train.geco_target, train.geco_lr)
    assert (*sizes, model.std, model.normalised) == PUBLISHED[name, data]
    assert (model.slot_size, train.batch, train.geco_speedup) == (64, 32, 10)
    assert model.likelihood == ("gaussian" if "-g" in name or name == "sri-emorl" else "mog")
    optimiser = (train.lr, train.clip_grad, train.lr_warmup, train.lr_half_life, train.geco_warmup)
    if "emorl" in name:
        assert optimiser == (4e-4, 5.0, 10_000, 100_000, 1000)
        assert (model.decoder, model.refinements) == ("iodine", 2 if "sri" in name else 3)
    else:
        assert optimiser == (1e-4, None, 0, 0, 0)


@pytest.mark.parametrize("name", recipe_names())
def test_tiny_of_any_recipe(name: str) -> None:
    recipe = load_recipe(name, None, ["size=tiny", "train.batch=3"])
    assert (recipe.size, recipe.model.image_size, recipe.model.slot_size) == ("tiny", 32, 32)
    assert recipe.train.batch == 3  # what is asked for beside it counts
    assert (recipe.train.lr_warmup, recipe.train.geco_warmup) == (0, 0)
    paper = load_recipe(name)
    assert recipe.train.geco_target == paper.train.geco_target
    assert (paper.size, paper.model.system) == ("paper", recipe.model.system)
