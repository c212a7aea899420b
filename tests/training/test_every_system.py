"""A stop costs nothing: every recipe in two parts is, bit by bit, the recipe in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.training.log import read_log
from sri_cli.training.trainer import train

SMALL = [
    *("size=tiny", "model.slots=2", "model.slot_size=8", "train.batch=2"),
    *("train.precision=fp32", "train.log_every=1", "train.checkpoint_every=100"),
]
# What begins or ends after the stop, which comes at step 11.
LATER = ["train.lr_warmup=13", "train.geco_warmup=13"]
BREAK, STEPS = 11, 20
OF_THE_MACHINE = {"time", "images_per_second", "memory_mb"}


def small(name: str, steps: int) -> Recipe:
    words = [*SMALL, *LATER, f"train.steps={steps}"]
    if load_recipe(name).model.likelihood == "mog":
        words.append("train.gaussian_warmup_steps=13")
    if name == "emorl":
        words += ["train.late_refinements=1", "train.late_refinements_from=13"]
    return load_recipe(name, None, words)


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, write_small_data: Callable[..., Path]
) -> DataFile:
    return DataFile(write_small_data(tmp_path_factory.mktemp("data") / "towers-32.h5"))


def end_of(run: Path) -> dict[str, Any]:
    """All that the last checkpoint keeps, weights included, by dotted name."""
    found = checkpoints.newest_good(run)
    assert found is not None and found.step == STEPS
    return dict(leaves({"weights": found.weights(), **found.state()}))


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    entries = enumerate(tree) if isinstance(tree, list) else tree.items()
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from leaves(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value


def records(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in OF_THE_MACHINE}
        for record in read_log(run)
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_eleven_and_nine_steps_are_twenty(tmp_path: Path, data: DataFile, name: str) -> None:
    train(small(name, STEPS), data, tmp_path / "whole")
    train(small(name, BREAK), data, tmp_path / "parts")
    outcome = train(small(name, STEPS), data, tmp_path / "parts")
    assert outcome.resumed_from == BREAK
    whole, parts = end_of(tmp_path / "whole"), end_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        same = torch.equal(value, parts[key]) if torch.is_tensor(value) else value == parts[key]
        assert same, key
    assert records(tmp_path / "whole") == records(tmp_path / "parts")
    assert sum(record["skipped"] for record in records(tmp_path / "whole")) == 0
