"""The contact sheet: colours where the masks say, and a bar for each number of objects."""

from __future__ import annotations

import numpy as np

from sri_cli.figures.contact import BAR, CHART_PX, bar_chart, contact_sheet, overlay
from sri_cli.figures.palette import slot_colours


def test_objects_are_tinted_outlined_and_the_background_is_left_alone() -> None:
    masks = np.zeros((1, 9, 9), np.uint8)
    masks[0, 3:8, 3:8] = 2  # the second object of one background label
    out = overlay(np.full((1, 9, 9, 3), 100, np.uint8), masks, 1)[0]
    colour = slot_colours(2)[1]
    assert (out[3, 3:8] == colour).all() and (out[3:8, 7] == colour).all()
    assert out[5, 5].tolist() == (100 * 0.55 + colour * 0.45 + 0.5).astype(np.uint8).tolist()
    assert (out[:3] == 100).all() and (out[:, 8] == 100).all()


def test_lines_part_the_labels_of_the_background() -> None:
    masks = np.zeros((1, 6, 4), np.uint8)
    masks[0, 3:] = 1
    out = overlay(np.full((1, 6, 4, 3), 9, np.uint8), masks, 2)[0, :, 0, 0]
    assert out.tolist() == [9, 9, 255, 255, 9, 9]


def test_bars_have_the_heights_of_the_counts() -> None:
    chart = bar_chart({1: 30, 3: 60})
    assert chart.shape == (CHART_PX[1], CHART_PX[0], 3)
    columns = (chart == BAR).all(axis=2).sum(axis=0)
    third = CHART_PX[0] // 3
    low, none, high = (columns[i * third + 10] for i in range(3))
    assert none <= 1 and abs(high - 2 * low) <= 2


def test_the_sheet_holds_images_masks_and_chart() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    bare = contact_sheet(images, None, 1, {}, "set")
    with_masks = contact_sheet(images, np.ones((10, 16, 16), np.uint8), 1, {1: 10}, "set")
    enlarged = 8 * 16
    assert bare.shape[1] >= 8 * enlarged and bare.shape[0] < 3 * enlarged
    assert with_masks.shape[0] > 4 * enlarged + CHART_PX[1]
