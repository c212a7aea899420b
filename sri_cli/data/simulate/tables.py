"""Tables like CLEVR's, of 3 to 6 objects (CLEVR6): grey ground, soft light, matte or metal solids.

Mask labels: 0 ground, 1 .. 6 the objects. A scene is discarded when an object is hidden or out of
the picture in one of its views. Everything of scenario `index` comes from (seed, index).
Lengths in CLEVR's units. Axes: V views, P = 6 places for objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sri_cli.data.simulate.raycast import Camera, trace
from sri_cli.data.simulate.scenario import Scenario, check_pictures, in_every_view
from sri_cli.data.simulate.shadows import Lamp
from sri_cli.data.simulate.solids import BOX, CYLINDER, SPHERE, Solid, build_scene, gap
from sri_cli.data.simulate.studio import Studio, Surfaces, render_studio
from sri_cli.errors import SriFailure

BACKGROUND_LABELS = 1
MIN_OBJECTS, MAX_OBJECTS = 3, 6
MAX_DRAWS = 1000

COLOUR_NAMES = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
COLOURS = np.array(
    [(87, 87, 87), (173, 35, 35), (42, 75, 215), (29, 105, 20),
     (129, 74, 25), (129, 38, 192), (41, 208, 208), (255, 238, 51)]
) / 255.0  # fmt: skip
RUBBER, METAL = range(2)
MATERIALS = ("rubber", "metal")
LARGE, SMALL = 0.7, 0.35  # half of what they measure; a cube's is that over the root of 2

GROUND_REACH = 3.0
MIN_GAP = 0.25  # between the circles on the ground that objects stay within
MIN_MARGIN = 0.4  # between centres along the camera's right and its forward
# Of CLEVR's 240 x 320 pixels, of which an object must show 100, CLEVR6 cuts out the central 192.
PROBE_PX = 48  # times 2 x 2 rays: a quarter of the cut, whatever the picture's size
LEAST_RAYS = 28
CAMERA = np.array([7.5, -6.5, 5.4])
CAMERA_JITTER = 0.5
_HALF_WIDTH = 16 / 35 * 192 / 320  # half the sensor over the focal length, cut

_GROUND = '<geom type="plane" size="200 200 1"/>'
_GROUND_COLOUR = (0.42, 0.415, 0.41)
_SKY = (0.06, 0.06, 0.065)  # seen in metal only
AMBIENT = 0.17


@dataclass(frozen=True)
class TableSettings:
    """What is simulated; with a scenario's index it fixes every byte of that scenario."""

    size_px: int = 96
    views: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_pictures(self.size_px, self.views, self.seed, "tables")


@dataclass(frozen=True)
class Table:
    """One scene: solids with a colour and a material each, cameras, and its lamps."""

    solids: list[Solid]
    colours: list[int]
    materials: list[int]
    cameras: list[Camera] = field(repr=False)
    lamps: list[Lamp] = field(repr=False)

    @property
    def surfaces(self) -> Surfaces:
        """The ground, then the objects."""
        metal = np.array([False, *(m == METAL for m in self.materials)])
        rubber = ~metal
        rubber[0] = False
        return Surfaces(
            colour=np.concatenate([[_GROUND_COLOUR], COLOURS[self.colours]]),
            label=np.arange(len(metal)),
            gloss=3.0 * metal + 0.10 * rubber,
            sharpness=np.where(metal, 140.0, 14.0),
            mirror=np.where(metal, 0.65, 0.0),
        )


def _draw_solid(rng: np.random.Generator) -> Solid:
    shape = int(rng.choice((SPHERE, BOX, CYLINDER)))
    half = LARGE if rng.random() < 0.5 else SMALL
    width = 2 * half / (float(np.sqrt(2)) if shape == BOX else 1.0)
    x, y = (float(v) for v in rng.uniform(-GROUND_REACH, GROUND_REACH, 2))
    return Solid(shape, (width, width, width), (x, y), float(rng.uniform(0, 360)))


def _apart(one: Solid, other: Solid, camera: Camera) -> bool:
    """Whether they keep the gap, and are clearly left or right, in front or behind."""
    offset = np.array(one.place) - np.array(other.place)
    right, forward = camera.turn[0, :2], camera.turn[2, :2] / np.linalg.norm(camera.turn[2, :2])
    margins = np.abs([offset @ right, offset @ forward])
    return gap(one, other) >= MIN_GAP and bool((margins >= MIN_MARGIN).all())


