"""What a step is made of, in counts that no machine's speed can hide."""

from __future__ import annotations

import pytest
import torch

from sri_cli.config.load import load_recipe
from sri_cli.models.build import build_model
from sri_cli.rng import draw_noise
from sri_cli.training.step_timing import StepBench


@pytest.fixture(scope="module")
def counts() -> dict[str, float]:
    bench = StepBench(load_recipe("sri-mog"), device="cpu", precision="fp32")
    bench.run(0)
    return bench.counts()


def test_a_step_of_sri_mog_stays_within_its_budget(counts: dict[str, float]) -> None:
    """The official step: 932.6 GFLOP, 31,460 calls, 354 reads by the host."""
    assert counts["gflop_per_step"] <= 650
    assert counts["aten_calls"] <= 11_000
    assert counts["host_reads"] == 0


@pytest.mark.parametrize("system", ["sri", "genesis-v2"])
def test_compiles_as_one_graph_and_gives_the_same_losses(system: str) -> None:
    model = build_model(system, image_size=32, slots=3, slot_size=16, scene_size=24)
    images = torch.rand(2, 3, 32, 32)
    noise = draw_noise(model.training_noise(), 2, 0, 0)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ours, eager = compiled(images, noise), model(images, noise)
    for name, value in eager.terms.items():
        torch.testing.assert_close(ours.terms[name], value, rtol=1e-4, atol=1e-4)
