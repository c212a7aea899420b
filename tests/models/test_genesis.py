"""GENESIS beside what holds for every model and the golden numbers."""

from __future__ import annotations

import pytest
import torch

from sri_cli.models.genesis import stick_breaking
from tests.small_models import SCENE_SIZE, noise_for, small_genesis


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def test_stick_breaking_at_the_extremes() -> None:
    extreme = stick_breaking(200 * torch.randn(2, 9, 1, 8, 8))
    assert extreme.isfinite().all()
    torch.testing.assert_close(extreme.exp().sum(dim=1), torch.ones(2, 1, 8, 8))


@pytest.mark.parametrize("scene_size", [None, SCENE_SIZE])
def test_temperature_zero_gives_the_means(scene_size: int | None) -> None:
    """Whatever the noise: the first mask latent at its mean, each later one at its own."""
    model = small_genesis(scene_size).eval()
    noise = {n: torch.randn(1, *spec.shape) for n, spec in model.sampling_noise(5).items()}
    latents = model.slots(noise, 0.0)[..., : model.slot_size]
    scene = None if scene_size is None else torch.zeros(1, scene_size)
    if scene is None:
        assert latents[:, 0].abs().max() == 0  # the mean of N(0, I)
    torch.testing.assert_close(latents, model.prior.teacher_forced(latents, scene).mean)


@pytest.mark.parametrize("image_size", [64, 96, 128])
def test_every_image_size(image_size: int) -> None:
    model = small_genesis(image_size=image_size, slots=2).eval()
    image = torch.rand(1, 3, image_size, image_size)
    scene = model.reconstruct(image, noise_for(model, 1)).scene
    assert scene.rgb.shape == (1, 2, 3, image_size, image_size)
