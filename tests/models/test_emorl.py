"""EfficientMORL: what must hold beside the stored numbers of the official code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sri_cli.models.base import Losses
from sri_cli.models.decoders import DECODERS, IodineDecoder, PositionedDecoder
from sri_cli.models.emorl import DualGru, Emorl, EmorlSegregation, Parameters
from sri_cli.models.layers import ConvEncoder, position_code
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.sri import SRI
from sri_cli.rng import draw_noise

SMALL: dict[str, Any] = {"image_size": 32, "slots": 4, "slot_size": 16, "refinements": 2}
BATCH = 3


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights of ordinary size: those of the start tell all slots to be alike."""
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.shape[0] > 1:
            torch.nn.init.xavier_normal_(parameter)
    return model


def small(**changes: Any) -> Any:
    pixels = ImageLikelihood("mog", 0.3, normalised=False)
    return lively(Emorl(EmorlSegregation(likelihood=pixels, **SMALL | changes)))


def given(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    size = model.image_size
    return torch.rand(BATCH, 3, size, size), draw_noise(model.training_noise(), BATCH, 0, 0)


def assert_same(one: Losses, other: Losses, **tolerance: float) -> None:
    for name, value in one.terms.items():
        torch.testing.assert_close(value.detach(), other.terms[name].detach(), **tolerance)


def test_the_position_code_counts_distances_to_the_edges_width_major() -> None:
    code = position_code(5).unflatten(0, (5, 5))
    # Row 1, column 3 of the pixels: the code of w = 1, h = 3.
    assert code[1, 3].tolist() == [0.75, 0.25, 0.75, 0.25]  # right, left, top, bottom
    assert code[4, 0].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_features_lie_as_the_pixels_do() -> None:
    encoder = lively(ConvEncoder(16))
    image = torch.rand(1, 3, 16, 16)
    changed = image.clone()
    changed[..., 2, 11] = 1 - changed[..., 2, 11]
    moved = (encoder(changed) - encoder(image)).abs().sum(dim=-1).unflatten(1, (16, 16))[0]
    assert moved[2, 11] > 0
    assert (moved[11:] == 0).all() and (moved[:, :3] == 0).all()  # four 5x5 reach 8 pixels


def test_the_dual_gru_is_two_grus() -> None:
    dual, x = DualGru(6), torch.randn(2, 5, 6)
    state = Parameters(torch.randn(2, 5, 6), torch.randn(2, 5, 6))
    for cell, (ours, memory) in enumerate(zip(dual(x, state), state, strict=True)):
        gru = torch.nn.GRUCell(6, 6)
        for kind, gates, candidate in (("ih", "ih", "in"), ("hh", "hh", "hn")):
            weights = [getattr(dual, f"weight_{name}_{cell + 1}") for name in (gates, candidate)]
            biases = [getattr(dual, f"bias_{name}") for name in (gates, candidate)]
            halves = [bias.unflatten(0, (2, -1))[cell] for bias in biases]
            getattr(gru, f"weight_{kind}").data = torch.cat(weights)
            getattr(gru, f"bias_{kind}").data = torch.cat(halves)
        reference = gru(x.flatten(0, 1), memory.flatten(0, 1)).unflatten(0, (2, 5))
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize(("kind", "size"), [("iodine", 30), ("iodine", 16), ("big", 48)])
def test_decoders_make_scenes_of_the_size_asked_for(kind: str, size: int) -> None:
    scene = lively(DECODERS[kind](size, 8))(torch.randn(2, 5, 8))
    assert scene.rgb.shape == (2, 5, 3, size, size)
    torch.testing.assert_close(scene.masks.sum(dim=1), torch.ones(2, 1, size, size))
    assert scene.rgb.min() >= 0 and scene.rgb.max() <= 1


def test_big_refuses_sizes_that_16_does_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        DECODERS["big"](40, 8)


def test_the_short_cut_of_iodine_is_the_convolution_of_the_broadcast_slots() -> None:
    decoder, slots = lively(IodineDecoder(12, 8)), torch.randn(6, 8)
    assert isinstance(decoder, IodineDecoder)
    plain = PositionedDecoder.decode(decoder, slots)
    torch.testing.assert_close(decoder.decode(slots), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", ["iodine", "big"])
@pytest.mark.parametrize("slots", [1, 3, 9, 14])
def test_any_number_of_slots_samples(decoder: str, slots: int) -> None:
    model = small(decoder=decoder)
    scene = model.sample(draw_noise(model.sampling_noise(slots), 2, 0, 0), 0.7)
    assert scene.rgb.shape == (2, slots, 3, 32, 32)
    torch.testing.assert_close(scene.masks.sum(dim=1), torch.ones(2, 1, 32, 32))


def test_slots_are_drawn_independently_and_the_temperature_scales_every_layer() -> None:
    model = small()
    more = draw_noise(model.sampling_noise(9), 2, 0, 0)["slots"]
    torch.testing.assert_close(
        model.segregate.draw(more)[:, :3], model.segregate.draw(more[:, :3]), rtol=1e-4, atol=1e-5
    )
    cold = model.segregate.draw(more, 1e-6)
    torch.testing.assert_close(cold, cold[:1, :1].expand_as(cold), rtol=1e-3, atol=1e-4)
    # By hand: three layers, two of them with a prior.
    z = 0.5 * more[:, :, 0]
    for layer in (1, 2):
        prior = model.segregate.prior(z)
        z = prior.mean + 0.5 * prior.std * more[:, :, layer]
    torch.testing.assert_close(model.segregate.draw(more, 0.5), z)


def test_attention_and_masks_sum_to_one() -> None:
    model = small()
    seen = model.reconstruct(*given(model))
    ones = torch.ones(BATCH, 1, 32, 32)
    torch.testing.assert_close(seen.attention.sum(dim=1), ones)
    torch.testing.assert_close(seen.scene.masks.sum(dim=1), ones)
    assert seen.attention.shape == (BATCH, 4, 1, 32, 32)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_refines_all_the_same(mode: Callable[[], Any]) -> None:
    model = small()
    images, noise = given(model)
    with_gradients = model(images, noise)
    assert with_gradients.terms["nll"].requires_grad
    with mode():
        inside = {name: draw * 1 for name, draw in noise.items()}  # tensors of the mode
        found = model(images * 1, inside)
    assert_same(with_gradients, found, rtol=0, atol=0)
    assert not any(value.requires_grad for value in found.terms.values())


def test_gradients_are_had_under_bf16_autocast_after_sampling_in_the_same_context() -> None:
    """Casts of weights are cached, and those of inference mode can have no gradient."""
    model = small()
    images, noise = given(model)
    exact = model(images, noise)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        model.sample(draw_noise(model.sampling_noise(4), 2, 0, 0))
        found = model(images, noise)
    assert found.terms["nll"].dtype == torch.float32
    assert_same(exact, found, rtol=0.02, atol=1.0)


def test_frozen_weights_are_no_obstacle() -> None:
    model = small()
    images, noise = given(model)
    expected = model(images, noise)
    assert_same(expected, model.requires_grad_(False)(images, noise))


def test_an_image_is_refined_alike_in_any_batch() -> None:
    model = small()
    images, noise = given(model)
    alone = model(images[:1], {name: draw[:1] for name, draw in noise.items()})
    for name, value in model(images, noise).terms.items():
        torch.testing.assert_close(alone.terms[name], value[:1], rtol=1e-5, atol=1e-4)


def test_the_gradient_is_that_of_the_mean_over_a_training_batch() -> None:
    """Where gradients are small, the layer norm's epsilon sees the scale."""
    model = small()
    images, noise = given(model)
    model.segregate.refine.batch = BATCH
    model.segregate.refine.error_weight.fill_(0.7)
    calls: list[Any] = []
    model.segregate.refine.register_forward_pre_hook(lambda _, args: calls.append(args))
    first, *_ = model.segregate.infer(images, noise).passes
    found, gradient, _ = calls[0]
    loss = (first.kl + 0.7 * first.nll).mean()
    for ours, theirs in zip(gradient, torch.autograd.grad(loss, found), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_permuted_noise_permutes_the_posterior() -> None:
    model = small()
    images, noise = given(model)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {name: draw[..., order, :] for name, draw in noise.items()}
    straight, permuted = model.segregate(images, noise), model.segregate(images, shuffled)
    for ours, theirs in zip(straight.posterior, permuted.posterior, strict=True):
        torch.testing.assert_close(ours[:, order], theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(straight.nll, permuted.nll, rtol=1e-4, atol=1e-2)


def test_fewer_refinements_are_a_prefix_of_more() -> None:
    model = small()
    images, noise = given(model)
    (objective,) = model(images, noise).objectives
    assert len(objective.earlier) == 2
    model.segregate.refine.steps = 1
    assert model.training_noise()["refinement"].shape[0] == 2  # a resume draws the same noise
    fewer = model(images, noise)
    assert torch.equal(fewer.objectives[0].error, objective.earlier[1][0])
    assert torch.equal(fewer.objectives[0].kl, objective.earlier[1][1])
    model.segregate.refine.steps = 0
    none = model(images, noise)
    assert torch.equal(none.terms["nll"], none.terms["nll_first"])
    assert none.terms.keys() == fewer.terms.keys()
    with pytest.raises(ValueError, match="0 to 2"):
        model.segregate.refine.steps = 3


def test_the_bound_counts_the_kl_of_every_layer() -> None:
    model = small()
    images, noise = given(model)
    losses = model(images, noise)
    assert set(losses.bound) == {"nll", "kl", "kl_upper"}
    assert (losses.terms["kl_upper"] > 0).all()
    assert (losses.terms["kl_upper"] < losses.terms["kl_first"]).all()
    model.segregate.refine.steps = 0
    first = model(images, noise)
    torch.testing.assert_close(first.terms["kl"] + first.terms["kl_upper"], first.terms["kl_first"])


def test_what_refinement_depends_on_travels_with_the_weights() -> None:
    model, other = small(), small()
    model.segregate.refine.steps = 1
    model.segregate.refine.batch = 5
    model.segregate.refine.error_weight.fill_(1.3)
    other.load_state_dict(model.state_dict())
    assert other.segregate.refine.steps == 1
    assert other.segregate.refine.batch == 5
    images, noise = given(model)
    assert_same(model(images, noise), other(images, noise), rtol=0, atol=0)


def test_sri_takes_the_refined_posterior_and_sends_no_gradient_back() -> None:
    pixels = ImageLikelihood("gaussian", 0.1, normalised=False)
    model = SRI(
        segregation=lively(EmorlSegregation(likelihood=pixels, **SMALL)),
        decoder=DECODERS["iodine"](32, 16),
        likelihood=pixels,
        image_size=32,
        slots=4,
        slot_size=16,
        scene_size=24,
        order="greedy",
    )
    segregation, imagination = model(*given(model)).objectives
    assert len(segregation.earlier) == 2
    (imagination.error + imagination.kl).sum().backward(retain_graph=True)
    assert all(p.grad is None for p in model.segregate.parameters())
    (segregation.error + segregation.kl).sum().backward()
    assert all(p.grad is not None for p in model.segregate.parameters())


def test_compiles_as_one_graph_with_the_same_losses_and_gradients() -> None:
    model = small()
    images, noise = given(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    gradients = []
    for variant in (model, compiled):
        model.zero_grad()
        losses = variant(images, noise)
        (losses.terms["nll"] + losses.terms["kl"]).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert_same(model(images, noise), losses, rtol=1e-5, atol=1e-4)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)
