"""What all simulators promise: a scene is a function of seed and index, in one format."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.data.simulate.rooms import simulate_room
from sri_cli.data.simulate.tables import simulate_table
from sri_cli.data.simulate.towers import simulate_tower, tower_name

# Means of the images and of the masks of scene 5 with seed 3, at 32 px: if these change, so does
# every simulated data set.
SIMULATORS: dict[str, tuple[Callable[..., Any], tuple[float, float]]] = {
    "tower": (partial(simulate_tower, preset="original", views=2), (77.062, 0.0410)),
    "full view": (
        partial(simulate_tower, preset="original", views=2, full_view=True),
        (77.276, 0.0317),
    ),
    "demo tower": (partial(simulate_tower, preset="demo", views=2), (110.751, 0.2949)),
    "room": (partial(simulate_room, views=2), (123.461, 1.2188)),
    "table": (partial(simulate_table, views=2), (140.327, 0.1646)),
    "flawed tower": (partial(simulate_labelled_tower, preset="original"), (93.602, 0.1182)),
}


@pytest.mark.parametrize("kind", SIMULATORS)
def test_a_scene_is_a_function_of_seed_and_index(kind: str) -> None:
    simulate, means = SIMULATORS[kind]
    scene = simulate(5, size_px=32, seed=3)
    assert (scene.images.mean(), scene.masks.mean()) == pytest.approx(means, rel=2e-3)
    views = len(scene.images)
    assert scene.images.shape == (views, 32, 32, 3) and scene.images.dtype == np.uint8
    assert scene.masks.shape == (views, 32, 32) and scene.masks.dtype == np.uint8
    assert all(len(values) == views for values in scene.factors.values())
    again = simulate(5, size_px=32, seed=3)
    assert again.name == scene.name
    assert np.array_equal(again.images, scene.images) and np.array_equal(again.masks, scene.masks)
    for other in (simulate(6, size_px=32, seed=3), simulate(5, size_px=32, seed=4)):
        assert not np.array_equal(other.images, scene.images)
        assert {key: v.dtype for key, v in other.factors.items()} == {
            key: v.dtype for key, v in scene.factors.items()
        }
    small = simulate(5, size_px=16, seed=3)  # the same scene at any size
    assert np.array_equal(small.factors["positions"], scene.factors["positions"])


def test_a_towers_name_is_known_before_it_is_simulated() -> None:
    scene = simulate_tower(7, size_px=8, views=1, preset="original", seed=3)
    assert tower_name(7, preset="original", seed=3) == scene.name


def test_simulating_needs_no_torch() -> None:
    code = "import sys, sri_cli.data.simulate.towers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
