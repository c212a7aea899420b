"""Six procedural textures for floor and walls, each 4 x 4 tiles with dark joints.

A texture covers a whole plane once, so a tile is 5 m on the 20 m planes of the towers. Textures
come from fixed seeds and are the same in every run. Axes: n tile side in texels, T texels, N rays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from sri_cli.rng import stream

NUM_TEXTURES = 6
TILES = 4
TEXELS = 512  # 4 cm a texel on a 20 m plane
LEVELS = 6  # 512 .. 16 texels
JOINT_TEXELS = 5
JOINT_COLOUR = (0.06, 0.06, 0.055)

Colour = tuple[float, float, float]  # 0..1


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
