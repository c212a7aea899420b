"""Images as arrays: slot colours, blended masks, grids, and a line of text above.

Axis legend: N images, K slots, H W rows and columns; `...` any leading axes. Images are uint8 with
3 channels.
"""

from __future__ import annotations

import colorsys
import importlib.util
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

# One colour per slot index, the same in every figure and distinct for colour-blind readers too:
# Okabe and Ito's eight (black made grey, to be seen beside dark scenes), then four of Tol's.
SLOT_COLOURS = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (110, 110, 110),  # grey
    (51, 34, 136),  # indigo
    (153, 221, 153),  # pale green
    (136, 34, 85),  # wine
    (255, 204, 204),  # rose
)
GOLDEN_ANGLE = 0.618033988749895

INK = (40, 40, 40)
TEXT_PX, LINE_PX, MARGIN = 21, 26, 20  # of captions of figures at their default scale
FONT = "mpl-data/fonts/ttf/DejaVuSans-Bold.ttf"  # of matplotlib, as in figures


def slot_colours(slots: int) -> Pixels:
    """[K,3]; slot k has the same colour whatever the number of slots."""
    return np.array([_colour(k) for k in range(slots)], dtype=np.uint8).reshape(-1, 3)


def _colour(k: int) -> tuple[int, int, int]:
    if k < len(SLOT_COLOURS):
        return SLOT_COLOURS[k]
    # Far beyond any training K: hues that never meet, at two brightnesses.
    red, green, blue = colorsys.hsv_to_rgb(k * GOLDEN_ANGLE % 1, 0.65, 0.9 if k % 2 else 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend_masks(masks: NDArray[np.floating]) -> Pixels:
    """Masks [...,K,H,W], summing to 1 over K, to an image [...,H,W,3] of blended slot colours."""
    colours = slot_colours(masks.shape[-3]).astype(np.float32)
    blended = np.einsum("...khw,kc->...hwc", masks, colours)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def enlarge(images: Pixels, factor: int) -> Pixels:
    """[...,H,W,3] -> [...,factor*H,factor*W,3]: every pixel becomes a square."""
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def make_grid(images: Pixels, columns: int | None = None, gap: int = 2, scale: int = 1) -> Pixels:
    """[N,H,W,3], N > 0, to one image, row by row on white; about square without `columns`."""
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    images = enlarge(images, scale)
    height, width = images.shape[1:3]
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    grid = np.full(shape, 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def caption(image: Pixels, text: str) -> Pixels:
    """The image on a white margin, with text above; what is wider is broken at `; ` and spaces."""
    # Found without importing matplotlib, which takes longer than drawing the image.
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations
    font = ImageFont.truetype(Path(spec.submodule_search_locations[0]) / FONT, TEXT_PX)
    longest = max(font.getlength(word) for word in text.split())  # a run's name is not broken
    width = max(image.shape[1], 30 * TEXT_PX, math.ceil(longest))
    parts: list[str] = []
    for part in text.split("; "):
        if parts and font.getlength(f"{parts[-1]}; {part}") <= width:
            parts[-1] += f"; {part}"
        else:
            parts.append(part)
    lines = [line for part in parts for line in wrap_text(part, width, font.getlength)]
    top = MARGIN + len(lines) * LINE_PX + 10
    size = (width + 2 * MARGIN, top + image.shape[0] + MARGIN)
    sheet = Image.new("RGB", size, "white")
    drawn = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        drawn.text((MARGIN, MARGIN - 4 + i * LINE_PX), line, INK, font)
    sheet.paste(Image.fromarray(image), (MARGIN, top))
    return np.asarray(sheet, dtype=np.uint8)


def wrap_text(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Lines no wider than `width`, as far as single words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def png_bytes(image: Pixels) -> bytes:
    """The PNG file of an image [H,W,3] or [H,W]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