def _draw_solids(rng: np.random.Generator, count: int, camera: Camera) -> list[Solid]:
    """`count` objects, each drawn until it stands apart from those before it."""
    solids: list[Solid] = []
    misses = 0
    while len(solids) < count:
        solid = _draw_solid(rng)
        if all(_apart(solid, other, camera) for other in solids):
            solids.append(solid)
        elif (misses := misses + 1) % 50 == 0:
            solids = []  # no room left: begin again
    return solids


def _draw_camera(rng: np.random.Generator) -> Camera:
    eye = CAMERA + rng.uniform(-CAMERA_JITTER, CAMERA_JITTER, 3)
    return Camera.facing(eye, np.zeros(3), _HALF_WIDTH)


def _draw_lamps(rng: np.random.Generator) -> list[Lamp]:
    """Key light from the right of the camera, fill from the left, a third from behind."""
    key, fill, back = rng.uniform(-1, 1, (3, 3))
    return [
        Lamp(np.array([6.5, -2.5, 6.5]) + key, 0.46, 0.8),
        Lamp(np.array([-5.0, -5.5, 6.0]) + fill, 0.12, 1.2),
        Lamp(np.array([-2.0, 5.0, 7.5]) + back, 0.24, 0.8),
    ]


def _draw_table(rng: np.random.Generator, count: int, views: int) -> Table:
    colours = [int(c) for c in rng.integers(len(COLOURS), size=count)]
    materials = [int(m) for m in rng.integers(len(MATERIALS), size=count)]
    cameras = [_draw_camera(rng) for _ in range(views)]
    lamps = _draw_lamps(rng)
    return Table(_draw_solids(rng, count, cameras[0]), colours, materials, cameras, lamps)


def _studio(table: Table) -> Studio:
    model, data = build_scene(_GROUND, table.solids)
    objects = len(table.solids)
    return Studio(model, data, table.surfaces, objects, table.lamps, AMBIENT, _SKY)


def _all_seen(studio: Studio, cameras: list[Camera]) -> bool:
    """Whether every object shows enough of itself to every camera."""
    for camera in cameras:
        geom = trace(studio.model, studio.data, camera, PROBE_PX).geom
        if min(np.count_nonzero(geom == i) for i in studio.object_ids) < LEAST_RAYS:
            return False
    return True


def _draw_seen(rng: np.random.Generator, views: int) -> tuple[Table, Studio, int]:
    """A scene whose objects are all seen, and how many were not before it."""
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))  # once, or full scenes would be rare
    for discarded in range(MAX_DRAWS):
        table = _draw_table(rng, count, views)
        studio = _studio(table)
        if _all_seen(studio, table.cameras):
            return table, studio, discarded
    raise SriFailure(f"an object was hidden in each of {MAX_DRAWS} scenes")


def simulate_table(settings: TableSettings, index: int) -> Scenario:
    """Scenario `index`: draw until every object is seen, render every view."""
    rng = np.random.default_rng((settings.seed, index))
    table, studio, discarded = _draw_seen(rng, settings.views)
    views = [render_studio(studio, eye, settings.size_px, srgb=True) for eye in table.cameras]
    return Scenario(
        name=f"table-objects={len(table.solids)}-v={index}",
        images=np.stack([picture for picture, _ in views]),
        masks=np.stack([mask for _, mask in views]),
        factors=_factors(table),
        discarded=discarded,
    )


def _factors(table: Table) -> dict[str, np.ndarray]:
    """Count [V]; shapes, colours, materials [V, P] (-1: none); yaw [V, P] (degrees); positions and
    sizes [V, P, 3] (sizes are full extents); camera position [V, 3]."""
    views, solids = len(table.cameras), table.solids

    def places(values: list, empty: float, dtype: type) -> np.ndarray:
        return in_every_view(values, views, MAX_OBJECTS, empty, dtype)

    return {
        "objects": np.full(views, len(solids), np.int16),
        "shapes": places([s.shape for s in solids], -1, np.int16),
        "colours": places(table.colours, -1, np.int16),
        "materials": places(table.materials, -1, np.int16),
        "positions": places([s.position for s in solids], 0, np.float32),
        "sizes": places([s.extent for s in solids], 0, np.float32),
        "rotations": places([s.yaw_deg for s in solids], 0, np.float32),
        "camera_position": np.stack([c.position for c in table.cameras]).astype(np.float32),
    }
