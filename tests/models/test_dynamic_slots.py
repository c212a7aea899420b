"""Dynamic slots of GENESIS-v2: as many slots as an image needs, in inference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.models.distributions import Gaussian
from sri_cli.models.genesis_v2 import FEWEST_PIXELS
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.training.step_timing import CallCounter
from tests.small_models import SIDE, VARIANTS, images, noise_for

ON_GENESIS_V2 = ["sri", "sri-a", "sri-b", "genesis-v2", "genesis-v2-scene"]
MOST = 24


def dynamic(name: str, most: int = MOST) -> Any:
    """A model whose masks are round spots of some 100 pixels, until few pixels are left."""
    torch.manual_seed(1)
    model = VARIANTS[name](slots=most).eval()
    model.segregate.colouring.colour_head.weight.data.mul_(0.1)
    model.segregate.colouring.log_sigma.data.fill_(math.log(0.15))
    model.segregate.dynamic_slots = True
    assert model.dynamic_slots
    return model


def slow_masks(colouring: Any, features: Tensor, rand_pixel: Tensor, most: int) -> list[Tensor]:
    """The same for one image, [1,F,H,W], in a loop that stops."""
    colours = colouring.colour_head(features) * colouring.gate + colouring.coordinates
    scope, masks = torch.ones(SIDE, SIDE), []
    for _ in range(most - 1):
        seed = divmod(int((rand_pixel[0, 0] * scope).argmax()), SIDE)
        distance = (colours[0] - colours[0][:, seed[0], seed[1], None, None]).square().sum(dim=0)
        alpha = torch.exp(-distance / colouring.log_sigma.exp()).clamp(0.01, 0.99)
        if (scope * alpha).sum() < FEWEST_PIXELS:
            break
        masks.append(scope * alpha)
        scope = scope * (1 - alpha)
    return [*masks, scope]


def test_each_image_stops_by_itself_and_in_one_batch() -> None:
    model = dynamic("genesis-v2")
    noise = noise_for(model, 6)
    batch = images(6)
    with CallCounter() as counter, torch.no_grad():
        result = model.segregate(batch, noise)
    assert counter.host_reads == 0
    counts = (~result.empty).sum(dim=1).tolist()
    assert len(set(counts)) > 1 and min(counts) > 1 and max(counts) < MOST
    with torch.no_grad():
        for i, count in enumerate(counts):
            features = model.segregate.encoder(batch[i : i + 1]).relu()
            colours = model.segregate.seg_head(features)
            rand_pixel = noise["rand_pixel"][i : i + 1]
            expected = slow_masks(model.segregate.colouring, colours, rand_pixel, MOST)
            assert len(expected) == count
            masks = result.log_masks[i, :, 0].exp()
            torch.testing.assert_close(masks[:count], torch.stack(expected), rtol=1e-3, atol=1e-5)
            assert (masks[count:] == 0).all()


@pytest.mark.parametrize("name", ON_GENESIS_V2)
def test_empty_slots_stay_out_of_everything(name: str) -> None:
    model = dynamic(name)
    noise = noise_for(model)
    result = model.segregate(images(), noise)
    seen, losses = model.reconstruct(images(), noise), model(images(), noise)
    ones = torch.ones(2, 1, SIDE, SIDE)
    torch.testing.assert_close(seen.scene.masks.sum(dim=1), ones)
    torch.testing.assert_close(seen.attention.sum(dim=1), ones)
    assert all(value.isfinite().all() for value in losses.terms.values())
    assert seen.scene.image.isfinite().all()
    closed = seen.attention.flatten(2).amax(dim=2) == 0
    assert torch.equal(closed.sum(dim=1), result.empty.sum(dim=1))
    assert (seen.scene.masks.flatten(2).amax(dim=2)[closed] == 0).all()
    assert closed.any()


@pytest.mark.parametrize("name", ON_GENESIS_V2)
def test_room_for_more_slots_changes_nothing_once_an_image_has_stopped(name: str) -> None:
    """Empty slots could as well not be there."""
    wide = dynamic(name)
    noise = noise_for(wide)
    count = int((~wide.segregate(images(), noise).empty).sum(dim=1).max())
    assert count < MOST - 1
    narrow = dynamic(name, count + 1)
    narrow.load_state_dict(wide.state_dict())
    fewer = {n: v[:, : count + 1] if v.ndim == 3 else v for n, v in noise.items()}
    for term, value in wide(images(), noise).terms.items():
        result = narrow(images(), fewer).terms[term]
        torch.testing.assert_close(result, value, rtol=1e-4, atol=1e-3)
    scenes = [m.reconstruct(images(), n).scene for m, n in ((wide, noise), (narrow, fewer))]
    torch.testing.assert_close(scenes[1].image, scenes[0].image, rtol=1e-4, atol=1e-4)


def test_the_scene_encoder_does_not_see_empty_slots() -> None:
    torch.manual_seed(1)
    encoder, slots = SceneEncoder(8, 6), torch.randn(3, 5, 8)
    empty = torch.zeros(3, 5, dtype=torch.bool)
    empty[:, [1, 3]] = True
    result: Gaussian = encoder(slots, empty)
    alone: Gaussian = encoder(slots[:, [0, 2, 4]])
    torch.testing.assert_close(result.mean, alone.mean)
    torch.testing.assert_close(result.std, alone.std)


def test_off_by_default_and_refused_in_training() -> None:
    model = VARIANTS["sri"]()
    assert not model.dynamic_slots and model.segregate(images(), noise_for(model)).empty is None
    model.segregate.dynamic_slots = True
    with pytest.raises(ValueError, match="inference"):
        model.train()(images(), noise_for(model))
