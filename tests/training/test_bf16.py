"""bf16 learns what float32 learns: what can move lies within the spread of float32 seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train

SEEDS = (0, 1, 2)
FLOOR = 0.5623  # nats an element: a perfect mixture of std 0.7, which no training gets below
FIRST_STEP, LAST_STEP = 400, 600


def figures(data: Path, run: Path, precision: str, seed: int) -> dict[str, float]:
    """Means over steps 400 to 600: the excess of each error over its floor, and each KL."""
    words = [f"train.precision={precision}", f"train.seed={seed}", f"train.steps={LAST_STEP}"]
    # From scratch on the mixture: with the blend first, the floor would be another.
    words += ["size=tiny", "train.batch=8", "train.gaussian_warmup_steps=0", "train.compile=off"]
    train(load_recipe("sri-mog", None, words), DataFile(data), run)
    records = [record for record in read_log(run) if record["step"] > FIRST_STEP]
    assert len(records) == 4 and all(record["skipped"] == 0 for record in records)

    def mean(name: str) -> float:
        return sum(record[name] for record in records) / len(records)

    errors = [name for name in records[0] if name.startswith("error_per_element/")]
    kls = [name for name in records[0] if name.startswith(("kl_", "seg_kl"))]
    return {name: mean(name) - FLOOR for name in errors} | {name: mean(name) for name in kls}


@pytest.mark.slow
def test_bf16_lies_within_the_spread_of_float32_seeds(tmp_path: Path) -> None:
    data = tmp_path / "demo-towers-32.h5"
    words = ["prepare", "shapestacks", "--preset", "demo", "--size", "32", "--scenes", "100"]
    words += ["--workers", "1", "--out", str(data)]
    subprocess.run([sys.executable, "-m", "sri_cli", *words], check=True)

    def of_seeds(precision: str) -> list[dict[str, float]]:
        return [figures(data, tmp_path / f"{precision}-{s}", precision, s) for s in SEEDS]

    found = {precision: of_seeds(precision) for precision in ("fp32", "bf16")}
    for name in found["fp32"][0]:
        full, half = ([run[name] for run in found[p]] for p in ("fp32", "bf16"))
        print(f"{name}: fp32 {full}, bf16 {half}")
        assert min(full) <= sum(half) / len(half) <= max(full), name
