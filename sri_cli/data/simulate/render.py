"""Images of towers as MuJoCo draws ShapeStacks: textured planes, hard shadows and a gradient sky.

The six procedural textures for floor and walls have 4 x 4 tiles with dark joints and cover a whole
plane once, so a tile is 5 m on the 20 m planes of the towers. They come from fixed seeds and are
the same in every run.
Axes: S image side in pixels, R = (2 S)^2 rays, N some of them, G geoms, L lights; n tile side in
texels, T texels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import mujoco
import numpy as np

from sri_cli.data.simulate.raycast import SUPERSAMPLING, Camera, Hits, sunlit, to_pixels, trace
from sri_cli.rng import stream

NUM_TEXTURES = 6
TILES = 4
TEXELS = 512  # 4 cm a texel on a 20 m plane
LEVELS = 6  # 512 .. 16 texels
JOINT_TEXELS = 5
JOINT_COLOUR = (0.06, 0.06, 0.055)

Colour = tuple[float, float, float]  # 0..1


@dataclass(frozen=True)
class Sunlight:
    """Parallel lights and the sky of a tower's scene.

    `towards` [L, 3] are unit vectors to the lights; only the first casts shadows. Light of the
    others and `ambient` saturates at 1 before the first is added: floors in full light are as white
    as in images of ShapeStacks.
    """

    towards: np.ndarray
    strength: float
    ambient: float
    sky_top: Colour
    sky_bottom: Colour


@dataclass(frozen=True)
class Surfaces:
    """What the geoms of a tower's scene look like: `colour` [G, 3] in 0..1, `label` [G] for the
    mask, and the texture of planes that have one instead of a colour, by geom id."""

    colour: np.ndarray
    label: np.ndarray
    texture: dict[int, Mipmap]


def render_tower(
    data: mujoco.MjData,
    camera: Camera,
    light: Sunlight,
    surfaces: Surfaces,
    size_px: int,
    soft: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [S, S, 3] and mask uint8 [S, S] of the scene as `data` holds it.

    `soft`: see `to_pixels`.
    """
    hits = trace(data, camera, size_px)
    image = surfaces.colour.take(hits.geom, axis=0, mode="wrap")
    ray_width = 2 * camera.half_width / (size_px * SUPERSAMPLING)
    for plane, mipmap in surfaces.texture.items():
        on = np.flatnonzero(hits.geom == plane)
        axes = data.geom_xmat[plane].reshape(3, 3)
        local = (hits.points[on] - data.geom_xpos[plane]) @ axes[:, :2]
        slant = np.maximum(np.abs(hits.rays[on] @ axes[:, 2]), 0.1)
        footprint = hits.distance[on] * ray_width / slant
        image[on] = sample(mipmap, local, data.model.geom_size[plane, :2], footprint)
    image *= _sun_shade(data, hits, light)[:, None]
    sky = np.flatnonzero(hits.geom < 0)
    image[sky] = _gradient_sky(hits.rays[sky, 2], light)
    label = np.append(surfaces.label, 0).astype(np.uint8)[hits.geom]  # geom -1: the sky's 0
    return to_pixels(image, label, size_px, soft)


def _sun_shade(data: mujoco.MjData, hits: Hits, light: Sunlight) -> np.ndarray:
    """Brightness [R] of white surfaces."""
    facing = np.clip(hits.normals @ light.towards.T, 0, None) * light.strength
    shade = np.minimum(1.0, light.ambient + facing[:, 1:] @ np.ones(len(light.towards) - 1))
    bright = np.flatnonzero(facing[:, 0] > 0)
    shade[bright] += facing[bright, 0] * sunlit(data, hits.points[bright], light.towards[0])
    return shade


def _gradient_sky(up: np.ndarray, light: Sunlight) -> np.ndarray:
    """MuJoCo's gradient sky [N, 3] for the z components `up` [N] of rays."""
    height = np.arcsin(up) / (np.pi / 2)
    top = np.clip(0.5 * (1 + height / np.sqrt(1 + height**2) * np.sqrt(2)), 0, 1)[:, None]
    return top * np.array(light.sky_top) + (1 - top) * np.array(light.sky_bottom)


@dataclass(frozen=True)
class Mipmap:
    """A square texture at halving resolutions: the texels of all levels [T, 3], and the first
    texel and the side of each level."""

    texels: np.ndarray
    start: np.ndarray
    side: np.ndarray


@lru_cache(maxsize=NUM_TEXTURES)
def texture(index: int) -> Mipmap:
    """Texture 0..5 with its smaller versions."""
    levels = [_draw(index)]
    for _ in range(LEVELS - 1):
        n = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(n, 2, n, 2, 3).mean((1, 3)))
    side = np.array([len(level) for level in levels])
    start = np.concatenate([[0], np.cumsum(side**2)[:-1]])
    return Mipmap(np.concatenate([level.reshape(-1, 3) for level in levels]), start, side)


def sample(
    mipmap: Mipmap, local: np.ndarray, half: np.ndarray, footprint_m: np.ndarray
) -> np.ndarray:
    """Colours [N, 3] at plane coordinates `local` [N, 2] of a plane of half extents `half` [2],
    from the level whose texels are about as wide as a ray there (`footprint_m` [N])."""
    texel_m = 2 * half[0] / mipmap.side[0]
    level = np.log2(np.maximum(footprint_m / texel_m, 1)).astype(int)
    level = np.minimum(level, len(mipmap.side) - 1)
    side = mipmap.side[level]
    at = np.clip((local / half + 1) / 2, 0, 1 - 1e-9)
    column, row = (at[:, 0] * side).astype(int), ((1 - at[:, 1]) * side).astype(int)
    return mipmap.texels[mipmap.start[level] + np.minimum(row, side - 1) * side + column]


