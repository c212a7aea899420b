"""The training step: noise by (seed, step), skipped steps, learning rate, no host reads."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch

from sri_cli.checkpoint import state_bytes
from sri_cli.config.schema import TrainSection
from sri_cli.models.build import build_model
from sri_cli.rng import NoiseSpec, draw_noise, retry_seed
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.schedule import learning_rate
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import CallCounter, random_images

BATCH = 4


def settings(**changes: object) -> TrainSection:
    base = {"geco_target": 0.5655, "batch": BATCH, "steps": 10, "lr": 1e-3}
    return TrainSection.model_validate(base | changes)


def small_step(precision: str = "fp32", system: str = "sri", **changes: object) -> TrainStep:
    torch.manual_seed(0)
    model = build_model(system, image_size=32, slots=3, slot_size=8, scene_size=8)
    return TrainStep(model, settings(**changes), mode=ExecutionMode(precision))


def noise_for(step: TrainStep, number: int) -> dict[str, torch.Tensor]:
    return draw_noise(step.model.training_noise(), BATCH, 0, number)


def snapshot(step: TrainStep) -> list[torch.Tensor]:
    state = step.optimiser.state_dict()["state"]
    moments = [tensor for entry in state.values() for tensor in entry.values()]
    return [t.clone() for t in [*step.params, *moments, *step.gecos.buffers()]]


def test_noise_depends_on_seed_and_step_alone() -> None:
    specs = {"a": NoiseSpec((3, 2)), "b": NoiseSpec((5,), "uniform")}
    torch.manual_seed(1)
    first = draw_noise(specs, 8, seed=3, step=7)
    torch.manual_seed(2)
    again = draw_noise(dict(reversed(specs.items())) | {"c": NoiseSpec((1,))}, 8, seed=3, step=7)
    assert all(torch.equal(first[name], again[name]) for name in specs)
    assert first["a"].shape == (8, 3, 2)
    assert first["b"].min() >= 0 and first["b"].max() < 1
    for other in (draw_noise(specs, 8, 3, 8), draw_noise(specs, 8, 4, 7)):
        assert not torch.equal(first["a"], other["a"])


def test_noise_is_standard_normal() -> None:
    draws = draw_noise({"a": NoiseSpec((100, 100))}, 10, 0, 0)["a"]
    assert abs(draws.mean().item()) < 0.02
    assert abs(draws.std().item() - 1) < 0.02


def test_a_retry_meets_other_noise() -> None:
    assert retry_seed(5, 0) == 5
    assert len({retry_seed(5, attempt) for attempt in range(4)}) == 4


@pytest.mark.parametrize("system", ["sri", "genesis-v2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_steps_move_the_weights_and_report(system: str, precision: str) -> None:
    step = small_step(precision, system)
    before = [p.clone() for p in step.params]
    for number in range(2):
        step(random_images(BATCH, 32), noise_for(step, number), number)
    metrics = step.read_metrics()
    assert metrics["skipped"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    for name in step.model.objective_names:
        assert {f"error/{name}", f"kl/{name}", f"beta/{name}"} <= metrics.keys()
    assert all(not torch.equal(p, old) for p, old in zip(step.params, before, strict=True))


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    step = small_step()
    step(random_images(BATCH, 32), noise_for(step, 0), 0)
    before, loss = snapshot(step), step.read_metrics()["loss"]
    bad = noise_for(step, 1)
    bad["posterior"][0, 0, 0] = math.nan
    step(random_images(BATCH, 32), bad, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(step), strict=True))
    step(random_images(BATCH, 32), noise_for(step, 0), 2)
    metrics = step.read_metrics()
    assert metrics["skipped"] == 1
    assert 0 < metrics["loss"] < loss  # the mean of the finite step alone


def test_gradient_clipping_bounds_the_update() -> None:
    step = small_step(clip_grad=1e-3)
    step(random_images(BATCH, 32), noise_for(step, 0), 0)
    norm = torch.stack([p.grad.norm() for p in step.params]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_state_restores_the_next_step_bitwise() -> None:
    first, second = small_step(), small_step()
    first(random_images(BATCH, 32), noise_for(first, 0), 0)
    second.model.load_state_dict(first.model.state_dict())
    kept = io.BytesIO(state_bytes(first.state()))
    second.load_state(torch.load(kept, weights_only=True))
    for step in (first, second):
        step(random_images(BATCH, 32), noise_for(step, 1), 1)
    assert all(torch.equal(a, b) for a, b in zip(snapshot(first), snapshot(second), strict=True))
    assert first.read_metrics() == second.read_metrics()  # also of the step before the restore


def test_learning_rate_warms_up_and_decays() -> None:
    assert learning_rate(settings(), 9) == 1e-3
    warm = settings(lr_warmup=4)
    assert [learning_rate(warm, n) for n in (0, 3, 9)] == pytest.approx([2.5e-4, 1e-3, 1e-3])
    decay = settings(lr_decay_steps=100)
    assert learning_rate(decay, 0) == pytest.approx(1e-3)
    assert learning_rate(decay, 50) == pytest.approx(1e-3 * (1 + 0.01) / 2)
    assert learning_rate(decay, 100) == learning_rate(decay, 900) == pytest.approx(1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_step_reads_nothing_back(precision: str) -> None:
    step = small_step(precision)
    counter = CallCounter()
    with counter:
        step(random_images(BATCH, 32), noise_for(step, 0), 0)
    assert counter.calls > 1000
    assert counter.host_reads == 0
    with counter:
        step.read_metrics()
    assert counter.host_reads > 0  # the counter does see reads


def test_the_warm_up_trains_with_the_gaussian_likelihood_and_then_with_the_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, images, kinds = small_step(gaussian_warmup_steps=1), random_images(BATCH, 32), []
    losses = step.model.losses

    def spied(images: Any, noise: Any, gaussian_likelihood: bool) -> Any:
        kinds.append(gaussian_likelihood)
        return losses(images, noise, gaussian_likelihood)

    monkeypatch.setattr(step.model, "losses", spied)
    for number in range(2):
        step(images, noise_for(step, number), number)
    assert kinds == [True, False]
