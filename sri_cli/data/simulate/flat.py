"""Simulated Multi-dSprites and Tetrominoes: flat shapes of one colour each, without light.

Mask labels: 0 background, then the shapes; of two that overlap, the later is in front. Scenes are
drawn at a multiple of the published side without antialiasing, and resized as published images are.
Axes: P the most shapes of a data set (-1 or 0 where there is none), C colours, S side of the canvas
in pixels.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.source import Scenario, object_factor
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriFailure
from sri_cli.rng import stream

Pixels = NDArray[np.uint8]

SPRITES_PX = 64  # as published
SQUARE, ELLIPSE, HEART = range(3)
# Variant -> fewest and most sprites.
VARIANTS = {"binarized": (2, 3), "colored_on_grayscale": (2, 5), "colored_on_colored": (1, 4)}
HALF_SQUARE = 0.17  # half the side of the largest square, in sides of the image
SCALES = (0.5, 1.0)
REACH = np.sqrt(2)  # no shape reaches farther from its centre, in halves of a square's side
MAX_DRAWS = 1000
MIN_VISIBLE = 0.2  # share of a sprite; with less of one, the scene is drawn again

TETROMINOES_PX = 35  # as published
CELLS = 7  # on a side
NUM_PIECES = 3
TETROMINO_COLOURS = np.array(
    [c for c in itertools.product((0, 255), repeat=3) if 0 < sum(c) < 3 * 255], np.uint8
)


class Sprite(NamedTuple):
    """Position and size in sides of the image: `x` to the right, `y` down; angle in radians,
    clockwise; colour uint8."""

    shape: int
    x: float
    y: float
    scale: float
    orientation: float
    colour: tuple[int, int, int]

    def covers(self, side: int) -> NDArray[np.bool_]:
        """The pixels [S,S] whose centres are inside."""
        centres, half = (np.arange(side) + 0.5) / side, self.scale * HALF_SQUARE
        x, y = (centres - self.x) / half, ((centres - self.y) / half)[:, None]
        cos, sin = np.cos(self.orientation), np.sin(self.orientation)
        u, v = x * cos + y * sin, y * cos - x * sin
        if self.shape == SQUARE:
            return np.maximum(np.abs(u), np.abs(v)) <= 1
        if self.shape == ELLIPSE:
            return (u / 1.3) ** 2 + (v / 0.7) ** 2 <= 1
        uu, w = u * u, 0.1 - v  # the heart is 2.28 wide and 2.24 high, its tip at v = 1.1
        return (uu + w * w - 1) ** 3 <= uu * w * w * w


def simulate_sprites(
    index: int, *, size_px: int = 64, seed: int = 0, variant: str = "colored_on_grayscale"
) -> Scenario:
    """Scene `index` of a seed, a function of these and the variant alone.

    Factors: shapes, scales, orientations, positions [P,2] and colours [P,C], `visible` [P], the
    share of each sprite that no other hides, and the background's colour [C].
    """
    rng = stream(seed, index)
    fewest, most = VARIANTS[variant]
    count = int(rng.integers(fewest, most + 1))  # once, or full scenes would be rare
    side = SPRITES_PX * -(-size_px // SPRITES_PX)
    for discarded in range(MAX_DRAWS):
        sprites = [draw_sprite(rng, variant) for _ in range(count)]
        covered = np.stack([sprite.covers(side) for sprite in sprites])
        labels = paint(covered)
        visible = np.bincount(labels.ravel(), minlength=count + 1)[1:] / covered.sum((1, 2))
        if visible.min() < MIN_VISIBLE:
            continue
        colours = np.array([draw_background(rng, variant), *(s.colour for s in sprites)], np.uint8)
        factors = {
            "shapes": ([s.shape for s in sprites], -1, np.int16),
            "positions": ([(s.x, s.y) for s in sprites], 0, np.float32),
            "scales": ([s.scale for s in sprites], 0, np.float32),
            "orientations": ([s.orientation for s in sprites], 0, np.float32),
            "colours": (colours[1:], 0, np.uint8),
            "visible": (visible, 0, np.float32),
        }
        name = f"sprites-objects={count}-v={index}"
        return flat_scene(name, labels, colours, size_px, most, factors, discarded)
    raise SriFailure(f"scene {index}: a sprite was hidden in {MAX_DRAWS} scenes")


def draw_sprite(rng: np.random.Generator, variant: str) -> Sprite:
    """A sprite that lies within the image."""
    scale, orientation = rng.uniform(*SCALES), rng.uniform(0, 2 * np.pi)
    margin = scale * HALF_SQUARE * REACH
    x, y = rng.uniform(margin, 1 - margin, 2)
    return Sprite(int(rng.integers(3)), x, y, scale, orientation, draw_colour(rng, variant))


def draw_colour(rng: np.random.Generator, variant: str) -> tuple[int, int, int]:
    """White, a hue that stands out from grey, or any colour."""
    if variant == "binarized":
        return 255, 255, 255
    if variant == "colored_on_colored":
        return as_colour(rng.random(3))
    return as_colour(colorsys.hsv_to_rgb(rng.random(), *rng.uniform(0.5, 1, 2)))


def draw_background(rng: np.random.Generator, variant: str) -> tuple[int, int, int]:
    """Black, any grey, or any colour."""
    if variant == "binarized":
        return 0, 0, 0
    return as_colour(rng.random(3) if variant == "colored_on_colored" else [rng.random()] * 3)


def as_colour(values: Sequence[float] | NDArray[np.float64]) -> tuple[int, int, int]:
    """0..1 to 0..255."""
    red, green, blue = (int(256 * value) if value < 1 else 255 for value in values)
    return red, green, blue


def paint(covered: NDArray[np.bool_]) -> Pixels:
    """The label of each pixel [S,S]: the last shape that covers it [P,S,S], from 1; 0 for none."""
    labels = np.zeros(covered.shape[1:], np.uint8)
    for label, pixels in enumerate(covered, 1):
        labels[pixels] = label
    return labels


def all_tetrominoes() -> list[NDArray[np.bool_]]:
    """The 19 shapes of four connected cells, turned and mirrored ones included, each [rows,
    columns]."""
    one_of_each = ("1111", "11/11", "111/010", "011/110", "110/011", "100/111", "001/111")
    shapes: dict[bytes, NDArray[np.bool_]] = {}
    for text in one_of_each:
        shape = np.array([[cell == "1" for cell in row] for row in text.split("/")])
        for turn in range(4):
            turned = np.rot90(shape, turn)
            shapes.setdefault(bytes(turned.shape) + turned.tobytes(), turned)
    return list(shapes.values())


TETROMINOES = all_tetrominoes()


def simulate_tetrominoes(index: int, *, size_px: int = 32, seed: int = 0) -> Scenario:
    """Scene `index` of a seed, a function of these two alone: three pieces that do not overlap.

    Factors: shapes (indices of TETROMINOES), positions [P,2] of their centres (right, down; in
    sides of the image) and colours [P,C].
    """
    rng = stream(seed, index)
    cells = np.zeros((CELLS, CELLS), np.uint8)
    shapes: list[int] = []
    positions: list[tuple[float, float]] = []
    while len(shapes) < NUM_PIECES:
        shape = int(rng.integers(len(TETROMINOES)))
        piece = TETROMINOES[shape]
        rows, columns = piece.shape
        top, left = (int(rng.integers(CELLS + 1 - extent)) for extent in piece.shape)
        window = cells[top : top + rows, left : left + columns]
        if not window[piece].any():
            window[piece] = len(shapes) + 1
            shapes.append(shape)
            positions.append(((left + columns / 2) / CELLS, (top + rows / 2) / CELLS))
    colours = TETROMINO_COLOURS[rng.integers(len(TETROMINO_COLOURS), size=NUM_PIECES)]
    factors = {
        "shapes": (shapes, -1, np.int16),
        "positions": (positions, 0, np.float32),
        "colours": (colours, 0, np.uint8),
    }
    cell = TETROMINOES_PX // CELLS * -(-size_px // TETROMINOES_PX)
    labels = np.kron(cells, np.ones((cell, cell), np.uint8))
    palette = np.concatenate([np.zeros((1, 3), np.uint8), colours])
    return flat_scene(f"tetrominoes-v={index}", labels, palette, size_px, NUM_PIECES, factors)


def flat_scene(
    name: str,
    labels: Pixels,
    colours: Pixels,
    size_px: int,
    most: int,
    factors: Mapping[str, tuple[Any, float, type]],
    discarded: int = 0,
) -> Scenario:
    """A scene of labels [S,S] and their colours [labels,C], resized.

    `factors`: values per shape, what stands where there is none, and the type.
    """
    resizing = Resizing(size_px)
    known: dict[str, NDArray[Any]] = {
        "objects": np.array([len(colours) - 1], np.int16),
        "background": colours[:1],
    }
    for key, (values, empty, dtype) in factors.items():
        known[key] = object_factor(values, 1, most, empty, dtype)
    return Scenario(
        name, resizing.image(colours[labels])[None], resizing.labels(labels)[None], known, discarded
    )
