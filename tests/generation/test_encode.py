"""Images become slots, scene latent and order, the same whatever the chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.generation import encode
from sri_cli.generation.encode import encode_images
from sri_cli.generation.sample import chunk_size, evaluation_noise, to_tensor
from tests.small_models import SCENE_SIZE, SIDE, SLOTS, VARIANTS

IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("system", ["sri", "sri-b", "genesis-v2", "genesis-scene", "emorl"])
def test_an_encoding_is_what_the_model_infers(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = VARIANTS[system]().eval()
    one = encode_images(model, IMAGES, [4, 5, 6], seed=2)
    noise = evaluation_noise(model, 2, np.array([4, 5, 6]), torch.device("cpu"))
    with torch.no_grad():
        made = model.reconstruct(to_tensor(IMAGES), noise)
    torch.testing.assert_close(one.slots, made.slots, rtol=0.1, atol=0.05)  # bf16
    assert one.slots.dtype == torch.float32 and one.image.shape == (3, 3, SIDE, SIDE)
    assert one.masks.shape == one.attention.shape == (3, SLOTS, SIDE, SIDE)
    assert (one.latent is None) == (not model.has_scene)
    if one.latent is not None:
        assert one.latent.shape == (3, SCENE_SIZE)
    assert one.rollout is None
    matched = system == "sri"
    assert (one.order is not None) == matched
    if one.order is not None:
        assert (one.order.sort(dim=1).values == torch.arange(SLOTS)).all()

    monkeypatch.setattr(encode, "CHUNK", 2)
    again = encode_images(model, to_tensor(IMAGES[1:]), [5, 6], seed=2, rollout=True)
    assert (again.rollout is None) == (made.imagine is None)
    torch.testing.assert_close(again.image, one.image[1:], rtol=0.1, atol=0.05)


def test_a_gpu_takes_more_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def in_chunks(compute: Any, num: int, size: int, device: torch.device) -> Iterator[Any]:
        sizes.append(size)
        raise NotImplementedError

    monkeypatch.setattr(encode, "in_chunks", in_chunks)
    model = VARIANTS["sri"]()
    for name in ("cpu", "cuda"):
        monkeypatch.setattr(encode, "device_of", lambda _, name=name: torch.device(name))
        with pytest.raises(NotImplementedError):
            encode_images(model, IMAGES)
    assert sizes == [encode.CHUNK, chunk_size(SLOTS, SIDE, torch.device("cuda"))]
    assert sizes[1] > sizes[0]
