"""Rooms: masks, hues and positions agree with the factors."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from sri_cli.data.simulate import rooms
from sri_cli.data.simulate.rooms import simulate_room
from sri_cli.data.simulate.studio import SHAPES, Solid
from sri_cli.data.source import Scenario

FLOOR, SKY, LEFT, RIGHT = range(4)


@pytest.fixture(scope="module")
def scenes() -> list[Scenario]:
    return [simulate_room(i, size_px=64, views=2, seed=3) for i in range(32)]


def core(mask: np.ndarray, label: int) -> np.ndarray:
    """Pixels [S, S] whose 3 x 3 neighbourhood is all of `label`."""
    windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
    return np.pad(windows.all((2, 3)), 1)


def solids(scene: Scenario) -> list[Solid]:
    """The objects, read back from the factors alone."""
    f = {key: value[0] for key, value in scene.factors.items()}
    return [
        Solid(int(f["shapes"][k]), tuple(f["sizes"][k]), tuple(f["positions"][k][:2]))
        for k in range(f["objects"])
    ]


def test_factors_and_labels(scenes: list[Scenario]) -> None:
    assert len({scene.name for scene in scenes}) == len(scenes)
    for scene in scenes:
        f = scene.factors
        count = f["objects"][0]
        assert 1 <= count <= 3 and set(np.unique(scene.masks)) <= set(range(4 + count))
        assert (f["shapes"][:, :count] >= 0).all() and (f["shapes"][:, count:] == -1).all()
        assert (f["hues"][:, :count] >= 0).all() and (f["hues"][:, count:] == -1).all()
        assert (f["sizes"][:, count:] == 0).all() and f["wall_hues"].shape == (2, 2)
    assert {int(scene.factors["objects"][0]) for scene in scenes} == {1, 2, 3}
    shapes = np.concatenate([scene.factors["shapes"][0] for scene in scenes])
    assert set(shapes) == set(range(len(SHAPES))) | {-1}


def test_floor_below_sky_above_and_two_walls_that_meet(scenes: list[Scenario]) -> None:
    masks = np.concatenate([scene.masks for scene in scenes])
    assert np.isin(masks[:, 0], SKY).mean() > 0.97
    assert np.isin(masks[:, -1], (FLOOR, 4, 5, 6)).all()
    walls = [((mask == LEFT).any(), (mask == RIGHT).any()) for mask in masks]
    assert np.mean([all(both) for both in walls]) > 0.9  # as a rule a corner is seen
    columns = np.arange(64)
    for mask in masks[[all(both) for both in walls]]:
        left, right = ((mask == wall).sum(0) @ columns / (mask == wall).sum() for wall in (2, 3))
        assert left < right
    seen = [(mask >= 4).mean() for mask in masks[::2]]
    assert min(seen) > 0.003 and 0.04 < np.mean(seen) < 0.25
    for label in range(4):
        assert 0.05 < (masks == label).mean() < 0.6


def test_regions_have_the_hues_of_the_factors(scenes: list[Scenario]) -> None:
    checked = 0
    for scene in scenes:
        f = {key: value[0] for key, value in scene.factors.items()}
        hues = [f["floor_hue"], f["sky_hue"], *f["wall_hues"], *f["hues"][: f["objects"]]]
        for label, hue in enumerate(hues):
            inside = core(scene.masks[0], label)
            if inside.sum() >= 10:
                mean = np.median(scene.images[0][inside], axis=0) / 255
                off = abs(colorsys.rgb_to_hsv(*mean)[0] - float(hue))
                assert min(off, 1 - off) < 0.04, (scene.name, label)
                checked += 1
    assert checked > 150


def test_objects_rest_on_the_floor_and_do_not_touch(scenes: list[Scenario]) -> None:
    for scene in scenes:
        f = scene.factors
        assert f["positions"][..., 2] == pytest.approx(f["sizes"][..., 2] / 2)
        found = solids(scene)
        for k, one in enumerate(found):
            assert np.hypot(*one.floor_xy) + one.reach < rooms.WALL_M
            for other in found[:k]:
                distance = np.hypot(*np.subtract(one.floor_xy, other.floor_xy))
                assert distance > one.reach + other.reach


def test_a_room_without_a_visible_object_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls = rooms._draw_room, []

    def away_first(rng: np.random.Generator, count: int, views: int) -> rooms.Room:
        room = draw(rng, count, views)
        calls.append(count)
        if len(calls) > 2:
            return room
        return replace(room, solids=[replace(s, floor_xy=(-30.0, -30.0)) for s in room.solids])

    monkeypatch.setattr(rooms, "_draw_room", away_first)
    scene = simulate_room(0, size_px=16)
    assert scene.discarded == 2 and (scene.masks >= 4).any()