def _noise(rng: np.random.Generator, n: int, cells: int, stretch: int = 1) -> np.ndarray:
    """Value noise [n, n] in 0..1 with `cells` cells across and cells * stretch down."""

    def axis(count: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.arange(n) / n * count
        low = at.astype(int)
        frac = at - low
        return low, frac * frac * (3 - 2 * frac)

    grid = rng.random((cells * stretch + 1, cells + 1))
    (row, fr), (col, fc) = axis(cells * stretch), axis(cells)
    upper = grid[row][:, col] * (1 - fc) + grid[row][:, col + 1] * fc
    lower = grid[row + 1][:, col] * (1 - fc) + grid[row + 1][:, col + 1] * fc
    return upper * (1 - fr[:, None]) + lower * fr[:, None]


def _tinted(colour: Colour, shade: np.ndarray) -> np.ndarray:
    return np.asarray(colour) * shade[..., None]


# Tiles [n, n, 3].
def _plain(colour: Colour, contrast: float, rng: np.random.Generator, n: int) -> np.ndarray:
    """One colour with faint clouds."""
    clouds = 0.6 * _noise(rng, n, 3) + 0.4 * _noise(rng, n, 9)
    return _tinted(colour, 1 + contrast * (clouds - 0.5))


def _marble(rng: np.random.Generator, n: int) -> np.ndarray:
    """White with faint veins and, in half of the tiles, a small brown stain."""
    veins = np.abs(_noise(rng, n, 5) - 0.5) + np.abs(_noise(rng, n, 11) - 0.5)
    tile = _tinted((0.60, 0.61, 0.59), 0.94 + 0.1 * np.clip(veins * 2, 0, 0.6))
    if rng.random() < 0.5:
        y, x = np.mgrid[:n, :n] / n - rng.uniform(0.2, 0.8, (2, 1, 1))
        stain = np.exp(-((x + y) ** 2 / 0.003 + (x - y) ** 2 / 0.0004))[..., None]
        tile = tile * (1 - stain) + stain * np.array((0.22, 0.15, 0.09))
    return tile


def _granite(light: Colour, dark: float, rng: np.random.Generator, n: int) -> np.ndarray:
    """Dark speckles on a light ground."""
    speckle = 0.85 * _noise(rng, n, n // 2) + 0.15 * _noise(rng, n, n // 6)
    spots = np.clip((0.5 - speckle) * 4, 0, 1)[..., None]
    return np.asarray(light) * (1 - spots) + spots * dark * np.array((0.95, 0.95, 1.2))


def _wood(colour: Colour, rng: np.random.Generator, n: int) -> np.ndarray:
    """Four planks with grain along them, in one of two directions."""
    grain = 0.5 * _noise(rng, n, 2, 24) + 0.5 * _noise(rng, n, 3, 8)
    plank = np.repeat(rng.uniform(0.8, 1.15, 4), -(-n // 4))[:n, None]
    wood = _tinted(colour, plank * (0.75 + 0.5 * grain))
    wood[:: n // 4] *= 0.4
    return wood.swapaxes(0, 1) if rng.random() < 0.5 else wood


_TILES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "m": _marble,
    "k": partial(_plain, (0.135, 0.137, 0.145), 0.15),  # black
    "b": partial(_plain, (0.29, 0.44, 0.50), 0.2),  # blue
    "g": partial(_plain, (0.33, 0.33, 0.34), 0.25),  # grey
    "c": partial(_granite, (0.56, 0.545, 0.45), 0.17),  # cream
    "r": partial(_granite, (0.46, 0.33, 0.24), 0.12),  # brown
    "p": partial(_granite, (0.55, 0.42, 0.38), 0.2),  # pink
    "o": partial(_wood, (0.50, 0.34, 0.19)),  # oak
    "w": partial(_wood, (0.27, 0.16, 0.09)),  # walnut
}
_LAYOUTS = (  # rows of tiles, the first at the plane's +y edge
    ["cmkc", "kcbm", "ckmc", "mckb"],
    ["mgmg", "gmgm", "mgmg", "gmgm"],
    ["crcr", "pcpc", "rcrc", "cpcp"],
    ["oooo", "oooo", "oooo", "oooo"],
    ["wowo", "owow", "wowo", "owow"],
    ["mkmk", "kmkm", "mkmk", "kmkm"],
)


def _draw(index: int) -> np.ndarray:
    """Texture `index` as floats [TEXELS, TEXELS, 3] in 0..1; row 0 at the plane's +y edge."""
    rng = stream(2018, index)
    n = TEXELS // TILES
    rows = [
        np.concatenate([_TILES[kind](rng, n) for kind in row], axis=1) for row in _LAYOUTS[index]
    ]
    tiled = np.concatenate(rows, axis=0)
    edge = np.arange(TEXELS) % n
    joint = np.minimum(edge, n - 1 - edge) < JOINT_TEXELS / 2
    tiled[joint] = JOINT_COLOUR
    tiled[:, joint] = JOINT_COLOUR
    return np.clip(tiled, 0, 1)
