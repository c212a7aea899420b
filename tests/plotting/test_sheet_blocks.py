"""Scenes as blocks: what stands in which column, true masks in the colours of their slots."""

from __future__ import annotations

import numpy as np

from sri_cli.plotting.palette import slot_colours
from sri_cli.plotting.sheet_blocks import (
    grid_columns,
    grid_panels,
    label_picture,
    order_panels,
    segmentation_panels,
)

RANDOM = np.random.default_rng(0)


def pictures(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (*shape, 6, 6, 3), dtype=np.uint8)


def masks(n: int, k: int) -> np.ndarray:
    weights = RANDOM.random((n, k, 6, 6))
    return weights / weights.sum(axis=1, keepdims=True)


def test_a_grid_keeps_scenes_in_order_with_their_names() -> None:
    images = pictures(5)
    block = grid_panels(images, "caption", 3, [f"{i}" for i in range(5)])
    assert [len(row) for row in block.cells] == [3, 2] and block.across == 3
    assert np.array_equal(np.stack([*block.cells[0], *block.cells[1]]), images)
    assert block.names == [["0", "1", "2"], ["3", "4"]]
    assert [grid_columns(num, 20) for num in (1, 2, 18, 500)] == [1, 2, 6, 20]


def test_order_shows_slots_in_order_in_their_colours() -> None:
    images, rgb, weights = pictures(2), pictures(2, 3), np.zeros((2, 3, 6, 6))
    weights[:, 2] = 1
    block = order_panels(images, rgb, weights, "caption")
    assert list(block.columns) == ["image", "masks", "1", "2", "3"]
    assert list(block.slots) == [None, None, 0, 1, 2]
    row = block.cells[1]
    assert np.array_equal(row[0], images[1]) and (row[1] == slot_colours(3)[2]).all()
    assert (row[2] == 255).all() and np.array_equal(row[4], rgb[1, 2])


def test_segmentation_leaves_out_a_truth_that_is_unknown() -> None:
    arrays = (pictures(2), masks(2, 3), masks(2, 3), pictures(2), pictures(2, 3))
    truth = RANDOM.integers(0, 2, (2, 6, 6), dtype=np.uint8)
    with_truth = segmentation_panels(*arrays, truth, "caption")
    without = segmentation_panels(*arrays, None, "caption")
    assert set(with_truth.columns) - set(without.columns) == {"true masks"}
    assert [len(row) for row in without.cells] == [7, 7]
    assert without.breaks == {4} and with_truth.slots[-3:] == [0, 1, 2]


def test_true_labels_bear_the_colours_of_the_slots_that_fit_them() -> None:
    truth = np.zeros((6, 6), np.uint8)
    truth[:3], truth[3:, :2] = 7, 9
    weights = np.full((4, 6, 6), 0.01)
    weights[2][truth == 7], weights[0][truth == 0] = 1, 1
    weights[3][truth == 9] = 1
    seen = label_picture(truth, weights)
    for label, slot in ((7, 2), (0, 0), (9, 3)):
        assert (seen[truth == label] == slot_colours(4)[slot]).all()


def test_more_true_labels_than_slots_get_colours_that_no_slot_has() -> None:
    truth = np.repeat(np.arange(6, dtype=np.uint8), 6).reshape(6, 6)
    weights = np.zeros((2, 6, 6))
    weights[0, :5], weights[1, 5:] = 1, 1
    seen = label_picture(truth, weights)
    used = {tuple(colour) for colour in seen.reshape(-1, 3).tolist()}
    assert len(used) == 6
    assert len(used & {tuple(colour) for colour in slot_colours(2).tolist()}) == 2
    assert (seen[5] == slot_colours(2)[1]).all()
