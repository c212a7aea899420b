"""SRI-SA*: Slot Attention instead of a segregation model with a loss of its own."""

from __future__ import annotations

import pytest
import torch

from sri_cli.models.slot_attention import SlotAttention, SlotAttentionSegregation
from sri_cli.rng import draw_noise
from tests.small_models import SIDE, SIZES, VARIANTS, images, noise_for


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def test_the_losses_of_sri_train_it_and_nothing_is_detached() -> None:
    model = VARIANTS["sri-sa"]()
    losses = model(images(), noise_for(model))
    assert model.objective_names == ("imagination",)
    (imagination,) = losses.objectives
    assert set(losses.terms) == {"nll", "kl_scene", "kl_slot", "kl_cross_order"}
    for part in (imagination.error, losses.terms["kl_scene"], losses.terms["kl_slot"]):
        model.zero_grad()
        part.sum().backward(retain_graph=True)
        grads = {n: p.grad for n, p in model.segregate.named_parameters()}
        assert all(grad is not None and grad.abs().sum() > 0 for grad in grads.values())


def test_its_slots_are_not_reordered() -> None:
    model = VARIANTS["sri-sa"]()
    noise = noise_for(model)
    inferred = model.infer(images(), noise)
    assert inferred.order is None
    torch.testing.assert_close(inferred.posterior.mean, inferred.segregated.posterior.mean)
    attention = model.reconstruct(images(), noise).attention
    torch.testing.assert_close(attention, inferred.segregated.log_masks.exp())


def test_pixels_land_where_they_are_in_the_image() -> None:
    """A bright corner draws other attention there, not in another corner."""
    stage = SlotAttentionSegregation(**SIZES)
    noise = draw_noise(stage.noise(), 1, 0, 0)
    dark = torch.zeros(1, 3, SIDE, SIDE)
    corner = dark.clone()
    corner[..., :4, -4:] = 1
    change = (stage(corner, noise).log_masks.exp() - stage(dark, noise).log_masks.exp()).abs()
    change = change.sum(dim=1)[0, 0]
    assert change[:4, -4:].mean() > 1e-3, "slots see the image before any training"
    assert change[:4, -4:].mean() > 3 * change[-8:, :8].mean()


def test_slots_are_alike_only_where_they_share_their_start() -> None:
    features, noise = torch.randn(2, 30, 64), torch.randn(2, 5, 16)
    order = torch.tensor([3, 0, 4, 1, 2])
    for starts, alike in ((1, True), (5, False)):
        attention = SlotAttention(starts, 16)
        plain, masks = attention(features, noise)
        permuted, permuted_masks = attention(features, noise[:, order])
        assert torch.allclose(plain.mean[:, order], permuted.mean, atol=1e-5) == alike
        assert torch.allclose(masks[:, order], permuted_masks, atol=1e-4) == alike
