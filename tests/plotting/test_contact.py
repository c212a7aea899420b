"""The contact sheet: colours where the masks say, and a bar for each number of objects."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.plotting import contact
from sri_cli.plotting.contact import (
    BAR_PX,
    CHART_FRAME,
    CHART_PX,
    at_sheet_size,
    bar_chart,
    contact_sheet,
    labels_at_sheet_size,
    overlay,
)
from sri_cli.plotting.palette import slot_colours


def blue(chart: np.ndarray) -> np.ndarray:
    """The pixels [H,W] of bars, blurred edges and all."""
    found: np.ndarray = chart[..., 2] > chart[..., 0].astype(int) + 50
    return found


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
    columns = blue(chart).sum(axis=0)
    step = BAR_PX * 1.4
    low, none, high = (columns[round(CHART_FRAME[0] + (i + 0.5) * step)] for i in range(3))
    assert low > 40 and none == 0 and abs(high - 2 * low) <= 2


def test_very_many_numbers_of_objects_fit() -> None:
    chart = bar_chart(dict.fromkeys(range(200), 1))
    found = np.flatnonzero(blue(chart).any(axis=0))
    assert chart.shape[1] == CHART_PX[0]
    assert found.min() >= CHART_FRAME[0] and found.max() < CHART_PX[0] - CHART_FRAME[2]


@pytest.mark.parametrize(
    ("size", "drawn"), [(16, 128), (48, 96), (128, 128), (129, 65), (256, 128)]
)
def test_images_of_any_size_are_drawn_about_as_large(size: int, drawn: int) -> None:
    images = np.full((2, size, size, 3), 7, np.uint8)
    masks = np.zeros((2, size, size), np.uint8)
    masks[:, : size // 2] = 1
    labels = labels_at_sheet_size(masks)
    assert at_sheet_size(images).shape == (2, drawn, drawn, 3)
    assert (at_sheet_size(images) == 7).all() and labels.shape == (2, drawn, drawn)
    assert abs(int(labels[0, :, 0].sum()) - drawn // 2) <= 1


def test_what_is_drawn_smaller_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(contact, "caption", lambda picture, text: said.append(text) or picture)
    for size in (64, 256):
        contact_sheet(np.zeros((1, size, size, 3), np.uint8), None, 1, {}, "set")
    assert said == ["set", "set (drawn at 128 px)"]


def test_the_sheet_holds_images_masks_and_chart() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    bare = contact_sheet(images, None, 1, {}, "set")
    with_masks = contact_sheet(images, np.ones((10, 16, 16), np.uint8), 1, {1: 10}, "set")
    enlarged = 8 * 16
    assert bare.shape[1] >= 8 * enlarged and bare.shape[0] < 3 * enlarged
    assert with_masks.shape[0] > 4 * enlarged + CHART_PX[1]
