"""SRI: the switches of Table 3, what is detached, matching and independence of the order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.config.load import load_recipe
from sri_cli.models.base import Noise, Segregated, Segregation
from sri_cli.models.build import build_model
from sri_cli.models.distributions import Gaussian
from sri_cli.models.matching import (
    MATCHINGS,
    distances,
    greedy_order,
    hungarian_order,
    relaxed_order,
    reorder,
    sinkhorn,
    sinkhorn_order,
)
from sri_cli.rng import NoiseSpec
from tests.small_models import (
    SCENE_SIZE,
    SLOTS,
    VARIANTS,
    images,
    noise_for,
    small_genesis_v2,
    small_sri,
)


@pytest.mark.parametrize(
    ("name", "terms", "bound"),
    [
        ("sri-g", {"kl_scene", "kl_slot", "kl_cross_order"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-g-no-scene", {"kl_slot", "kl_cross_order"}, ("nll", "kl_slot")),
        ("sri-g-no-alignment", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-g-no-cross-order", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
    ],
)
def test_an_ablation_lacks_what_it_removes(
    name: str, terms: set[str], bound: tuple[str, ...]
) -> None:
    """Table 3 of the paper."""
    recipe = load_recipe(name, None, ["size=tiny"]).model
    model = build_model(**recipe.model_dump())
    images = torch.rand(2, 3, recipe.image_size, recipe.image_size)
    noise = noise_for(model)
    assert (model.infer(images, noise).order is None) == (name == "sri-g-no-alignment")
    losses = model(images, noise)
    assert set(losses.terms) == terms | {"nll", "seg_nll", "seg_kl"}
    assert losses.bound == bound
    assert all((losses.terms[term] >= 0).all() for term in terms)
    torch.testing.assert_close(losses.objectives[1].kl, sum(losses.terms[term] for term in terms))


def test_without_a_scene_variable_the_first_slot_is_standard() -> None:
    model = small_sri(scene=False)
    assert "scene" not in model.training_noise() | model.sampling_noise(3)
    noise = torch.randn(5, 3, 16)
    prior, draws = model.prior.rollout(noise, temperature=0.5)
    torch.testing.assert_close(draws[:, 0], 0.5 * noise[:, 0])
    assert (prior.mean[:, 0] == 0).all() and (prior.std[:, 0] == 1).all()
    forced = model.prior.teacher_forced(draws)
    torch.testing.assert_close(forced.mean, prior.mean)
    torch.testing.assert_close(forced.std, prior.std)


def test_without_alignment_the_detached_segregation_posterior_is_used() -> None:
    model = small_sri(alignment=False)
    result = model.infer(images(), noise_for(model))
    assert result.order is None and not result.posterior.mean.requires_grad
    torch.testing.assert_close(result.posterior.mean, result.segregated.posterior.mean)
    torch.testing.assert_close(result.posterior.std, result.segregated.posterior.std)


@pytest.mark.parametrize("name", ["sri", "sri-a", "sri-b", "sri-c", "sri-ab"])
def test_no_gradient_of_the_upper_stages_reaches_segregation(name: str) -> None:
    model = VARIANTS[name]()
    _, imagination = model(images(), noise_for(model)).objectives
    (imagination.error + imagination.kl).sum().backward()
    assert all(p.grad is None for p in model.segregate.parameters())
    assert all(p.grad is not None for p in model.prior.parameters())


class Shuffled(Segregation):
    """A segregation model whose slots come out in another order."""

    def __init__(self, stage: Segregation, permutation: list[int]) -> None:
        super().__init__()
        self.stage, self.permutation = stage, torch.tensor(permutation)

    def noise(self) -> dict[str, NoiseSpec]:
        return self.stage.noise()

    def forward(self, images: Tensor, noise: Noise, gaussian_likelihood: bool) -> Segregated:
        result = self.stage(images, noise, gaussian_likelihood)
        order = self.permutation.expand(len(images), -1)
        return replace(
            result,
            posterior=Gaussian(*(reorder(part, order) for part in result.posterior)),
            slots=reorder(result.slots, order),
            log_masks=reorder(result.log_masks, order),
        )


def apart(model: Any) -> Any:
    """Rollout means apart from each other, so that no two slots fit a position equally well."""
    model.prior.mean.weight.data.mul_(300)
    return model


@pytest.mark.parametrize("order", ["greedy", "hungarian"])
def test_sri_does_not_depend_on_the_order_of_segregation(order: str) -> None:
    model = apart(small_sri(order=order))
    assert model.matches_on_host == (order == "hungarian")
    noise = noise_for(model)
    plain, seen = model(images(), noise), model.reconstruct(images(), noise)
    model.segregate = Shuffled(model.segregate, [2, 0, 3, 1])
    shuffled, again = model(images(), noise), model.reconstruct(images(), noise)
    for term, value in plain.terms.items():
        torch.testing.assert_close(shuffled.terms[term], value, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(again.attention, seen.attention)
    assert not torch.equal(seen.order, again.order)


def test_genesis_v2_with_a_scene_variable_detaches_nothing() -> None:
    model = small_genesis_v2(SCENE_SIZE)
    noise = noise_for(model)
    losses = model(images(), noise)
    assert set(losses.terms) == {"nll", "kl_scene", "kl_slot"} == set(losses.bound)
    (objective,) = losses.objectives
    torch.testing.assert_close(objective.kl, losses.terms["kl_scene"] + losses.terms["kl_slot"])
    losses.terms["kl_scene"].sum().backward()
    assert model.segregate.slot_head[1].weight.grad.abs().sum() > 0
    # One sample, in the order of segregation.
    result = model.segregate(images(), noise)
    scene = model.relate(result.slots).sample(noise["scene"])
    prior = model.prior.teacher_forced(result.slots, scene)
    kl = result.posterior.log_prob(result.slots) - prior.log_prob(result.slots)
    torch.testing.assert_close(losses.terms["kl_slot"], kl.sum(dim=1))


def test_greedy_takes_the_nearest_left_and_hungarian_the_least_total() -> None:
    prior = torch.tensor([[[0.0], [1.0]]])
    slots = torch.tensor([[[0.6], [-5.0]]])
    assert greedy_order(prior, slots).tolist() == [[0, 1]]  # 0.6 + 6 = 6.6
    assert hungarian_order(prior, slots).tolist() == [[1, 0]]  # 5 + 0.4 = 5.4
    broken = torch.full_like(prior, torch.nan)  # such a step is skipped, not the training ended
    assert sorted(hungarian_order(broken, slots)[0].tolist()) == [0, 1]


def test_identical_slots_still_make_a_permutation() -> None:
    same = torch.zeros(2, 5, 3)
    for match in MATCHINGS.values():
        assert (match(same, same).sort(dim=1).values == torch.arange(5)).all()


@pytest.mark.parametrize("name", MATCHINGS)
def test_empty_slots_come_last_and_change_nothing_before(name: str) -> None:
    match = MATCHINGS[name]
    prior, slots = torch.randn(20, 7, 4), torch.randn(20, 7, 4)
    empty = torch.zeros(20, 7, dtype=torch.bool)
    empty[:, [1, 4]] = True
    empty[0] = False  # of each image its own number
    order = match(prior, slots, empty)
    assert (order.sort(dim=1).values == torch.arange(7)).all()
    assert torch.equal(order[0], match(prior[:1], slots[:1])[0])
    assert reorder(empty, order)[1:].tolist() == [[False] * 5 + [True] * 2] * 19
    there = torch.tensor([0, 2, 3, 5, 6])
    alone = match(prior[1:, :5], slots[1:, there])
    assert torch.equal(order[1:, :5], there[alone])


def far_apart() -> tuple[Tensor, Tensor]:
    """Prior and segregation means of 40 images, 6 slots, at distances of 2 to 6."""
    generator = torch.Generator().manual_seed(0)
    prior, slots = torch.randn(2, 40, 6, 8, generator=generator)
    return prior, slots


def test_sinkhorn_comes_to_the_hungarian_order() -> None:
    prior, slots = far_apart()
    best = hungarian_order(prior, slots)
    same = (sinkhorn_order(prior, slots) == best).all(dim=1).float().mean()
    greedy = (greedy_order(prior, slots) == best).all(dim=1).float().mean()
    assert same >= 0.95 > greedy + 0.3


def test_sinkhorn_becomes_the_hungarian_permutation_as_it_cools() -> None:
    prior, slots = far_apart()
    best = torch.nn.functional.one_hot(hungarian_order(prior, slots), 6).float()
    gaps = []
    for temperature in (1.0, 0.1, 0.02):
        weights = sinkhorn(-distances(prior, slots, None) / temperature, steps=1000).exp()
        for dim in (1, 2):
            torch.testing.assert_close(weights.sum(dim), torch.ones(40, 6), rtol=0, atol=3e-3)
        gaps.append((weights - best).abs().sum(dim=2).mean().item())
    assert gaps[0] > 1.2 > 0.6 > gaps[1] > 0.3 > 0.2 > gaps[2]


def test_the_relaxed_order_sends_gradient_to_the_prior_and_is_random() -> None:
    prior, slots = far_apart()
    prior.requires_grad_()
    uniform = torch.rand(2, 40, 6, 6)
    first, second = (relaxed_order(prior, slots, torch.tensor(0.5), u) for u in uniform)
    torch.bmm(first, slots).square().sum().backward()
    assert prior.grad is not None and prior.grad.abs().sum() > 0
    assert (first - second).abs().max() > 0.1


def test_sinkhorn_is_hard_in_evaluation_and_relaxed_in_training() -> None:
    model = apart(small_sri(order="sinkhorn"))
    noise = noise_for(model)
    relaxed = model.train().infer(images(), noise)
    assert relaxed.order is None
    model.matching_temperature.fill_(1e-3)
    cold = model.infer(images(), noise).posterior.mean
    assert not torch.allclose(cold, relaxed.posterior.mean, atol=1e-3)
    seen = model.eval().infer(images(), noise)
    assert (seen.order.sort(dim=1).values == torch.arange(SLOTS)).all()
    means = reorder(seen.segregated.posterior.mean, seen.order)
    torch.testing.assert_close(seen.posterior.mean, means)


def test_end_to_end_lets_the_gradient_reach_segregation_from_its_step_on() -> None:
    model = small_sri(end_to_end=True)
    noise = noise_for(model)
    closed, open_ = (torch.tensor(share) for share in (0.0, 1.0))
    terms = []
    for share in (closed, open_):
        model.zero_grad()
        model.end_to_end_share.copy_(share)
        losses = model(images(), noise)
        terms.append(losses.terms)
        imagination = losses.objectives[1]
        (imagination.error + imagination.kl).sum().backward()
        reached = [bool(p.grad is not None and p.grad.any()) for p in model.segregate.parameters()]
        assert any(reached) == bool(share)
    for name, value in terms[0].items():
        assert torch.equal(value, terms[1][name]), name
