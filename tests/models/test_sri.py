"""SRI: the switches of Table 3, what is detached, independence of the segregation order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.models.base import Noise, Segregated, Segregation
from sri_cli.models.distributions import Gaussian
from sri_cli.models.matching import reorder
from sri_cli.rng import NoiseSpec
from tests.small_models import (
    SCENE_SIZE,
    SLOTS,
    VARIANTS,
    genesis_v2_stage,
    images,
    noise_for,
    small_genesis_v2,
    small_sri,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize(
    ("name", "terms", "bound"),
    [
        ("sri", {"kl_scene", "kl_slot", "kl_cross_order"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-a", {"kl_slot", "kl_cross_order"}, ("nll", "kl_slot")),
        ("sri-b", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-c", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
    ],
)
def test_an_ablation_lacks_what_it_removes(
    name: str, terms: set[str], bound: tuple[str, ...]
) -> None:
    model = VARIANTS[name]()
    losses = model(images(), noise_for(model))
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
    found = model.infer(images(), noise_for(model))
    assert found.order is None and not found.posterior.mean.requires_grad
    torch.testing.assert_close(found.posterior.mean, found.segregated.posterior.mean)
    torch.testing.assert_close(found.posterior.std, found.segregated.posterior.std)


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
        found = self.stage(images, noise, gaussian_likelihood)
        order = self.permutation.expand(len(images), -1)
        return replace(
            found,
            posterior=Gaussian(*(reorder(part, order) for part in found.posterior)),
            slots=reorder(found.slots, order),
            log_masks=reorder(found.log_masks, order),
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


def test_without_alignment_the_order_of_segregation_counts() -> None:
    model = apart(small_sri(alignment=False))
    noise = noise_for(model)
    plain = model(images(), noise).terms
    model.segregate = Shuffled(model.segregate, [2, 0, 3, 1])
    shuffled = model(images(), noise).terms
    torch.testing.assert_close(shuffled["kl_scene"], plain["kl_scene"], rtol=1e-4, atol=1e-4)
    assert (shuffled["kl_slot"] - plain["kl_slot"]).abs().max() > 1e-3


def test_the_loss_of_segregation_is_an_objective_with_its_earlier_passes() -> None:
    class Refining(Shuffled):
        def forward(self, images: Tensor, noise: Noise, gaussian_likelihood: bool) -> Segregated:
            found = super().forward(images, noise, gaussian_likelihood)
            return replace(found, earlier=((found.nll + 1, found.kl + 2),))

    model = small_sri(Refining(genesis_v2_stage(), list(range(SLOTS))))
    losses = model(images(), noise_for(model))
    own = losses.objectives[0]
    assert own.name == "segregation"
    torch.testing.assert_close(own.error, losses.terms["seg_nll"])
    torch.testing.assert_close(own.earlier[0][1], losses.terms["seg_kl"] + 2)


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
    found = model.segregate(images(), noise)
    scene = model.relate(found.slots).sample(noise["scene"])
    prior = model.prior.teacher_forced(found.slots, scene)
    kl = found.posterior.log_prob(found.slots) - prior.log_prob(found.slots)
    torch.testing.assert_close(losses.terms["kl_slot"], kl.sum(dim=1))
