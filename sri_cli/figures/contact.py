"""A data set at a glance: images, the same with their masks, how many objects they hold.

Axes: N images, H W rows and columns; pictures are uint8 with 3 channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sri_cli.figures.grids import INK, PAPER, Picture, below, caption, enlarge, font, grid
from sri_cli.figures.palette import slot_colours

COLUMNS = 8
IMAGE_PX = 128  # about: images are enlarged by whole factors
TINT = 0.45
CHART_PX = (360, 120)
BAR = tuple(int(c) for c in slot_colours(5)[4])


def contact_sheet(
    images: Picture,
    masks: NDArray[np.uint8] | None,
    background_labels: int,
    objects: Mapping[int, int],
    title: str,
) -> Picture:
    """Rows of images [N,H,W,3], each above the same with its masks [N,H,W] (None: unknown), and
    the histogram `objects` (objects in an image -> images)."""
    scale = max(1, IMAGE_PX // images.shape[1])
    big = enlarge(images, scale)
    if masks is None:
        return caption(grid(big, COLUMNS), title)
    tinted = overlay(big, masks.repeat(scale, axis=1).repeat(scale, axis=2), background_labels)
    rows = []
    for start in range(0, len(images), COLUMNS):
        part = slice(start, start + COLUMNS)
        rows.append(below([grid(big[part], COLUMNS), grid(tinted[part], COLUMNS)], gap=2))
    chart = caption(bar_chart(objects), "objects in an image, share of the images", margin=0)
    return caption(below([below(rows, gap=8), chart], gap=12), f"{title}, and their masks")


def overlay(images: Picture, masks: NDArray[np.uint8], background_labels: int) -> Picture:
    """Objects in the palette's colours, half transparent, with crisp outlines; the background
    stays as it is, and lines part its labels."""
    colours = slot_colours(max(1, 256 - background_labels))
    is_object = masks >= background_labels
    colour = colours[np.where(is_object, masks.astype(int) - background_labels, 0)]
    mixed = (images * (1 - TINT) + colour * TINT + 0.5).astype(np.uint8)
    out = np.where(is_object[..., None], mixed, images)
    edge = edges(masks)
    out = np.where((edge & is_object)[..., None], colour, out)
    return np.where((edge & ~is_object & ~beside_objects(is_object))[..., None], 255, out)


def edges(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels [N,H,W] whose right or lower neighbour, or left or upper, has another label."""
    across, down = masks[:, :, 1:] != masks[:, :, :-1], masks[:, 1:] != masks[:, :-1]
    edge = np.zeros(masks.shape, bool)
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge


def beside_objects(is_object: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that touch an object: its outline is drawn on its own side."""
    near = is_object.copy()
    near[:, :, 1:] |= is_object[:, :, :-1]
    near[:, :, :-1] |= is_object[:, :, 1:]
    near[:, 1:] |= is_object[:, :-1]
    near[:, :-1] |= is_object[:, 1:]
    return near


def bar_chart(counts: Mapping[int, int]) -> Picture:
    """A bar for each number from the least to the most, with its share above and itself below."""
    width, height = CHART_PX
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    numbers = range(min(counts), max(counts) + 1)
    total, most = sum(counts.values()), max(counts.values())
    step, room = width / len(numbers), height - 34
    for place, number in enumerate(numbers):
        share = counts.get(number, 0) / total
        left, right = round(place * step + 2), round((place + 1) * step - 3)
        top = 16 + round(room * (1 - counts.get(number, 0) / most))
        draw.rectangle((left, top, right, 16 + room), fill=BAR)
        centre = (left + right) // 2
        draw.text((centre, top - 14), f"{share:.0%}", fill=INK, font=font(11), anchor="ma")
        draw.text((centre, height - 15), str(number), fill=INK, font=font(12), anchor="ma")
    return np.asarray(image, np.uint8)
