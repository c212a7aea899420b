"""Ways of running a step: compiled and not compiled come to the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli.config.schema import TrainSection
from sri_cli.models.build import build_model
from sri_cli.rng import draw_noise
from sri_cli.training.execution import ExecutionMode, choose_mode
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import random_images

BATCH = 4
SIZES = {"image_size": 32, "slots": 3, "slot_size": 8}


def settings(**changes: Any) -> TrainSection:
    base = {"geco_target": 0.5655, "batch": BATCH, "steps": 10, "lr": 1e-3}
    return TrainSection.model_validate(base | changes)


def new_step(way: ExecutionMode, **changes: Any) -> TrainStep:
    torch.manual_seed(0)
    model = build_model("sri", **SIZES, scene_size=8)
    for name, parameter in model.named_parameters():
        if name.endswith("colouring.gate"):
            parameter.data.fill_(1.0)  # closed, rounding decides which of the slots is which
    return TrainStep(model, settings(**changes), mode=way)


def go(step: TrainStep, numbers: range) -> dict[str, float]:
    for number in numbers:
        noise = draw_noise(step.model.training_noise(), BATCH, 0, number)
        step(random_images(BATCH, 32), noise, number)
    return step.read_metrics()


@pytest.mark.slow
def test_compiled_is_eager_within_a_ten_thousandth() -> None:
    eager, compiled = (
        new_step(ExecutionMode()),
        new_step(ExecutionMode(compiled=True, must_compile=True)),
    )
    one, other = go(eager, range(1)), go(compiled, range(1))
    assert other == pytest.approx(one, rel=1e-4)
    scale = max(float(p.grad.norm()) for p in eager.params)
    for (name, p), q in zip(eager.model.named_parameters(), compiled.params, strict=True):
        apart = float((p.grad - q.grad).norm())
        assert apart <= 1e-4 * (float(p.grad.norm()) + scale), name


@pytest.mark.slow
def test_compiled_follows_a_schedule_into_its_next_phase() -> None:
    eager, compiled = (
        new_step(way, gaussian_warmup_steps=1)
        for way in (ExecutionMode(), ExecutionMode(compiled=True))
    )
    assert go(compiled, range(2)) == pytest.approx(go(eager, range(2)), rel=1e-3)
    assert compiled.compiled is not None and not compiled.notes


NO_COMPILER = """
import sys
sys.path.insert(0, sys.argv[1])
from sri_cli.errors import SriFailure
from tests.training.test_execution import *
for must in (False, True):
    step = new_step(ExecutionMode(compiled=True, must_compile=must))
    try:
        metrics = go(step, range(1))
        print(metrics["skipped"], step.notes[0])
    except SriFailure as error:
        print(error.message, "|", error.hint)
"""


def test_without_a_compiler_auto_goes_on_and_on_says_what_is_wrong(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "CXX": "no-such-compiler"}
    environment["PATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", NO_COMPILER, str(root)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    may, must = done.stdout.splitlines()
    assert may.startswith("0 Note: not compiled: ") and "compiler" in may
    assert must.startswith("train.compile=on: ") and must.endswith("| train.compile=off")


def test_auto_on_a_cpu_is_eager_and_on_compiles() -> None:
    cpu = torch.device("cpu")
    auto = choose_mode(settings(precision="fp32"), cpu)
    assert auto == ExecutionMode("fp32") and str(auto) == "fp32"
    wanted = choose_mode(settings(precision="fp32", compile="on"), cpu)
    assert wanted.compiled and wanted.must_compile and not wanted.graphed
    assert str(wanted) == "fp32, compiled"
    on_gpu = choose_mode(settings(precision="fp32"), torch.device("cuda"))
    assert on_gpu.compiled and on_gpu.graphed and not on_gpu.must_compile
    off = choose_mode(settings(precision="fp32", compile="off"), torch.device("cuda"))
    assert not off.compiled and not off.graphed
