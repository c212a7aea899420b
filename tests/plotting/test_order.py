"""The order figure and the reconstruction figure show what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.plotting.order import MAX_SLOTS, contributions, order_figure
from sri_cli.plotting.palette import BASE
from sri_cli.plotting.reconstruction import reconstruction_figure


def scene(n: int, k: int, size: int = 36) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rgb = np.random.default_rng(0).integers(0, 200, (n, k, size, size, 3), dtype=np.uint8)
    masks = np.zeros((n, k, size, size))
    owner = np.arange(size) * k // size
    for slot in range(k):
        masks[:, slot, :, owner == slot] = 1
    images = (masks[..., None] * rgb).sum(axis=1).astype(np.uint8)
    return images, rgb, masks


def test_contributions_add_up_to_the_image() -> None:
    images, rgb, masks = scene(2, 3)
    parts = contributions(rgb, masks).astype(int)
    assert np.array_equal((parts - 255).sum(axis=1) + 255, images)


@pytest.mark.parametrize("slots", [1, 4])
def test_order_figure_has_a_column_per_slot(slots: int) -> None:
    images, rgb, masks = scene(3, slots)
    figure = order_figure(images, rgb, masks, "simulated")
    assert figure.shape[1] == 12 + (2 + slots) * 72 + 2 + 10 + 2 * (slots - 1)
    assert (figure == BASE[0]).all(axis=-1).any()  # the first slot's swatch


def test_very_many_slots_stay_a_picture() -> None:
    figure = order_figure(*scene(1, 100), "simulated")
    assert figure.shape[1] < (MAX_SLOTS + 3) * 76


def test_reconstruction_rows() -> None:
    images, _, masks = scene(4, 3)
    with_rollout = reconstruction_figure(images, masks, images, masks, images, "x")
    without = reconstruction_figure(images, masks, images, masks, None, "x")
    assert with_rollout.shape[0] - without.shape[0] == 72 + 2
