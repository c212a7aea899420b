"""Batches belong to (seed, step): nothing else may change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sri_cli.data.loader import Batches, batch_indices, choose_storage, free_memory


def epoch(seed: int, number: int, batch: int = 3, n: int = 10) -> np.ndarray:
    steps = range(number * (n // batch), (number + 1) * (n // batch))
    return np.concatenate([batch_indices(seed, step, batch, n) for step in steps])


def test_an_epoch_shows_each_image_once_and_drops_the_rest() -> None:
    shown = epoch(0, 0)
    assert len(shown) == len(set(shown)) == 9
    assert set(shown) <= set(range(10))


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = [epoch(seed, number, n=12).tolist() for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(12)) for order in orders)


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    late = batch_indices(7, 1000, 4, 50)
    for step in (3, 999, 0):
        batch_indices(7, step, 4, 50)
    assert (batch_indices(7, 1000, 4, 50) == late).all()
    # Known values: another order would break the resume of runs that exist.
    assert late.tolist() == [11, 32, 33, 14]


def test_resident_images_are_a_copy() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    batches = Batches(images, 2, seed=0, storage="device")
    images[:] = 9
    assert int(batches.at(0).max()) == 0


@pytest.mark.parametrize("storage", ["device", "memory", "file"])
def test_batches_are_the_same_wherever_the_images_lie(storage: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    (tmp_path / "images").write_bytes(images.tobytes())
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
    batches = Batches(mapped, 6, seed=3, rows=slice(1, 5), storage=storage)
    got = batches.at(4)
    assert got.is_contiguous(memory_format=torch.channels_last)
    want = images[batch_indices(3, 4, 6, 20)[1:5]]
    assert (got.permute(0, 2, 3, 1).numpy() == want).all()


def test_what_does_not_fit_is_streamed() -> None:
    cpu = torch.device("cpu")
    assert choose_storage(2**20, cpu) == "device"
    assert choose_storage(2**60, cpu) == "file"
    there = free_memory()
    assert 2**27 < there < 2**50
    share = int(there * 0.3)
    assert choose_storage(share, cpu) == "device"
    assert choose_storage(share, cpu, sharers=8) == "file"
