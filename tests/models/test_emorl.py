"""EfficientMORL beside what holds for every model and the golden numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sri_cli.models.base import Losses
from sri_cli.models.build import build_model
from tests.small_models import SIZES, images, lively, noise_for, small_emorl


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(5)


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
