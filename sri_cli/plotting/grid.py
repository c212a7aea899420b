"""Images side by side in one array: grids, enlarged pixels, a line of text above.

Axis legend: N images, H W rows and columns; images are uint8 with 3 channels.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

INK = (40, 40, 40)
TEXT_PX = 14
MARGIN = 6


def enlarge(images: Pixels, factor: int) -> Pixels:
    """[...,H,W,3] -> [...,factor*H,factor*W,3]: every pixel becomes a square."""
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def make_grid(images: Pixels, columns: int | None = None, gap: int = 2, scale: int = 1) -> Pixels:
    """[N,H,W,3] -> one image, row by row on white; about square without `columns`.

    Raises:
        ValueError: for arrays of another shape, or no images.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"a grid takes images [N,H,W,3] with N > 0, not {images.shape}")
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
    """The image on a white margin, with text above that is wrapped to its width."""
    font = ImageFont.load_default(size=TEXT_PX)  # Pillow's own, the same on every machine
    width = max(image.shape[1], 200)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    top = MARGIN + len(lines) * (TEXT_PX + 4) + 4
    size = (width + 2 * MARGIN, top + image.shape[0] + MARGIN)
    sheet = Image.new("RGB", size, "white")
    ImageDraw.Draw(sheet).text((MARGIN, MARGIN), "\n".join(lines), fill=INK, font=font)
    sheet.paste(Image.fromarray(image), (MARGIN, top))
    return np.asarray(sheet, dtype=np.uint8)


def png_bytes(image: Pixels) -> bytes:
    """The PNG file of an image [H,W,3] or [H,W]."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
