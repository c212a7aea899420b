"""Rooms and tables: masks, colours, shadows and positions agree with the factors."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from sri_cli.data.simulate import rooms, tables
from sri_cli.data.simulate.rooms import simulate_room
from sri_cli.data.simulate.studio import BOX, CYLINDER, SHAPES, SPHERE, Solid, SolidScene
from sri_cli.data.simulate.tables import COLOURS, METAL, RUBBER, simulate_table
from sri_cli.data.source import Scenario

FLOOR, SKY, LEFT, RIGHT = range(4)
Factors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def room_scenes() -> list[Scenario]:
    return [simulate_room(i, size_px=64, views=2, seed=3) for i in range(32)]


@pytest.fixture(scope="module")
def table_scenes() -> list[Scenario]:
    return [simulate_table(i, seed=3) for i in range(32)]


def core(mask: np.ndarray, label: int) -> np.ndarray:
    """Pixels [S, S] whose 3 x 3 neighbourhood is all of `label`."""
    windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
    return np.pad(windows.all((2, 3)), 1)


def first_view(scene: Scenario) -> Factors:
    return {key: values[0] for key, values in scene.factors.items()}


def values_of(scenes: list[Scenario], key: str) -> set[int]:
    return set(np.concatenate([np.atleast_1d(scene.factors[key][0]) for scene in scenes]))


def hue_of(image: np.ndarray, inside: np.ndarray) -> tuple[float, float, float]:
    """Hue, saturation and value of the median colour of some pixels."""
    return colorsys.rgb_to_hsv(*(np.median(image[inside], axis=0) / 255))


def hue_error(one: float, other: float) -> float:
    return min(abs(one - other), 1 - abs(one - other))


def test_factors_cover_their_ranges(
    room_scenes: list[Scenario], table_scenes: list[Scenario]
) -> None:
    for scenes, keys in (
        (room_scenes, ("shapes", "hues")),
        (table_scenes, ("shapes", "colours", "materials")),
    ):
        assert len({scene.name for scene in scenes}) == len(scenes)
        for scene in scenes:
            factors, count = scene.factors, scene.factors["objects"][0]
            for key in keys:
                assert (factors[key][:, :count] >= 0).all() and (
                    factors[key][:, count:] == -1
                ).all()
            assert (factors["sizes"][:, count:] == 0).all()
            assert factors["positions"][..., 2] == pytest.approx(factors["sizes"][..., 2] / 2)
    assert values_of(room_scenes, "objects") == {1, 2, 3}
    assert values_of(table_scenes, "objects") == {3, 4, 5, 6}
    assert values_of(room_scenes, "shapes") == {-1, *range(len(SHAPES))}
    assert values_of(table_scenes, "shapes") == {-1, SPHERE, BOX, CYLINDER}
    assert values_of(table_scenes, "materials") == {-1, RUBBER, METAL}
    assert values_of(table_scenes, "colours") == set(range(-1, len(COLOURS)))


def test_floor_below_sky_above_and_two_walls_that_meet(room_scenes: list[Scenario]) -> None:
    for scene in room_scenes:
        assert set(np.unique(scene.masks)) <= set(range(4 + scene.factors["objects"][0]))
    masks = np.concatenate([scene.masks for scene in room_scenes])
    assert np.isin(masks[:, 0], SKY).mean() > 0.97
    assert np.isin(masks[:, -1], (FLOOR, 4, 5, 6)).all()
    corners = [(mask == LEFT).any() and (mask == RIGHT).any() for mask in masks]
    assert np.mean(corners) > 0.9
    for mask in masks[corners]:
        left, right = (
            (mask == w).sum(0) @ np.arange(64) / (mask == w).sum() for w in (LEFT, RIGHT)
        )
        assert left < right
    objects = [(mask >= 4).mean() for mask in masks[::2]]
    assert min(objects) > 0.003 and 0.04 < np.mean(objects) < 0.25
    for label in range(4):
        assert 0.05 < (masks == label).mean() < 0.6


def test_rooms_have_the_hues_of_the_factors(room_scenes: list[Scenario]) -> None:
    checked = 0
    for scene in room_scenes:
        f = first_view(scene)
        hues = [f["floor_hue"], f["sky_hue"], *f["wall_hues"], *f["hues"][: f["objects"]]]
        for label, hue in enumerate(hues):
            inside = core(scene.masks[0], label)
            if inside.sum() >= 10:
                assert hue_error(hue_of(scene.images[0], inside)[0], float(hue)) < 0.04
                checked += 1
    assert checked > 150


def test_objects_of_rooms_do_not_touch(room_scenes: list[Scenario]) -> None:
    for scene in room_scenes:
        f = first_view(scene)
        objects = [
            Solid(int(f["shapes"][k]), tuple(f["sizes"][k]), tuple(f["positions"][k][:2]))
            for k in range(f["objects"])
        ]
        for k, one in enumerate(objects):
            assert np.hypot(*one.floor_xy) + one.reach < rooms.WALL_M
            for other in objects[:k]:
                distance = np.hypot(*np.subtract(one.floor_xy, other.floor_xy))
                assert distance > one.reach + other.reach


def test_a_room_without_a_visible_object_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, calls = rooms._draw_room, []

    def away_first(rng: np.random.Generator, count: int, views: int) -> SolidScene:
        room = draw(rng, count, views)
        calls.append(count)
        if len(calls) > 2:
            return room
        return replace(room, cameras=[replace(c, rotation=-c.rotation) for c in room.cameras])

    monkeypatch.setattr(rooms, "_draw_room", away_first)
    scene = simulate_room(0, size_px=16)
    assert scene.discarded == 2 and (scene.masks >= 4).any()


def test_every_object_of_a_table_is_visible(table_scenes: list[Scenario]) -> None:
    views = [simulate_table(i, views=3, seed=3) for i in range(2)]
    for scene in table_scenes + views:
        for mask in scene.masks:
            pixels = np.bincount(mask.ravel(), minlength=7)
            count = scene.factors["objects"][0]
            assert (pixels[1 : count + 1] >= 0.0025 * mask.size).all()
            assert not pixels[count + 1 :].any() and pixels[0] > 0.5 * mask.size
    assert not np.array_equal(*views[0].images[:2])  # each view has a camera of its own


def test_tables_of_clevr10_have_up_to_ten_objects() -> None:
    scenes = [simulate_table(i, seed=3, most=10) for i in range(12)]
    assert max(values_of(scenes, "objects")) > 6
    for scene in scenes:
        assert scene.factors["shapes"].shape == (1, 10) and scene.masks is not None
        assert len(np.unique(scene.masks)) == scene.factors["objects"][0] + 1


def test_objects_of_tables_stand_apart(table_scenes: list[Scenario]) -> None:
    for scene in table_scenes:
        f = first_view(scene)
        assert np.abs(f["positions"][:, :2]).max() <= 3
        x, y = f["camera_position"][:2] / np.linalg.norm(f["camera_position"][:2])
        axes = np.array([(x, y), (-y, x)])  # towards the camera, and to its right
        for k in range(f["objects"]):
            assert reach(f, k) == pytest.approx(0.7) or reach(f, k) == pytest.approx(0.35)
            for other in range(k):
                offset = (f["positions"][k] - f["positions"][other])[:2]
                assert np.linalg.norm(offset) - reach(f, k) - reach(f, other) >= 0.25 - 1e-5
                assert (np.abs(axes @ offset) >= 0.4 - 1e-5).all()


def reach(factors: Factors, k: int) -> float:
    x, y, _ = factors["sizes"][k]
    return float(np.hypot(x, y) if factors["shapes"][k] == BOX else x) / 2


def test_objects_of_tables_have_their_colours_hue(table_scenes: list[Scenario]) -> None:
    checked = 0
    for scene in table_scenes:
        f = first_view(scene)
        for k in range(f["objects"]):
            inside = core(scene.masks[0], k + 1)
            if inside.sum() < 20:
                continue
            hue, saturation, _ = hue_of(scene.images[0], inside)
            if f["colours"][k] == 0:
                assert saturation < 0.15
            else:
                expected = colorsys.rgb_to_hsv(*COLOURS[f["colours"][k]])[0]
                assert hue_error(hue, expected) < 0.06 and saturation > 0.3, (scene.name, k)
            checked += 1
    assert checked > 60


def ball(
    monkeypatch: pytest.MonkeyPatch, material: int, xy: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one large red ball, in the middle of the table or elsewhere."""
    solid = Solid(SPHERE, (1.4, 1.4, 1.4), xy)
    camera = tables.Camera.facing(tables.CAMERA, np.array([0, 0, 0.7]), tables.HALF_WIDTH)
    lamps = tables._draw_lamps(np.random.default_rng(0))
    table = tables._build([solid], [camera], [1], [material], lamps, tables.MAX_OBJECTS)
    monkeypatch.setattr(tables, "_draw_table", lambda *_: table)
    monkeypatch.setattr(tables, "MIN_VISIBLE_RAYS", 0)
    scene = simulate_table(0)
    return scene.images[0].astype(int), scene.masks[0]


