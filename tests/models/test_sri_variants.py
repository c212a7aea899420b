"""What the switches of the paper's Tables 3 and 4 change, and what not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sri_cli.generation.sample import sample_noise
from sri_cli.models.base import Noise, Segregated
from sri_cli.models.distributions import Gaussian
from sri_cli.models.matching import reorder
from sri_cli.rng import NoiseSpec
from sri_cli.training.step_timing import CallCounter
from tests.small_models import (
    SCENE_SIZE,
    SIDE,
    SLOTS,
    VARIANTS,
    genesis_v2_stage,
    images,
    noise_for,
    small_genesis_v2,
    small_sri,
)

SRI_VARIANTS = [name for name in VARIANTS if name.startswith("sri")]
ON_GENESIS_V2 = [name for name in SRI_VARIANTS if name != "sri-sa"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def total_loss(losses: Any) -> Tensor:
    return sum((o.error + o.kl).mean() for o in losses.objectives)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_is_used(name: str) -> None:
    model = VARIANTS[name]()
    total_loss(model(images(), noise_for(model))).backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), parameter
        if not parameter.endswith("colour_head.bias"):  # colours enter as differences
            assert value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("slots", [1, 3, 9, 14])
@pytest.mark.parametrize("name", VARIANTS)
def test_any_number_of_slots_samples_from_a_prefix_of_the_noise(name: str, slots: int) -> None:
    model = VARIANTS[name]().eval()
    few, many = (model.sample(sample_noise(model, 5, 0, 2, k), 0.7) for k in (slots, 14))
    assert few.rgb.shape == (2, slots, 3, SIDE, SIDE)
    torch.testing.assert_close(few.masks.sum(dim=1), torch.ones(2, 1, SIDE, SIDE))
    # A slot's colours are its own: the first ones are those of the larger scene.
    torch.testing.assert_close(few.rgb, many.rgb[:, :slots], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_temperature_scales_every_deviation(name: str) -> None:
    model = VARIANTS[name]()
    noise = sample_noise(model, 0, 0, 2, SLOTS)
    cold, warm = model.sample(noise, 1e-6).image, model.sample(noise, 1.0).image
    torch.testing.assert_close(cold[0], cold[1], rtol=1e-4, atol=1e-4)
    assert (warm[0] - warm[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_masks_sum_to_one_everywhere(name: str) -> None:
    model = VARIANTS[name]().eval()
    seen = model.reconstruct(images(), noise_for(model))
    ones = torch.ones(2, 1, SIDE, SIDE)
    torch.testing.assert_close(seen.scene.masks.sum(dim=1), ones)
    torch.testing.assert_close(seen.attention.sum(dim=1), ones)
    if name in SRI_VARIANTS:
        torch.testing.assert_close(seen.imagined.masks.sum(dim=1), ones)


@pytest.mark.parametrize("name", VARIANTS)
def test_compiles_as_one_graph_without_reading_back(name: str) -> None:
    model = VARIANTS[name]()
    noise = noise_for(model)
    with CallCounter() as counter:
        eager = model(images(), noise)
    assert counter.host_reads == 0
    torch.compiler.reset()  # or graphs of other models count against a limit
    compiled = torch.compile(model, fullgraph=True, backend="eager")(images(), noise)
    for term, value in eager.terms.items():
        torch.testing.assert_close(compiled.terms[term], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SRI_VARIANTS)
def test_closed_form_kls_are_not_negative(name: str) -> None:
    model = VARIANTS[name]()
    terms = model(images(3), noise_for(model, 3)).terms
    analytic = {"kl_scene", "kl_slot", "kl_cross_order"} & set(terms)
    assert all((terms[kl] >= 0).all() for kl in analytic)


@pytest.mark.parametrize(
    ("name", "terms", "bound"),
    [
        ("sri", {"kl_scene", "kl_slot", "kl_cross_order"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-a", {"kl_slot", "kl_cross_order"}, ("nll", "kl_slot")),
        ("sri-b", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
        ("sri-c", {"kl_scene", "kl_slot"}, ("nll", "kl_scene", "kl_slot")),
    ],
)
def test_an_ablation_lacks_what_it_takes_away(
    name: str, terms: set[str], bound: tuple[str, ...]
) -> None:
    model = VARIANTS[name]()
    losses = model(images(), noise_for(model))
    assert set(losses.terms) == terms | {"nll", "seg_nll", "seg_kl"}
    assert losses.bound == bound
    assert tuple(o.name for o in losses.objectives) == model.objective_names
    torch.testing.assert_close(losses.objectives[1].kl, sum(losses.terms[term] for term in terms))


def test_without_a_scene_variable_there_is_no_scene_noise_and_the_first_slot_is_standard() -> None:
    model = small_sri(scene=False)
    assert "scene" not in model.training_noise() | model.sampling_noise(3)
    assert model.relate is None
    noise = torch.randn(5, 3, 16)
    prior, draws = model.prior.rollout(None, noise, 0.5)
    torch.testing.assert_close(draws[:, 0], 0.5 * noise[:, 0])
    assert (prior.mean[:, 0] == 0).all() and (prior.std[:, 0] == 1).all()
    forced = model.prior.teacher_forced(None, draws)
    torch.testing.assert_close(forced.mean, prior.mean)
    torch.testing.assert_close(forced.std, prior.std)


def test_without_alignment_the_detached_segregation_posterior_stands_in() -> None:
    model = small_sri(alignment=False)
    found = model.infer(images(), noise_for(model))
    assert found.order is None and not found.posterior.mean.requires_grad
    torch.testing.assert_close(found.posterior.mean, found.segregated.posterior.mean)
    torch.testing.assert_close(found.posterior.std, found.segregated.posterior.std)


@pytest.mark.parametrize("name", ON_GENESIS_V2)
def test_upper_stages_send_no_gradient_into_a_stage_with_its_own_loss(name: str) -> None:
    model = VARIANTS[name]()
    _, imagination = model(images(), noise_for(model)).objectives
    (imagination.error + imagination.kl).sum().backward()
    assert all(p.grad is None for p in model.segregate.parameters())


class Shuffled(nn.Module):
    """A segregation model whose slots come out in another order."""

    end_to_end = False
    ordered = False

    def __init__(self, stage: nn.Module, permutation: list[int]) -> None:
        super().__init__()
        self.stage, self.permutation = stage, torch.tensor(permutation)

    def noise(self) -> dict[str, NoiseSpec]:
        return self.stage.noise()

    def forward(self, images: Tensor, noise: Noise) -> Segregated:
        found = self.stage(images, noise)
        order = self.permutation.expand(len(images), -1)
        return replace(
            found,
            posterior=Gaussian(*(reorder(part, order) for part in found.posterior)),
            slots=reorder(found.slots, order),
            log_masks=reorder(found.log_masks, order),
        )


def spread_out(model: Any) -> Any:
    """Rollout means apart from each other, so that no two slots are as good for a place."""
    model.prior.mean.weight.data.mul_(300)
    return model


@pytest.mark.parametrize("order", ["greedy", "hungarian"])
def test_sri_does_not_depend_on_the_order_of_segregation(order: str) -> None:
    model = spread_out(small_sri(order=order))
    noise = noise_for(model)
    plain, seen = model(images(), noise), model.reconstruct(images(), noise)
    model.segregate = Shuffled(model.segregate, [2, 0, 3, 1])
    shuffled, reseen = model(images(), noise), model.reconstruct(images(), noise)
    for term, value in plain.terms.items():
        torch.testing.assert_close(shuffled.terms[term], value, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(reseen.attention, seen.attention)
    assert not torch.equal(seen.order, reseen.order)


def test_without_alignment_the_order_of_segregation_counts() -> None:
    model = spread_out(small_sri(alignment=False))
    noise = noise_for(model)
    plain = model(images(), noise).terms
    model.segregate = Shuffled(model.segregate, [2, 0, 3, 1])
    shuffled = model(images(), noise).terms
    torch.testing.assert_close(shuffled["kl_scene"], plain["kl_scene"], rtol=1e-4, atol=1e-4)
    assert (shuffled["kl_slot"] - plain["kl_slot"]).abs().max() > 1e-3


def test_genesis_v2_with_a_scene_variable_detaches_nothing() -> None:
    model = small_genesis_v2(SCENE_SIZE)
    losses = model(images(), noise_for(model))
    assert set(losses.terms) == {"nll", "kl_scene", "kl_slot"} == set(losses.bound)
    assert (losses.terms["kl_scene"] >= 0).all()
    (objective,) = losses.objectives
    torch.testing.assert_close(objective.kl, losses.terms["kl_scene"] + losses.terms["kl_slot"])
    losses.terms["kl_scene"].sum().backward()
    assert model.segregate.slot_head[1].weight.grad.abs().sum() > 0


def test_its_slot_kl_is_one_sample_at_the_places_of_segregation() -> None:
    model = small_genesis_v2(SCENE_SIZE)
    noise = noise_for(model)
    found = model.segregate(images(), noise)
    scene = model.relate(found.slots).sample(noise["scene"])
    prior = model.prior.teacher_forced(scene, found.slots)
    kl = found.posterior.log_prob(found.slots) - prior.log_prob(found.slots)
    torch.testing.assert_close(model(images(), noise).terms["kl_slot"], kl.sum(dim=1))


def test_what_segregation_says_of_its_loss_is_what_sri_minimises() -> None:
    """Refinements included, for stages that have earlier passes."""

    class Refining(Shuffled):
        def forward(self, images: Tensor, noise: Noise) -> Segregated:
            found = super().forward(images, noise)
            return replace(found, refinements=((found.nll + 1, found.kl + 2),))

    model = small_sri(Refining(genesis_v2_stage(), list(range(SLOTS))))
    losses = model(images(), noise_for(model))
    own = losses.objectives[0]
    assert own.name == "segregation"
    torch.testing.assert_close(own.error, losses.terms["seg_nll"])
    torch.testing.assert_close(own.earlier[0][1], losses.terms["seg_kl"] + 2)
