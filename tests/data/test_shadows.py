from __future__ import annotations

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import Camera, trace
from sri_cli.data.simulate.shadows import Lamp, lamp_seen, sky_seen

CENTRE, RADIUS = np.array([0.0, 0.0, 2.0]), 0.6
LAMP = Lamp(np.array([1.0, 0.0, 7.0]), 1.0, radius_m=1.0)


def passes(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether the ways from `start` [N, 1, 3] to `end` [1, M, 3] miss the ball: [N, M]."""
    way = end - start
    share = np.clip(((CENTRE - start) * way).sum(-1) / (way**2).sum(-1), 0, 1)
    return np.linalg.norm(start + share[..., None] * way - CENTRE, axis=-1) > RADIUS


def lamp_disc(rng: np.random.Generator) -> np.ndarray:
    """500 random points [1, M, 3] of the lamp, which faces the origin."""
    axis = LAMP.position / np.linalg.norm(LAMP.position)
    v = np.cross(axis, [0.0, 1.0, 0.0])
    v /= np.linalg.norm(v)
    radius, angle = np.sqrt(rng.random((500, 1))), rng.uniform(0, 2 * np.pi, (500, 1))
    offset = radius * (np.cos(angle) * v + np.sin(angle) * np.cross(axis, v))
    return (LAMP.position + LAMP.radius_m * offset)[None]


def test_a_large_lamps_shadow_is_as_soft_as_geometry_says() -> None:
    """A ball in the air over the floor: the share of the lamp that each point of the floor sees."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="50 50 1"/>'
        f'<geom type="sphere" size="{RADIUS}" pos="0 0 2"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    camera = Camera.facing(np.array([0.0, -6.0, 3.0]), np.array([-0.4, 0.0, 0.0]), 0.4)
    hits = trace(model, data, camera, 48)
    seen = lamp_seen(model, data, hits, hits.geom >= 0, LAMP)
    floor = hits.geom == 0
    expected = passes(hits.points[floor][:, None], lamp_disc(np.random.default_rng(0))).mean(1)
    partly = (expected > 0.1) & (expected < 0.9)
    assert partly.mean() > 0.05  # the lamp is large
    off = np.abs(seen[floor] - expected)
    assert off.mean() < 0.008 and off[partly].mean() < 0.09
    unasked = lamp_seen(model, data, hits, np.zeros(len(floor), bool), LAMP)
    assert (unasked == 1).all()


def test_the_foot_of_an_object_sees_no_sky() -> None:
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="50 50 1"/>'
        '<geom type="sphere" size="1" pos="0 0 1"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    points = np.array([(0.0, 0, 0), (1, 0, 0), (3, 0, 0), (30, 0, 0)])
    seen = sky_seen(data, points, range(1, 2))
    # (r / d)^2 = 1/2 and the cosine the root of that, one radius from the foot
    assert np.allclose(seen[:2], [0, 1 - 0.5**1.5])
    assert seen[1] < seen[2] < seen[3] and seen[3] > 0.999
