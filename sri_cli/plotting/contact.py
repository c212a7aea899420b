"""A data set at a glance: images, the same with their masks, how many objects they hold.

Axes: N images, H W rows and columns; pictures are uint8 with 3 channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.plotting.curves import FAINT, Axis, Canvas, nice_step
from sri_cli.plotting.grid import INK, Picture, below, caption, enlarge, grid
from sri_cli.plotting.palette import slot_colours

COLUMNS = 8
IMAGE_PX = 128  # about: images are enlarged, or reduced, by whole factors
TINT = 0.45
CHART_PX = (560, 200)  # at least
CHART_FRAME = (48, 20, 8, 38)  # left, top, right, bottom margins, px
BAR_PX = 64  # at most
SHARE_PX = 34  # the least room for a bar's share above it
NUMBER_PX = 22  # the least room for a number on the axis
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
    size = images.shape[1]
    big = at_sheet_size(images)
    title = title if big.shape[1] >= size else f"{title} (drawn at {big.shape[1]} px)"
    if masks is None:
        return caption(grid(big, COLUMNS), title)
    tinted = overlay(big, labels_at_sheet_size(masks), background_labels)
    rows = []
    for start in range(0, len(images), COLUMNS):
        part = slice(start, start + COLUMNS)
        rows.append(below([grid(big[part], COLUMNS), grid(tinted[part], COLUMNS)], gap=2))
    chart = bar_chart(objects, max(CHART_PX[0], rows[0].shape[1]))
    return caption(below([below(rows, gap=8), chart], gap=16), f"{title}, and their masks")


def at_sheet_size(images: Picture) -> Picture:
    """[N,H,W,3] about IMAGE_PX large: every pixel a square, or means of squares of pixels."""
    size = images.shape[1]
    if size <= IMAGE_PX:
        return enlarge(images, IMAGE_PX // size)
    factor = -(-size // IMAGE_PX)
    return np.stack([np.asarray(Image.fromarray(image).reduce(factor)) for image in images])


def labels_at_sheet_size(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Masks [N,H,W] as `at_sheet_size` makes their images; of a square the label in its midst."""
    size = masks.shape[1]
    if size <= IMAGE_PX:
        return masks.repeat(IMAGE_PX // size, axis=1).repeat(IMAGE_PX // size, axis=2)
    factor = -(-size // IMAGE_PX)
    midst = np.minimum(np.arange(0, size, factor) + factor // 2, size - 1)
    return masks[:, midst[:, None], midst]


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


def bar_chart(counts: Mapping[int, int], width: int = CHART_PX[0]) -> Picture:
    """How many of the images hold how many objects: a bar for each number, least to most."""
    height, total = CHART_PX[1], sum(counts.values())
    numbers = range(min(counts), max(counts) + 1)
    left, top, right, bottom = CHART_FRAME
    step = min(BAR_PX * 1.4, (width - left - right) / len(numbers))
    end = left + step * len(numbers)
    most = 100 * max(counts.values()) / total
    y = Axis(0.0, most, height - bottom, top + 14)
    canvas = Canvas(width, height)
    canvas.text((0, 2), f"share of {total:,} images", px=12)
    for value in y.ticks():
        canvas.line([(left, y.place(value)), (end, y.place(value))], FAINT, 1)
        canvas.text((left - 6, y.place(value)), f"{value:g}%", anchor="rm", px=11)
    every = 1 if step >= NUMBER_PX else round(nice_step(max(2, NUMBER_PX / step)))
    for place, number in enumerate(numbers):
        centre, share = left + (place + 0.5) * step, 100 * counts.get(number, 0) / total
        if share:
            canvas.bar((centre, y.start), (0.72 * step, y.start - y.place(share)), BAR)
        if step >= SHARE_PX:
            canvas.text((centre, y.place(share) - 3), f"{share:.1f}%", anchor="mb", px=11)
        if number % every == 0:
            canvas.text((centre, y.start + 5), str(number), anchor="ma", px=12)
    canvas.line([(left, y.start), (end, y.start)], INK, 1)
    canvas.text(((left + end) / 2, height - 2), "objects in an image", anchor="mb", px=12)
    return canvas.picture()
