"""Single systems beside what holds for every model and the golden numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.models.base import Losses
from sri_cli.models.build import build_model
from sri_cli.models.distributions import Gaussian
from sri_cli.models.genesis import stick_breaking
from sri_cli.models.genesis_v2 import FEWEST_PIXELS
from sri_cli.models.scene_encoder import SceneEncoder
from sri_cli.models.slot_attention import SlotAttention, SlotAttentionSegregation
from sri_cli.rng import draw_noise
from sri_cli.training.step_timing import CallCounter
from tests.small_models import (
    SCENE_SIZE,
    SIDE,
    SIZES,
    VARIANTS,
    images,
    lively,
    noise_for,
    small_emorl,
    small_genesis,
)

# GENESIS -----------------------------------------------------------------------------------------


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


# EfficientMORL -----------------------------------------------------------------------------------


def assert_same(one: Losses, other: Losses, **tolerance: float) -> None:
    for name, value in one.terms.items():
        torch.testing.assert_close(value.detach(), other.terms[name].detach(), **tolerance)


def test_without_gradients_it_refines_all_the_same() -> None:
    model = small_emorl()
    noise = noise_for(model)
    with_gradients = model(images(), noise)
    assert with_gradients.terms["nll"].requires_grad
    with torch.no_grad():
        without = model(images(), noise)
    assert_same(with_gradients, without, rtol=0, atol=0)
    assert not any(value.requires_grad for value in without.terms.values())
    assert_same(with_gradients, model.requires_grad_(False)(images(), noise))


@pytest.mark.parametrize(("weight", "bf16"), [(0.7, False), (0.0, True)])
def test_the_gradient_is_that_of_the_mean_over_a_training_batch(weight: float, bf16: bool) -> None:
    """Where gradients are small, the layer norm's epsilon sees the scale; none of a KL is bf16."""
    model = small_emorl()
    model.refinement.batch = 2
    model.refinement.error_weight.fill_(weight)
    calls: list[Any] = []
    model.refinement.register_forward_pre_hook(lambda _, args: calls.append(args))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        first, *_ = model.segregate.infer(images(), noise_for(model)).passes
    posterior, gradient, _ = calls[0]
    loss = (first.kl + weight * first.nll).mean()
    for ours, theirs in zip(gradient, torch.autograd.grad(loss, posterior), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_loss_of_one_image_has_no_gradient_of_another() -> None:
    model = small_emorl()
    x = images().requires_grad_()
    model(x, noise_for(model)).terms["nll"][0].backward()
    assert x.grad is not None and x.grad[0].any() and not x.grad[1].any()


def test_fewer_refinements_are_a_prefix_of_more() -> None:
    model = small_emorl()
    noise = noise_for(model)
    full = model(images(), noise)
    assert set(full.bound) == {"nll", "kl", "kl_upper"}
    upper, whole = full.terms["kl_upper"], full.terms["kl_first"]
    assert (upper > 0).all() and (upper < whole).all()
    (objective,) = full.objectives
    assert len(objective.earlier) == 2
    model.refinement.steps = 1
    assert model.training_noise()["refinement"].shape[0] == 2  # a resume draws the same noise
    fewer = model(images(), noise)
    assert torch.equal(fewer.objectives[0].error, objective.earlier[1][0])
    assert torch.equal(fewer.objectives[0].kl, objective.earlier[1][1])
    model.refinement.steps = 0
    none = model(images(), noise).terms
    assert torch.equal(none["nll"], none["nll_first"])
    torch.testing.assert_close(none["kl"] + none["kl_upper"], none["kl_first"])


def test_sri_takes_the_refined_posterior_and_sends_no_gradient_back() -> None:
    pixels = {"likelihood": "gaussian", "std": 0.1, "normalised": False}
    model = build_model("sri", segregation="emorl", refinements=2, **pixels, **SIZES)
    lively(model.segregate)
    assert model.geco == "emorl" and model.refinement is model.segregate.refine
    losses = model(images(), noise_for(model))
    segregation, imagination = losses.objectives
    assert torch.equal(segregation.error, losses.terms["seg_nll"])
    assert torch.equal(segregation.kl, losses.terms["seg_kl"])
    assert len(segregation.earlier) == 2
    (imagination.error + imagination.kl).sum().backward(retain_graph=True)
    assert all(p.grad is None for p in model.segregate.parameters())
    (segregation.error + segregation.kl).sum().backward()
    assert all(p.grad is not None for p in model.segregate.parameters())


def test_compiled_gradients_are_the_same() -> None:
    model = small_emorl()
    noise = noise_for(model)
    torch.compiler.reset()
    gradients = []
    for variant in (model, torch.compile(model, fullgraph=True, backend="eager")):
        model.zero_grad()
        terms = variant(images(), noise).terms
        (terms["nll"] + terms["kl"]).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)


# SRI-SA*: Slot Attention instead of a segregation model with a loss of its own -------------------


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


# Dynamic slots of GENESIS-v2: as many slots as an image needs, in inference ----------------------


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
