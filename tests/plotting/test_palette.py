"""A slot keeps its colour, and slots can be told apart."""

from __future__ import annotations

import numpy as np

from sri_cli.plotting.palette import BASE, blend_masks, slot_colours


def test_colours_do_not_depend_on_the_number_of_slots() -> None:
    assert np.array_equal(slot_colours(40)[:7], slot_colours(7))
    assert len({tuple(c) for c in slot_colours(40).tolist()}) == 40


def test_base_colours_stay_apart_for_red_green_blindness() -> None:
    # Projection of linear RGB for deuteranopia (Vienot 1999): red and green fall together.
    linear = (np.array(BASE) / 255) ** 2.2
    seen = linear @ np.array([[0.293, 0.293, -0.021], [0.707, 0.707, 0.021], [0.0, 0.0, 1.0]])
    seen = 255 * seen.clip(0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:9, None] - seen[None, :9], axis=-1) + 1e3 * np.eye(9)
    assert distance.min() > 25


def test_hard_and_soft_masks() -> None:
    masks = np.zeros((3, 1, 2))
    masks[2, 0, 0] = 1
    masks[:2, 0, 1] = 0.5
    picture = blend_masks(masks)
    assert picture.shape == (1, 2, 3)
    assert picture[0, 0].tolist() == list(BASE[2])
    assert np.abs(picture[0, 1] - (np.array(BASE[0]) + BASE[1]) / 2).max() <= 0.5
