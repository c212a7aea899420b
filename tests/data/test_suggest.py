"""`sri prepare show` suggests settings of a recipe that fit the images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sri_cli.config.load import load_recipe
from sri_cli.config.schema import MOST_SLOTS
from sri_cli.data.dataset import DataFile
from sri_cli.data.summary import describe, suggest_slots
from sri_cli.models.base import Scene
from sri_cli.models.likelihood import ImageLikelihood
from tests.small_data import write_data, write_small_data


def suggested(text: str) -> list[list[str]]:
    """The overrides that `sri prepare show` suggests, as words to copy."""
    lines = [line[12:].partition("  ")[0].split() for line in text.splitlines()]
    return [words for words in lines if words and all("=" in word for word in words)]


def test_suggestions_are_overrides_measured_on_the_images(tmp_path: Path) -> None:
    write_data(path := tmp_path / "mine-32.h5")  # one to three squares in an image
    (slots,), *targets = suggested(describe(data := DataFile(path)))
    assert slots == "model.slots=5"
    assert load_recipe("sri-mog", "mine", [slots]).model.slots == 5
    images = torch.tensor(data.split("train").images / 255.0).permute(0, 3, 1, 2)
    mean = images.mean(dim=0).expand(1, len(images), -1, -1, -1).transpose(0, 1)
    scene = Scene(mean, torch.zeros_like(mean[:, :, :1]))
    perfect = dataclasses.replace(scene, rgb=images[:, None])
    for name in ("sri-mog", "sri-g", "emorl"):
        model = load_recipe(name).model
        likelihood = ImageLikelihood(model.likelihood, model.std, model.normalised)
        worst, best = (
            likelihood.nll(images, one).mean().item() / images[0].numel()
            for one in (scene, perfect)
        )
        for share, size in ((0.07, []), (0.2, ["size=tiny"])):
            target = f"train.geco_target={best + share * (worst - best):.5g}"
            assert [*size, target] in targets
            assert load_recipe(name, "mine", [*size, target]).train.geco_target > best


def test_targets_are_of_the_likelihood_that_the_data_set_has(tmp_path: Path) -> None:
    path = write_small_data(tmp_path / "clevr6-32.h5")
    text = describe(DataFile(path))
    model = load_recipe("sri-mog", "clevr6").model
    assert (model.std, model.normalised) == (0.1, False)
    (line,) = (one for one in text.splitlines() if "sri-mog" in one)
    assert "std 0.1, not normalised" in line
    assert f"--data {path}" in text  # it is not in data/


def test_without_masks_no_number_of_slots_is_suggested(tmp_path: Path) -> None:
    write_data(path := tmp_path / "mine-32.h5", with_masks=False)
    words = suggested(describe(DataFile(path)))
    assert words and not [word for line in words for word in line if word.startswith("model")]


@pytest.mark.parametrize(
    ("objects", "background_labels", "slots"),
    [
        ({2: 50, 3: 50}, 1, 5),  # demo-towers
        ({1: 3, 2: 4, 3: 3}, 4, 7),  # Objects Room, whose background has four parts
        ({3: 99, 30: 1}, 1, 5),  # one odd image in a hundred does not count
        ({3: 98, 30: 2}, 1, 32),
        ({0: 5}, 1, 2),
        ({70: 5}, 1, MOST_SLOTS),
    ],
)
def test_slots_for_the_objects(objects: dict[int, int], background_labels: int, slots: int) -> None:
    assert suggest_slots(objects, background_labels)[0] == slots
    assert load_recipe("sri-mog", "mine", [f"model.slots={slots}"]).model.slots == slots
