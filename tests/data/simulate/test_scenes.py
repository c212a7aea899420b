"""Scenes are functions of seed and index; lamps, sky and textures follow geometry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mujoco
import numpy as np
import pytest

from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.data.simulate.raycast import Camera, Lamp, lamp_visibility, sky_visibility, trace
from sri_cli.data.simulate.render import NUM_TEXTURES, texture
from sri_cli.data.simulate.rooms import simulate_room
from sri_cli.data.simulate.tables import simulate_table
from sri_cli.data.simulate.towers import simulate_tower, tower_name
from tests.small_cli import finish, start

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
    finish(start(code=code))


CENTRE, RADIUS = np.array([0.0, 0.0, 2.0]), 0.6
LAMP = Lamp(np.array([1.0, 0.0, 7.0]), 1.0, radius_m=1.0)


def ball_on_floor(radius: float, height: float) -> mujoco.MjData:
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="50 50 1"/>'
        f'<geom type="sphere" size="{radius}" pos="0 0 {height}"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return data


def passes(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether the lines from `start` [N, 1, 3] to `end` [1, M, 3] miss the ball: [N, M]."""
    line = end - start
    share = np.clip(((CENTRE - start) * line).sum(-1) / (line**2).sum(-1), 0, 1)
    return np.linalg.norm(start + share[..., None] * line - CENTRE, axis=-1) > RADIUS


def lamp_disc(rng: np.random.Generator) -> np.ndarray:
    """500 random points [1, M, 3] of the lamp, which faces the origin."""
    axis = LAMP.position / np.linalg.norm(LAMP.position)
    v = np.cross(axis, [0.0, 1.0, 0.0])
    v /= np.linalg.norm(v)
    radius, angle = np.sqrt(rng.random((500, 1))), rng.uniform(0, 2 * np.pi, (500, 1))
    offset = radius * (np.cos(angle) * v + np.sin(angle) * np.cross(axis, v))
    return (LAMP.position + LAMP.radius_m * offset)[None]


def test_a_large_lamp_casts_a_soft_shadow() -> None:
    """A ball above the floor: the share of the lamp that each point of the floor sees."""
    data = ball_on_floor(RADIUS, 2)
    camera = Camera.facing(np.array([0.0, -6.0, 3.0]), np.array([-0.4, 0.0, 0.0]), 0.4)
    hits = trace(data, camera, 48)
    visible = lamp_visibility(data, hits, hits.geom >= 0, LAMP)
    floor = hits.geom == 0
    expected = passes(hits.points[floor][:, None], lamp_disc(np.random.default_rng(0))).mean(1)
    partly = (expected > 0.1) & (expected < 0.9)
    assert partly.mean() > 0.05  # the lamp is large
    off = np.abs(visible[floor] - expected)
    assert off.mean() < 0.008 and off[partly].mean() < 0.09
    assert (lamp_visibility(data, hits, np.zeros(len(floor), bool), LAMP) == 1).all()


def test_the_foot_of_an_object_sees_no_sky() -> None:
    data = ball_on_floor(1, 1)
    points = np.array([(0.0, 0, 0), (1, 0, 0), (3, 0, 0), (30, 0, 0)])
    visible = sky_visibility(data, points, range(1, 2))
    # (r / d)^2 = 1/2 and the cosine the root of that, one radius from the foot
    assert np.allclose(visible[:2], [0, 1 - 0.5**1.5])
    assert visible[1] < visible[2] < visible[3] and visible[3] > 0.999


def test_textures_are_different_and_tiled_with_dark_joints() -> None:
    drawn = [texture(i) for i in range(NUM_TEXTURES)]
    means = [t.texels.mean(0) for t in drawn]
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(means, means[1:], strict=False))
    for t in drawn:
        full = t.texels[: t.side[0] ** 2].reshape(t.side[0], t.side[0], 3)
        assert full[0].max() < 0.1 and full[:, 0].max() < 0.1  # the edge is a joint
        assert full.min() >= 0 and full.max() <= 1
