"""The training step: noise, schedules, steps that are not finite, no host reads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load

from sri_cli.checkpoint import weights_bytes
from sri_cli.config.schema import TrainSection
from sri_cli.models.build import build_model
from sri_cli.rng import NoiseSpec, draw_noise, retry_seed
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.geco import EmorlGeco
from sri_cli.training.schedule import learning_rate, phase_at
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import CallCounter, random_images

BATCH = 4
SIZES = {"image_size": 32, "slots": 3, "slot_size": 8}
EMORL = {"image_size": 16, "decoder": "big", "refinements": 2, "std": 0.1, "normalised": False}
MODELS: dict[str, dict[str, Any]] = {
    "sri": {"system": "sri", "scene_size": 8},
    "genesis-v2": {"system": "genesis-v2"},
    "genesis": {"system": "genesis"},
    "emorl": {"system": "emorl", **EMORL},
    "slot-vae": {"system": "slot-vae", "scene_size": 8},
    "sri on emorl": {"system": "sri", "segregation": "emorl", "scene_size": 8, **EMORL},
}


def settings(**changes: Any) -> TrainSection:
    base = {"geco_target": 0.5655, "batch": BATCH, "steps": 10, "lr": 1e-3}
    return TrainSection.model_validate(base | changes)


def new_model(name: str) -> Any:
    torch.manual_seed(0)
    model = build_model(**SIZES | MODELS[name])
    if "emorl" in name:  # with its small initial weights some gradients are lost in rounding
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.xavier_normal_(parameter)
    return model


def new_step(name: str = "sri", precision: str = "fp32", **changes: Any) -> TrainStep:
    return TrainStep(new_model(name), settings(**changes), mode=ExecutionMode(precision))


def images_for(step: TrainStep) -> torch.Tensor:
    return random_images(BATCH, step.model.image_size)


def noise_for(step: TrainStep, number: int) -> dict[str, torch.Tensor]:
    return draw_noise(step.model.training_noise(), BATCH, 0, number)


def go(step: TrainStep, numbers: range) -> None:
    for number in numbers:
        step(images_for(step), noise_for(step, number), number)


def everything(step: TrainStep) -> dict[str, torch.Tensor]:
    """All that a step may change."""
    entries = step.optimiser.state_dict()["state"]
    moments = {f"{i}/{key}": t for i, entry in entries.items() for key, t in entry.items()}
    state = {**step.model.state_dict(), **moments, **step.gecos.state_dict(prefix="gecos.")}
    return {name: tensor.clone() for name, tensor in state.items()}


def test_noise_depends_on_seed_and_step_alone() -> None:
    specs = {"a": NoiseSpec((100, 10)), "b": NoiseSpec((5,), "uniform")}
    torch.manual_seed(1)
    first = draw_noise(specs, 8, seed=3, step=7)
    torch.manual_seed(2)
    again = draw_noise(dict(reversed(specs.items())) | {"c": NoiseSpec((1,))}, 8, seed=3, step=7)
    assert all(torch.equal(first[name], again[name]) for name in specs)
    assert first["a"].shape == (8, 100, 10)
    assert abs(first["a"].mean()) < 0.05 and abs(first["a"].std() - 1) < 0.05
    assert first["b"].min() >= 0 and first["b"].max() < 1
    for other in (draw_noise(specs, 8, 3, 8), draw_noise(specs, 8, 4, 7)):
        assert not torch.equal(first["a"], other["a"])
    assert retry_seed(5, 0) == 5
    assert len({retry_seed(5, attempt) for attempt in range(4)}) == 4


@pytest.mark.parametrize("name", ["sri", "genesis-v2", "emorl", "slot-vae"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_moves_all_weights_and_reads_nothing_back(name: str, precision: str) -> None:
    step = new_step(name, precision)
    before = [p.clone() for p in step.params]
    counter = CallCounter()
    with counter:
        go(step, range(1))
    assert counter.calls > 1000 and counter.host_reads == 0
    go(step, range(1, 3))
    with counter:
        metrics = step.read_metrics()
    assert counter.host_reads > 0  # the counter does see reads
    named = zip(step.model.named_parameters(), before, strict=True)
    assert [name for (name, p), old in named if torch.equal(p, old)] == []
    assert metrics["skipped"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    for objective in step.model.objective_names:
        kinds = ("error", "kl", "beta", "err_ema")
        assert {f"{kind}/{objective}" for kind in kinds} <= metrics.keys()


@pytest.mark.parametrize(
    ("name", "draw"), [("sri", "posterior"), ("emorl", "refinement"), ("genesis", "mask")]
)
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(name: str, draw: str) -> None:
    """Running statistics (of genesis) and multipliers included."""
    step = new_step(name, geco_lr=1e-4)
    go(step, range(2))
    before, loss = everything(step), step.read_metrics()["loss"]
    bad = noise_for(step, 2)
    bad[draw][0] = math.nan
    step(images_for(step), bad, 2)
    after = everything(step)
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    go(step, range(2, 3))
    metrics = step.read_metrics()
    assert metrics["skipped"] == 1
    assert metrics["loss"] < 2 * abs(loss)  # the mean of the finite step alone
    assert not torch.equal(everything(step)["0/exp_avg"], before["0/exp_avg"])


def test_gradient_clipping_bounds_the_update() -> None:
    step = new_step(clip_grad=1e-3)
    go(step, range(1))
    norm = torch.stack([p.grad.norm() for p in step.params]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_learning_rate_warms_up_and_decays() -> None:
    assert learning_rate(settings(), 9) == 1e-3
    warm = settings(lr_warmup=4)
    assert [learning_rate(warm, n) for n in (0, 3, 9)] == pytest.approx([2.5e-4, 1e-3, 1e-3])
    decay = settings(lr_decay_steps=100)
    rates = [learning_rate(decay, n) for n in (0, 50, 100, 900)]
    assert rates == pytest.approx([1e-3, 1e-3 * (1 + 0.01) / 2, 1e-5, 1e-5])
    published = settings(lr=4e-4, lr_warmup=10_000, lr_half_life=100_000)
    rates = [learning_rate(published, step) for step in (0, 4_999, 10_000, 110_000, 460_000)]
    assert rates == pytest.approx([4e-8, 2e-4, 4e-4, 2e-4, 4e-4 * 0.5**4.5])


def test_the_warm_up_trains_with_the_gaussian_likelihood_and_then_with_the_mixture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, kinds = new_step(gaussian_warmup_steps=1), []
    losses = step.model.losses

    def spied(images: Any, noise: Any, gaussian_likelihood: bool) -> Any:
        kinds.append(gaussian_likelihood)
        return losses(images, noise, gaussian_likelihood)

    monkeypatch.setattr(step.model, "losses", spied)
    go(step, range(2))
    assert kinds == [True, False]


def test_refinements_fall_at_the_step_of_the_recipe_and_are_saved_with_the_model() -> None:
    late = settings(late_refinements=1, late_refinements_from=100)
    numbers = [phase_at(late, step, 3).refinements for step in (0, 99, 100, 5000)]
    assert numbers == [3, 3, 1, 1]
    assert phase_at(settings(), 5000, 3).refinements == 3
    step = new_step("emorl", late_refinements=1, late_refinements_from=1)
    for number, refinements in enumerate((2, 1)):
        go(step, range(number, number + 1))
        assert step.model.refinement.steps == refinements
    loaded = new_model("emorl")
    loaded.load_state_dict(load(weights_bytes(step.model.state_dict())))
    assert (loaded.refinement.steps, loaded.refinement.batch) == (1, BATCH)


@pytest.mark.parametrize(("name", "stage"), [("emorl", "emorl"), ("sri on emorl", "segregation")])
def test_refinement_uses_the_weight_of_its_geco(name: str, stage: str) -> None:
    """Both stages of SRI on EMORL have EMORL's."""
    step = new_step(name, geco_warmup=2, geco_lr=1e-4)
    assert {type(geco) for geco in step.gecos.values()} == {EmorlGeco}
    weight, geco = step.model.refinement.error_weight, step.gecos[stage]
    go(step, range(1))
    assert weight.item() == 1.0  # in the warm-up
    go(step, range(1, 4))
    assert geco.beta != 0.55
    assert torch.equal(weight, geco.error_weight())
    assert step.read_metrics()["skipped"] == 0
    fresh = new_step(name).model.refinement.error_weight
    assert fresh.item() == pytest.approx(math.log1p(math.exp(0.55)))
