"""Tables: masks, colours, shadows and positions agree with the factors."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from sri_cli.data.simulate import tables
from sri_cli.data.simulate.studio import BOX, CYLINDER, SPHERE, Solid
from sri_cli.data.simulate.tables import COLOURS, METAL, RUBBER, simulate_table
from sri_cli.data.source import Scenario


@pytest.fixture(scope="module")
def scenes() -> list[Scenario]:
    return [simulate_table(i, seed=3) for i in range(32)]


def core(mask: np.ndarray, label: int) -> np.ndarray:
    """Pixels [S, S] whose 3 x 3 neighbourhood is all of `label`."""
    windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
    return np.pad(windows.all((2, 3)), 1)


def test_factors_cover_their_ranges(scenes: list[Scenario]) -> None:
    assert len({scene.name for scene in scenes}) == len(scenes)
    for scene in scenes:
        f = scene.factors
        count = f["objects"][0]
        for key in ("shapes", "colours", "materials"):
            assert (f[key][:, :count] >= 0).all() and (f[key][:, count:] == -1).all()
        assert (f["sizes"][:, count:] == 0).all() and (f["positions"][:, count:] == 0).all()

    def every(key: str) -> set[int]:
        return set(np.concatenate([scene.factors[key][0] for scene in scenes]))

    assert every("shapes") == {-1, SPHERE, BOX, CYLINDER}
    assert every("materials") == {-1, RUBBER, METAL}
    assert every("colours") == set(range(-1, len(COLOURS)))
    assert {int(scene.factors["objects"][0]) for scene in scenes} == {3, 4, 5, 6}


def test_every_object_is_seen_and_the_ground_is_around_them(scenes: list[Scenario]) -> None:
    views = [simulate_table(i, views=3, seed=3) for i in range(2)]
    for scene in scenes + views:
        for mask in scene.masks:
            rays = np.bincount(mask.ravel(), minlength=7)
            count = scene.factors["objects"][0]
            assert (rays[1 : count + 1] >= 0.0025 * mask.size).all()
            assert not rays[count + 1 :].any()
            assert rays[0] > 0.5 * mask.size
    assert not np.array_equal(*views[0].images[:2])  # each view has a camera of its own


def test_objects_stand_apart_on_the_ground(scenes: list[Scenario]) -> None:
    for scene in scenes:
        f = {key: value[0] for key, value in scene.factors.items()}
        assert f["positions"][:, 2] == pytest.approx(f["sizes"][:, 2] / 2)
        assert np.abs(f["positions"][:, :2]).max() <= 3
        x, y = f["camera_position"][:2] / np.linalg.norm(f["camera_position"][:2])
        axes = np.array([(x, y), (-y, x)])  # towards the camera, and to its right
        for k in range(f["objects"]):
            assert reach(f, k) == pytest.approx(0.7) or reach(f, k) == pytest.approx(0.35)
            for other in range(k):
                offset = (f["positions"][k] - f["positions"][other])[:2]
                assert np.linalg.norm(offset) - reach(f, k) - reach(f, other) >= 0.25 - 1e-5
                assert (np.abs(axes @ offset) >= 0.4 - 1e-5).all()


def reach(factors: dict[str, np.ndarray], k: int) -> float:
    x, y, _ = factors["sizes"][k]
    return float(np.hypot(x, y) if factors["shapes"][k] == BOX else x) / 2


def test_rubber_has_its_colours_hue(scenes: list[Scenario]) -> None:
    checked = 0
    for scene in scenes:
        f = {key: value[0] for key, value in scene.factors.items()}
        for k in range(f["objects"]):
            inside = core(scene.masks[0], k + 1)
            if inside.sum() < 20:
                continue
            mean = np.median(scene.images[0][inside], axis=0) / 255
            hue, saturation, _ = colorsys.rgb_to_hsv(*mean)
            if f["colours"][k] == 0:
                assert saturation < 0.15
            else:
                off = abs(hue - colorsys.rgb_to_hsv(*COLOURS[f["colours"][k]])[0])
                assert min(off, 1 - off) < 0.06, (scene.name, k)
                assert saturation > 0.3
            checked += 1
    assert checked > 60


def drawn(
    monkeypatch: pytest.MonkeyPatch, material: int, place: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one large red ball, in the middle of the table or elsewhere."""
    ball = Solid(SPHERE, (1.4, 1.4, 1.4), place)
    camera = tables.Camera.facing(tables.CAMERA, np.array([0, 0, 0.7]), tables.HALF_WIDTH)
    lamps = tables._draw_lamps(np.random.default_rng(0))
    table = tables.Table([ball], [camera], [1], [material], lamps)
    monkeypatch.setattr(tables, "_draw_table", lambda rng, count, views: table)
    monkeypatch.setattr(tables, "MIN_VISIBLE_RAYS", 0)
    scene = simulate_table(0)
    return scene.images[0].astype(int), scene.masks[0]


def test_a_ball_is_where_geometry_puts_it_and_the_mask_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, mask = drawn(monkeypatch, RUBBER)
    away = np.linalg.norm(tables.CAMERA - [0, 0, 0.7])
    radius = 0.7 / np.sqrt(away**2 - 0.49) * 48 / tables.HALF_WIDTH
    assert (mask == 1).sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    assert (mask[47:49, 47:49] == 1).all()
    # Image and mask share their border: one pixel off it all is red inside, nothing outside.
    red = image[..., 0] > 1.3 * image[..., 1]
    assert red[core(mask, 1)].all() and not red[core(mask, 0)].any()


def test_light_falls_off_and_a_ball_throws_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = drawn(monkeypatch, RUBBER)
    grey = image.mean(2)
    assert 80 < grey[0].mean() < grey[-1].mean() - 15 < 200  # darker at the back
    empty = drawn(monkeypatch, RUBBER, (40.0, 40.0))[0].mean(2)
    darker = (empty - grey)[core(mask, 0)]
    assert darker.min() > -1  # a ball takes light from the ground and gives none
    assert (darker > 35).sum() > 20


def test_metal_shines_and_rubber_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rubber, mask = drawn(monkeypatch, RUBBER)
    metal, _ = drawn(monkeypatch, METAL)
    inside = core(mask, 1)
    assert metal[inside].min(1).max() > 220 > 150 > rubber[inside].min(1).max()
    assert np.array_equal(metal[core(mask, 0)], rubber[core(mask, 0)])
