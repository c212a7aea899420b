"""Measurements: one JSON object per value, a line each of a run's metrics.jsonl.

A value never stands alone: with it go its interval, the counts, split and data file, the seed, the
checkpoint with its weights' hash, and how it was measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import cannot_write
from sri_cli.checkpoint import checkpoint_path
from sri_cli.config.load import with_old_keys
from sri_cli.data.dataset import DataFile
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.run import MEASUREMENTS

SCHEMA = 1
# Settings of training that change nothing of what is learned in a given number of steps.
NOT_LEARNED = (
    "seed",
    "steps",
    "precision",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
)
NORMAL_95 = 1.959964

Measurement = dict[str, Any]


class Estimate(NamedTuple):
    """A value and its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    how: str | None = None  # the interval


@dataclass(frozen=True)
class Context:
    """What the values of an evaluation share: whose they are, the data beside them, the seed."""

    subject: dict[str, Any]
    data: dict[str, Any] | None
    seed: int

    def measurement(
        self,
        metric: str,
        name: str,
        estimate: Estimate,
        *,
        counts: dict[str, int],
        protocol: str,
        slots: int | None = None,
        temperature: float | None = None,
        warning: str | None = None,
    ) -> Measurement:
        """`metric` is the key, `name` what the value may be called in print."""
        return {
            "schema": SCHEMA,
            "metric": metric,
            "name": name,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "interval": estimate.how,
            "counts": counts,
            "subject": self.subject,
            "data": self.data,
            "seed": self.seed,
            "slots": slots,
            "temperature": temperature,
            "protocol": protocol,
            "warning": warning,
            "sri": __version__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def run_subject(loaded: TrainedRun) -> dict[str, Any]:
    """A checkpoint of a run."""
    recipe = loaded.recipe
    return {
        "kind": "run",
        "run": str(loaded.run_dir),
        "recipe": recipe.name,
        "size": None if recipe.size == "paper" else recipe.size,
        "settings": _settings(loaded),
        "training_seed": recipe.train.seed,
        "step": loaded.step,
        "checkpoint": checkpoint_path(loaded.run_dir, loaded.step).name,
        "model": model_digest(loaded),
    }


def _settings(loaded: TrainedRun) -> str:
    """Tells runs of one recipe with other settings apart; those of one study differ in the seed."""
    recipe = with_old_keys(loaded.recipe)
    learned = {k: v for k, v in recipe["train"].items() if k not in NOT_LEARNED}
    words = json.dumps([recipe["model"], learned], sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def model_digest(loaded: TrainedRun) -> str:
    """SHA-256 of the model section of the recipe and every weight: what a scene depends on."""
    section = json.dumps(with_old_keys(loaded.recipe)["model"], sort_keys=True)
    digest = hashlib.sha256(section.encode())
    for name, value in loaded.model.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(-1).view(dtype=torch.uint8).numpy())
    return digest.hexdigest()


def data_facts(data: DataFile, split: str) -> dict[str, Any]:
    """What real images there are to compare with."""
    return {
        "name": data.name,
        "image_size": data.size,
        "source": data.source,
        "sha256": str(data.attrs["sha256"]),
        "split": split,
    }


def mean_estimate(values: NDArray[np.float64], over: str = "images") -> Estimate:
    """The mean of the values that are numbers, with its normal interval when there are two."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Estimate(None)
    mean = float(known.mean())
    if len(known) < 2:
        return Estimate(mean)
    reach = NORMAL_95 * float(known.std(ddof=1)) / len(known) ** 0.5
    return Estimate(mean, mean - reach, mean + reach, f"95 % normal over {over}")


def append_records(run_dir: Path, records: Sequence[Measurement]) -> Path:
    """Add lines to the run's metrics.jsonl in one write; SriFailure when the disk refuses."""
    path = run_dir / MEASUREMENTS
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    try:
        with open(path, "a+b") as file:
            if file.tell() and not _ends_line(path):
                lines = b"\n" + lines  # a write that was cut off spoils its own line alone
            file.write(lines)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def read_records(run_dir: Path) -> list[Measurement]:
    """What a run's metrics.jsonl holds, oldest first.

    Torn lines, and those that earlier versions wrote in another form, are left out.
    """
    try:
        lines = (run_dir / MEASUREMENTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("schema") == SCHEMA:
            found.append(record)
    return found


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
