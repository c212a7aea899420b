from __future__ import annotations

import colorsys

import numpy as np
import pytest

from sri_cli.data.simulate import tables as tabletop
from sri_cli.data.simulate.scenario import Scenario
from sri_cli.data.simulate.solids import BOX, CYLINDER, SPHERE, Solid
from sri_cli.data.simulate.tables import COLOURS, METAL, RUBBER, TableSettings, simulate_table
from sri_cli.errors import SriError


@pytest.fixture(scope="module")
def scenes() -> list[Scenario]:
    return [simulate_table(TableSettings(96, 1, 3), i) for i in range(32)]


def core(mask: np.ndarray, label: int) -> np.ndarray:
    """Pixels [S, S] whose 3 x 3 neighbourhood is all of `label`."""
    windows = np.lib.stride_tricks.sliding_window_view(mask == label, (3, 3))
    return np.pad(windows.all((2, 3)), 1)


def test_a_table_depends_on_seed_and_index_only(scenes: list[Scenario]) -> None:
    again = simulate_table(TableSettings(96, 1, 3), 5)
    assert again.name == scenes[5].name and again.discarded == scenes[5].discarded
    assert again.images.tobytes() == scenes[5].images.tobytes()
    assert again.masks.tobytes() == scenes[5].masks.tobytes()
    for key, value in again.factors.items():
        assert np.array_equal(value, scenes[5].factors[key]), key
    assert again.images.tobytes() != scenes[6].images.tobytes()
    other = simulate_table(TableSettings(96, 1, 4), 5)
    assert other.images.tobytes() != again.images.tobytes()
    small = simulate_table(TableSettings(32, 1, 3), 5)  # the same scene at any size
    assert np.array_equal(small.factors["positions"], again.factors["positions"])


def test_shapes_and_factors(scenes: list[Scenario]) -> None:
    assert len({scene.name for scene in scenes}) == len(scenes)
    for scene in scenes:
        f = scene.factors
        assert scene.images.shape == (1, 96, 96, 3) and scene.masks.shape == (1, 96, 96)
        assert scene.images.dtype == scene.masks.dtype == np.uint8
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
    views = [simulate_table(TableSettings(96, 3, 3), i) for i in range(2)]
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
    """Picture and mask of one large red ball, in the middle of the table or elsewhere."""
    ball = Solid(SPHERE, (1.4, 1.4, 1.4), place)
    camera = tabletop.Camera.facing(tabletop.CAMERA, np.array([0, 0, 0.7]), tabletop._HALF_WIDTH)
    lamps = tabletop._draw_lamps(np.random.default_rng(0))
    table = tabletop.Table([ball], [1], [material], [camera], lamps)
    monkeypatch.setattr(tabletop, "_draw_table", lambda rng, count, views: table)
    monkeypatch.setattr(tabletop, "LEAST_RAYS", 0)
    scene = simulate_table(TableSettings(96, 1, 0), 0)
    return scene.images[0].astype(int), scene.masks[0]


def test_a_ball_is_where_geometry_puts_it_and_the_mask_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, mask = drawn(monkeypatch, RUBBER)
    away = np.linalg.norm(tabletop.CAMERA - [0, 0, 0.7])
    radius = 0.7 / np.sqrt(away**2 - 0.49) * 48 / tabletop._HALF_WIDTH
    assert (mask == 1).sum() == pytest.approx(np.pi * radius**2, rel=0.03)
    assert (mask[47:49, 47:49] == 1).all()
    # Picture and mask share their border: one pixel off it all is red inside, nothing outside.
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


def test_settings_say_what_is_wrong() -> None:
    for views in (0, 17):
        with pytest.raises(SriError, match="tables have 1 to 16"):
            TableSettings(views=views)
    with pytest.raises(SriError, match="too small"):
        TableSettings(size_px=4)
    with pytest.raises(SriError, match="negative"):
        TableSettings(seed=-1)