def test_a_ball_its_mask_and_its_shadow(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = ball(monkeypatch, RUBBER)
    away = np.linalg.norm(tables.CAMERA - [0, 0, 0.7])
    radius = 0.7 / np.sqrt(away**2 - 0.49) * 48 / tables.HALF_WIDTH
    assert (mask == 1).sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    assert (mask[47:49, 47:49] == 1).all()
    # Image and mask share their border: one pixel off it all is red inside, nothing outside.
    red = image[..., 0] > 1.3 * image[..., 1]
    assert red[core(mask, 1)].all() and not red[core(mask, 0)].any()
    grey = image.mean(2)
    assert 80 < grey[0].mean() < grey[-1].mean() - 15 < 200  # darker at the back
    empty = ball(monkeypatch, RUBBER, (40.0, 40.0))[0].mean(2)
    darker = (empty - grey)[core(mask, 0)]
    assert darker.min() > -1  # a ball takes light from the ground and gives none
    assert (darker > 35).sum() > 20


def test_metal_shines_and_rubber_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rubber, mask = ball(monkeypatch, RUBBER)
    metal, _ = ball(monkeypatch, METAL)
    inside = core(mask, 1)
    assert metal[inside].min(1).max() > 220 > 150 > rubber[inside].min(1).max()
    assert np.array_equal(metal[core(mask, 0)], rubber[core(mask, 0)])
