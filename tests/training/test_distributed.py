"""Several processes train as one: same gradients, same numbers, at any number of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli.models.build import build_model
from sri_cli.rng import BLOCK, NoiseSpec, draw_noise
from sri_cli.training.distributed import Ranks, stdout_to_stderr
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import random_images
from tests.ranks import on_ranks
from tests.small_models import open_gate, tiny_recipe

BATCH = 7
SIZES = {"image_size": 32, "slots": 3, "slot_size": 8}
# Which parts may meet others of the batch: batch statistics, gradients inside the forward pass.
MODELS: dict[str, dict[str, Any]] = {
    "sri": {"system": "sri", "scene_size": 8},
    "genesis": {"system": "genesis", "component_size": 4, "component_channels": 8},
    "emorl": {"system": "emorl", "image_size": 16, "refinements": 1, "std": 0.1},
}


def steps_of(ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Every model after two steps: the first one's gradients, metrics and statistics, weights."""
    return {name: two_steps(ranks, name) for name in MODELS}


def two_steps(ranks: Ranks, name: str) -> dict[str, Any]:
    settings = tiny_recipe(batch=BATCH, clip_grad=1e6).train
    torch.manual_seed(0)
    model = open_gate(build_model(**SIZES | MODELS[name]))
    step = TrainStep(model, settings, ranks=ranks)
    rows = ranks.rows(BATCH)
    result: dict[str, Any] = {}
    for number in range(2):
        noise = draw_noise(model.training_noise(), BATCH, 0, number, rows=rows)
        step(random_images(BATCH, model.image_size)[rows], noise, number)
        if number == 0:
            named = model.named_parameters()
            result["gradients"] = {key: p.grad.clone() for key, p in named if p.grad is not None}
            result["metrics"] = step.read_metrics()
            result["buffers"] = {key: value.clone() for key, value in model.named_buffers()}
    result["weights"] = dict(model.state_dict())
    return result


def test_ranks_make_the_step_of_one(tmp_path: Path) -> None:
    """Of unequal parts of the batch; equal ones: test_launch.py."""
    alone, together = steps_of(Ranks()), on_ranks(2, tmp_path, steps_of)
    for name in MODELS:
        first = together[0][name]
        for result in (rank[name] for rank in together):
            assert_same_step(result, alone[name])
            assert result["metrics"] == first["metrics"]
            assert all(
                torch.equal(result["weights"][key], first["weights"][key])
                for key in first["weights"]
            )
    assert any("running_var" in key for key in together[0]["genesis"]["buffers"])


def assert_same_step(result: dict[str, Any], alone: dict[str, Any]) -> None:
    assert result["gradients"].keys() == alone["gradients"].keys()
    scale = max(float(value.norm()) for value in alone["gradients"].values())
    for key, value in alone["gradients"].items():
        # Some gradients are 0 but for rounding; what they are rounded from is as large as others.
        apart = float((result["gradients"][key] - value).norm())
        assert apart <= 1e-3 * float(value.norm()) + 1e-4 * scale, key
    for key, value in alone["metrics"].items():
        assert result["metrics"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    for key, value in alone["buffers"].items():
        torch.testing.assert_close(result["buffers"][key], value, rtol=1e-4, atol=1e-6)


def test_rows_cover_the_batch_once_even_where_it_does_not_divide() -> None:
    for world in (1, 2, 3, 4, 5):
        rows = [Ranks(rank, world).rows(5) for rank in range(world)]
        assert [i for part in rows for i in range(part.start, part.stop)] == list(range(5))
        assert sum(Ranks(rank, world).share_of(5) for rank in range(world)) == pytest.approx(1)
        sizes = [part.stop - part.start for part in rows]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("batch", [5, BLOCK, 3 * BLOCK + 7])
def test_an_images_noise_is_the_same_whoever_draws_it(batch: int) -> None:
    specs = {"a": NoiseSpec((3, 5)), "b": NoiseSpec((1, 7), "uniform")}
    whole = draw_noise(specs, batch, 4, 9)
    for world in (2, 3, 5):
        parts = [
            draw_noise(specs, batch, 4, 9, rows=Ranks(r, world).rows(batch)) for r in range(world)
        ]
        for name in specs:
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    assert len({float(value) for value in whole["a"][:, 0, 0]}) == batch  # no block repeats


def test_stdout_is_redirected_for_a_while(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.listdir("/proc/self/fd")
    with stdout_to_stderr():
        os.write(1, b"of Gloo")
    os.write(1, b"of sri")
    assert capfd.readouterr() == ("of sri", "of Gloo")
    assert os.listdir("/proc/self/fd") == before
