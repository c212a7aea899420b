"""The training step on a GPU: no waiting, memory, equality of execution modes."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.config.load import load_recipe
from sri_cli.data.loader import Batches, Prefetcher
from sri_cli.device import to_device
from sri_cli.models.build import build_model
from sri_cli.rng import draw_noise
from sri_cli.training.distributed import Ranks, joined
from sri_cli.training.execution import WARM_UP_STEPS, ExecutionMode
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import random_images
from tests.ranks import on_ranks
from tests.small_models import open_gate, tiny_recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

BATCH = 8
GPU = "cuda"
MODES = {
    "eager": ExecutionMode(),
    "graph": ExecutionMode(graphed=True),
    "compiled": ExecutionMode(compiled=True, must_compile=True),
    "compiled graph": ExecutionMode(compiled=True, graphed=True, must_compile=True),
}
SYSTEMS: dict[str, dict[str, Any]] = {
    "sri": {"scene_size": 16},
    "genesis-v2": {},
    "genesis": {},
    "emorl": {"decoder": "big", "refinements": 1, "std": 0.1},
}


def on_gpu(noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: to_device(value, GPU) for name, value in noise.items()}


@pytest.fixture(autouse=True)
def alone_and_exact() -> Iterator[None]:
    """No memory of the tests before, and float32 that is float32."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def new_step(system: str, mode: ExecutionMode, **changes: Any) -> TrainStep:
    torch.manual_seed(0)
    model = build_model(system, image_size=32, slots=4, slot_size=16, **SYSTEMS[system])
    return TrainStep(open_gate(model), tiny_recipe(batch=BATCH, **changes).train, GPU, mode)


def go(step: TrainStep, numbers: range) -> None:
    images = random_images(BATCH, 32).to(GPU)
    for number in numbers:
        step(images, on_gpu(draw_noise(step.model.training_noise(), BATCH, 0, number)), number)


@pytest.mark.parametrize("mode", [name for name in MODES if name != "eager"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_mode_gives_the_same(system: str, mode: str) -> None:
    """Over the recording, and into a second phase where there is one."""
    changes = {"gaussian_warmup_steps": WARM_UP_STEPS + 2} if system == "sri" else {}
    eager, other = (
        new_step(system, MODES["eager"], **changes),
        new_step(system, MODES[mode], **changes),
    )
    for step in (eager, other):
        go(step, range(2 * WARM_UP_STEPS + 4))
    one, two = eager.read_metrics(), other.read_metrics()
    assert two["skipped"] == 0
    assert {name: two[name] for name in one} == pytest.approx(one, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_fifty_steps_never_wait_for_the_gpu(mode: str) -> None:
    recipe = load_recipe("sri-mog", None, ["size=tiny"])
    torch.manual_seed(0)
    model = build_model(**recipe.model.model_dump())
    step = TrainStep(model, recipe.train, GPU, MODES[mode])
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    batches = Batches(images, recipe.train.batch, 0, GPU)
    specs = model.training_noise()
    prefetcher = Prefetcher(batches.at, specs, recipe.train.batch, 0, torch.device(GPU))
    try:
        for number in range(WARM_UP_STEPS + 2):
            step(*prefetcher.at(number), number)
        torch.cuda.set_sync_debug_mode("error")
        for number in range(WARM_UP_STEPS + 2, WARM_UP_STEPS + 52):
            step(*prefetcher.at(number), number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        prefetcher.close()
    assert step.read_metrics()["skipped"] == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_gpu_records_a_step() -> None:
    before = torch.cuda.current_device()
    with joined("cuda:1") as (_, device):
        step = new_step("sri", MODES["graph"])
        go(step, range(WARM_UP_STEPS + 2))
        assert step.params[0].device == device and step.captured is not None
        assert step.captured.graphs and step.read_metrics()["skipped"] == 0
        step.close()
    assert torch.cuda.current_device() == before


def test_a_recorded_step_that_is_not_finite_changes_nothing() -> None:
    step = new_step("sri", MODES["graph"])
    go(step, range(WARM_UP_STEPS + 2))
    before = [p.clone() for p in step.params]
    noise = on_gpu(draw_noise(step.model.training_noise(), BATCH, 0, 99))
    noise["posterior"][0, 0, 0] = torch.nan
    step(random_images(BATCH, 32).to(GPU), noise, WARM_UP_STEPS + 2)
    assert all(torch.equal(p, old) for p, old in zip(step.params, before, strict=True))
    assert step.read_metrics()["skipped"] == 1


def test_state_of_a_recorded_run_goes_on_in_another() -> None:
    first, second = new_step("sri", MODES["graph"]), new_step("sri", MODES["graph"])
    go(first, range(WARM_UP_STEPS + 3))
    second.model.load_state_dict(first.model.state_dict())
    second.load_state(copy.deepcopy(first.state()))  # it would share Adam's tensors
    first.read_metrics(), second.read_metrics()
    for step in (first, second):
        go(step, range(WARM_UP_STEPS + 3, 2 * WARM_UP_STEPS + 6))
    assert second.read_metrics() == pytest.approx(first.read_metrics(), rel=1e-3, abs=1e-5)


def test_the_published_model_trains_in_8_gb() -> None:
    recipe = load_recipe("sri-mog")
    torch.manual_seed(0)
    model = build_model(**recipe.model.model_dump())
    step = TrainStep(model, recipe.train, GPU, ExecutionMode("bf16", compiled=True, graphed=True))
    images = random_images(recipe.train.batch, 64).to(GPU)
    for number in range(WARM_UP_STEPS + 3):
        noise = on_gpu(draw_noise(model.training_noise(), recipe.train.batch, 0, number))
        step(images, noise, number)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_reserved() < 8e9
    assert step.read_metrics()["skipped"] == 0


def test_batches_are_the_same_wherever_the_images_lie() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    batches = [Batches(images, 8, 0, GPU, storage=p).at(3) for p in ("device", "memory", "file")]
    assert all(torch.equal(batch, batches[0]) and batch.is_cuda for batch in batches)


def gradients(ranks: Ranks) -> list[torch.Tensor]:
    torch.cuda.set_device(ranks.local)
    step = new_step("sri", ExecutionMode())
    step.ranks, step.share = ranks, ranks.share_of(BATCH)
    rows = ranks.rows(BATCH)
    noise = on_gpu(draw_noise(step.model.training_noise(), BATCH, 0, 0, rows))
    step(random_images(BATCH, 32)[rows].to(GPU), noise, 0)
    return [p.grad.cpu() for p in step.params]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_make_the_step_of_one(tmp_path: Path) -> None:
    one, (two, _) = gradients(Ranks()), on_ranks(2, tmp_path, gradients)
    scale = max(float(value.norm()) for value in one)
    for alone, together in zip(one, two, strict=True):
        assert float((alone - together).norm()) <= 1e-3 * (float(alone.norm()) + scale)
