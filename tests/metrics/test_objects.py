"""The recognisable-object check on pictures drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.metrics.objects import Background, measure_background, recognisable

GREY = np.full((32, 32, 3), 120, np.uint8)
GROUND = (20, 28)


def picture(top: int, bottom: int, left: int, right: int, colour=(200, 30, 30)) -> np.ndarray:
    image = GREY.copy()
    image[top:bottom, left:right] = colour
    return image


@pytest.fixture
def background() -> Background:
    return Background(mean=GREY.astype(np.float64), ground=GROUND)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (picture(10, 24, 12, 20), True),
        (picture(10, 24, 12, 20, (30, 30, 200)), True),
        (GREY, False),
        (picture(10, 24, 12, 20, (220, 220, 220)), False),  # bright, not coloured
        (picture(10, 24, 12, 20, (140, 110, 110)), False),  # a hint of colour: mush
        (picture(2, 14, 12, 20), False),  # hangs in the air
        (picture(20, 24, 12, 16), False),  # 1.6 % of the picture
        (picture(0, 25, 0, 32), False),  # 78 %
        (picture(4, 32, 12, 20), False),  # runs out below the floor's usual rows
    ],
)
def test_hand_drawn_pictures(background: Background, image: np.ndarray, wanted: bool) -> None:
    assert recognisable(image[None], background).tolist() == [wanted]


def test_two_parts_do_not_count_as_one(background: Background) -> None:
    image = picture(5, 12, 12, 20)
    image[22:24, 12:20] = (200, 30, 30)  # reaches the ground, but alone is too small
    assert not recognisable(image[None], background)[0]


def test_background_leaves_objects_out() -> None:
    images = np.stack([picture(10, 24, 12, 20), picture(10, 22, 2, 9), GREY])
    masks = (np.ptp(images, axis=-1) > 0).astype(np.uint8)
    measured = measure_background(images, masks)
    assert np.array_equal(measured.mean, GREY)
    assert measured.ground == (20, 24)
    assert recognisable(images, measured).tolist() == [True, True, False]


def test_no_objects_at_all_is_said() -> None:
    with pytest.raises(ValueError, match="foreground"):
        measure_background(GREY[None], np.zeros((1, 32, 32), np.uint8))


def test_noise_is_not_an_object(background: Background) -> None:
    noise = np.random.default_rng(0).normal(120, 12, (64, 32, 32, 3)).clip(0, 255)
    assert not recognisable(noise.astype(np.uint8), background).any()
