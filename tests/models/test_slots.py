"""Slots by themselves: `sample` is `slots` then `decode`, given slots stand, images have theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.generation.sample import sample_noise
from sri_cli.models.build import build_model
from sri_cli.rng import indexed_noise

SYSTEMS = {
    "sri": {"system": "sri", "scene_size": 24},
    "sri-no-scene": {"system": "sri", "scene": False},
    "genesis-v2": {"system": "genesis-v2"},
    "genesis-v2-scene": {"system": "genesis-v2", "scene": True, "scene_size": 24},
    "genesis": {"system": "genesis"},
    "genesis-scene": {"system": "genesis", "scene": True, "scene_size": 24},
    "emorl": {"system": "emorl", "init": "xavier_small"},
}


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return build_model(image_size=32, slots=3, slot_size=16, **SYSTEMS[request.param]).eval()


@torch.no_grad()
def slots(model: Any, noise: Mapping[str, Tensor], given: Tensor | None = None) -> Tensor:
    return model.slots(noise, 0.8, given)


@torch.no_grad()
def test_a_sample_is_its_slots_decoded(model: Any) -> None:
    noise = sample_noise(model, 0, 0, 2, slots=4)
    scene, decoded = model.sample(noise, 0.8), model.decode(slots(model, noise))
    assert torch.equal(scene.rgb, decoded.rgb)
    assert torch.equal(scene.log_masks, decoded.log_masks)


def test_given_slots_stand_and_the_rest_follow_as_if_they_had_been_drawn(model: Any) -> None:
    noise = sample_noise(model, 0, 0, 2, slots=4)
    drawn = slots(model, noise)
    torch.testing.assert_close(slots(model, noise, drawn[:, :2]), drawn)
    assert torch.equal(slots(model, noise, drawn[:, :0]), drawn)
    other = drawn[:, :2] + 1
    again = slots(model, noise, other)
    assert torch.equal(again[:, :2], other)
    follows = not torch.equal(again[:, 2:], drawn[:, 2:])
    assert follows == hasattr(model, "prior")  # EMORL draws every slot on its own


def test_slots_before_a_changed_one_stay(model: Any) -> None:
    noise = sample_noise(model, 0, 0, 2, slots=4)
    changed = {name: value.clone() for name, value in noise.items()}
    for name in changed.keys() - {"scene"}:
        changed[name][:, 2] += 1
    ours, theirs = slots(model, noise), slots(model, changed)
    assert torch.equal(ours[:, :2], theirs[:, :2])
    assert not torch.equal(ours[:, 2], theirs[:, 2])


@torch.no_grad()
def test_the_slots_of_an_image_decode_to_its_reconstruction(model: Any) -> None:
    noise = indexed_noise(model.training_noise(), 0, [0, 1], "test")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = model.reconstruct(images, noise)
    decoded = model.decode(seen.slots)
    torch.testing.assert_close(decoded.image, seen.scene.image)
    torch.testing.assert_close(decoded.masks, seen.scene.masks)
    has_scene = "scene" in model.sampling_noise(3)
    assert (seen.latent is not None) == has_scene
    assert not has_scene or seen.latent.shape == noise["scene"].shape
