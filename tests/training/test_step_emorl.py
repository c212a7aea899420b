"""The training of models that refine: schedules, skipped steps, resume."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load

from sri_cli.checkpoint import state_bytes, weights_bytes
from sri_cli.config.schema import TrainSection
from sri_cli.errors import SriError
from sri_cli.models.decoders import IodineDecoder
from sri_cli.models.emorl import Emorl, EmorlSegregation
from sri_cli.models.genesis import Genesis
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.sri import SRI
from sri_cli.rng import draw_noise
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.geco import EmorlGeco
from sri_cli.training.schedule import learning_rate, phase_at
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import CallCounter, random_images

BATCH = 2
SIZES: dict[str, int] = {"image_size": 16, "slots": 3, "slot_size": 8}
PIXELS = ("mog", 0.1, False)


def settings(**changes: Any) -> TrainSection:
    base = {"geco_target": -2.206, "batch": BATCH, "steps": 20, "lr": 4e-4, "clip_grad": 5.0}
    return TrainSection.model_validate(base | changes)


def emorl_step(precision: str = "fp32", **changes: Any) -> TrainStep:
    torch.manual_seed(0)
    model = Emorl(EmorlSegregation(**SIZES, likelihood=ImageLikelihood(*PIXELS)))
    return TrainStep(model, settings(**changes), mode=ExecutionMode(precision))


def go(step: TrainStep, numbers: range) -> None:
    for number in numbers:
        noise = draw_noise(step.model.training_noise(), BATCH, 0, number)
        step(random_images(BATCH, step.model.image_size), noise, number)


def everything(step: TrainStep) -> dict[str, torch.Tensor]:
    """All that a step may change."""
    entries = step.optimiser.state_dict()["state"]
    moments = {f"{i}/{key}": t for i, entry in entries.items() for key, t in entry.items()}
    state = {**step.model.state_dict(), **moments, **step.gecos.state_dict(prefix="gecos.")}
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_rate_warms_up_and_halves_as_published() -> None:
    published = settings(lr_warmup=10_000, lr_half_life=100_000)
    rates = [learning_rate(published, step) for step in (0, 4_999, 10_000, 110_000, 460_000)]
    assert rates == pytest.approx([4e-8, 2e-4, 4e-4, 2e-4, 4e-4 * 0.5**4.5])


def test_keys_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="lr_half_life"):
        settings(lr_half_life=10, lr_decay_steps=10)
    for half in ({"late_refinements": 1}, {"late_refinements_from": 5}):
        with pytest.raises(ValueError, match="late_refinements_from"):
            settings(**half)


def test_refinements_fall_at_the_step_that_the_recipe_names() -> None:
    late = settings(late_refinements=1, late_refinements_from=100)
    numbers = [phase_at(late, step, 3).refinements for step in (0, 99, 100, 5000)]
    assert numbers == [3, 3, 1, 1]
    assert phase_at(settings(), 5000, 3).refinements == 3
    step = emorl_step(late_refinements=1, late_refinements_from=1)
    go(step, range(1))
    assert step.model.refinement.steps == 3
    go(step, range(1, 2))
    assert step.model.refinement.steps == 1


def test_more_refinements_than_the_model_has_are_refused() -> None:
    with pytest.raises(SriError, match="late_refinements=4"):
        emorl_step(late_refinements=4, late_refinements_from=1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_moves_all_weights_and_reads_nothing_back(precision: str) -> None:
    step = emorl_step(precision)
    for parameter in step.params:  # small as they start, some gradients are lost in rounding
        if parameter.dim() > 1:
            torch.nn.init.xavier_normal_(parameter)
    before = [p.clone() for p in step.params]
    counter = CallCounter()
    with counter:
        go(step, range(1))
    assert counter.host_reads == 0
    go(step, range(1, 3))
    still = [
        name
        for (name, p), old in zip(step.model.named_parameters(), before, strict=True)
        if torch.equal(p, old)
    ]
    assert still == []
    metrics = step.read_metrics()
    assert metrics["skipped"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"error/emorl", "kl/emorl", "beta/emorl", "err_ema/emorl", "kl_upper"} <= metrics.keys()


def test_the_loss_falls() -> None:
    step = emorl_step(geco_warmup=100, lr=1e-3)
    picture = torch.full((BATCH, 3, 16, 16), 30, dtype=torch.uint8)
    picture[:, 0, :, :8] = 220
    picture[:, 1, :8] = 128
    losses = []
    for number in range(20):
        step(picture, draw_noise(step.model.training_noise(), BATCH, 0, number), number)
        losses.append(step.read_metrics()["loss"])
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_refinement_follows_the_multiplier() -> None:
    step = emorl_step(geco_warmup=2, geco_lr=1e-4)
    weight = step.model.segregate.refine.error_weight
    assert weight.item() == 1.0
    go(step, range(1))
    assert weight.item() == 1.0  # of the second step of the warm-up
    go(step, range(1, 2))
    assert weight.item() == pytest.approx(math.log1p(math.exp(0.55)))
    go(step, range(2, 4))
    geco = step.gecos["emorl"]
    assert isinstance(geco, EmorlGeco)
    assert geco.beta > 0.55
    assert torch.equal(weight, torch.nn.functional.softplus(geco.beta))
    assert step.model.segregate.refine.batch == BATCH


def test_without_a_warm_up_the_first_step_is_weighed_already() -> None:
    weight = emorl_step().model.segregate.refine.error_weight
    assert weight.item() == pytest.approx(math.log1p(math.exp(0.55)))


def test_both_stages_of_sri_on_emorl_are_under_its_geco() -> None:
    pixels = ImageLikelihood("gaussian", 0.1, normalised=False)
    model = SRI(
        segregation=EmorlSegregation(**SIZES, likelihood=pixels, refinements=2),
        decoder=IodineDecoder(16, 8),
        likelihood=pixels,
        **SIZES,
        scene_size=8,
        order="greedy",
    )
    step = TrainStep(model, settings(geco_warmup=1, geco_lr=1e-4))
    assert {type(geco) for geco in step.gecos.values()} == {EmorlGeco}
    go(step, range(3))
    weight = model.segregate.refine.error_weight  # type: ignore[attr-defined]
    assert torch.equal(weight, step.gecos["segregation"].error_weight())  # type: ignore[operator]
    assert step.read_metrics()["skipped"] == 0


def test_a_step_that_is_not_finite_leaves_all_state() -> None:
    step = emorl_step(geco_lr=1e-4)
    go(step, range(2))
    before = everything(step)
    bad = draw_noise(step.model.training_noise(), BATCH, 0, 2)
    bad["refinement"][0, 0, 0, 0] = math.nan
    step(random_images(BATCH, 16), bad, 2)
    assert_equal(before, everything(step))
    go(step, range(2, 3))
    assert step.read_metrics()["skipped"] == 1
    assert not torch.equal(before["gecos.emorl.beta"], everything(step)["gecos.emorl.beta"])


def test_running_statistics_survive_a_step_that_is_not_finite() -> None:
    torch.manual_seed(0)
    model = Genesis(image_size=32, slots=2, slot_size=8, likelihood=ImageLikelihood(*PIXELS))
    step = TrainStep(model, settings())
    go(step, range(1))
    before = everything(step)
    assert any(name.endswith("running_mean") for name in before)
    bad = draw_noise(model.training_noise(), BATCH, 0, 1)
    bad["mask"][0, 0, 0] = math.nan
    step(random_images(BATCH, 32), bad, 1)
    assert_equal(before, everything(step))


def test_eleven_and_nine_steps_are_twenty() -> None:
    """Across the end of the warm-up (8) and the fall of the refinements (14)."""
    changes = {"geco_warmup": 8, "late_refinements": 1, "late_refinements_from": 14}
    whole, first, second = (emorl_step(**changes, lr_warmup=4, lr_half_life=5) for _ in range(3))
    go(whole, range(20))
    go(first, range(11))
    second.model.load_state_dict(load(weights_bytes(first.model.state_dict())))
    second.load_state(torch.load(io.BytesIO(state_bytes(first.state())), weights_only=True))
    go(second, range(11, 20))
    assert_equal(everything(whole), everything(second))
    assert whole.read_metrics() == second.read_metrics()


def test_a_loaded_model_evaluates_as_the_trained_one() -> None:
    step = emorl_step(geco_lr=1e-4, late_refinements=1, late_refinements_from=1)
    go(step, range(2))
    loaded = Emorl(EmorlSegregation(**SIZES, likelihood=ImageLikelihood(*PIXELS)))
    loaded.load_state_dict(load(weights_bytes(step.model.state_dict())))
    noise = draw_noise(loaded.training_noise(), BATCH, 1, 0)
    images = torch.rand(BATCH, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = loaded.eval()(images, noise), step.model.eval()(images, noise)
    assert loaded.refinement.steps == 1
    for name, value in ours.terms.items():
        torch.testing.assert_close(value, theirs.terms[name])
