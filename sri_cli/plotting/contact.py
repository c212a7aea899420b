"""A data set at a glance: images, and below them the same with their masks.

Axis legend: N images, H W rows and columns; images are uint8 with 3 channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sri_cli.plotting.figures import Panel, images_that_fit
from sri_cli.plotting.grid import Pixels, enlarge
from sri_cli.plotting.palette import slot_colours

COLUMNS = 8
IMAGE_PX = 128  # smaller images are enlarged before masks are drawn, so that outlines stay thin
TINT = 0.45


def contact_panel(
    images: Pixels,
    masks: NDArray[np.uint8] | None,
    background_labels: int,
    caption: str = "",
    columns: int = COLUMNS,
) -> Panel:
    """Rows of images, each above the same images with their masks.

    Args:
        images: [N,H,W,3].
        masks: Labels [N,H,W]; None where they are unknown.
        background_labels: Labels below this number are background.
        caption: Stands above.
        columns: Images in a row, as far as a page is wide.
    """
    times = max(1, IMAGE_PX // images.shape[1])
    images = enlarge(images, times)
    parts = [images]
    if masks is not None:
        labels = masks.repeat(times, axis=1).repeat(times, axis=2)
        parts.append(overlay(images, labels, background_labels))
    columns = min(columns, images_that_fit(images.shape[1])[0])
    rows = [
        list(part[start : start + columns])
        for start in range(0, len(images), columns)
        for part in parts
    ]
    return Panel(rows, caption, together=len(parts))


def overlay(images: Pixels, masks: NDArray[np.uint8], background_labels: int) -> Pixels:
    """Objects tinted in the palette's colours, with outlines; white lines part the background.

    images [N,H,W,3], masks [N,H,W].
    """
    colours = slot_colours(max(1, 256 - background_labels))
    is_object = masks >= background_labels
    colour = colours[np.where(is_object, masks.astype(int) - background_labels, 0)]
    mixed = (images * (1 - TINT) + colour * TINT + 0.5).astype(np.uint8)
    out = np.where(is_object[..., None], mixed, images)
    edge = differs(masks)
    out = np.where((edge & is_object)[..., None], colour, out)
    return np.where((edge & ~is_object & ~differs(is_object))[..., None], 255, out)


def differs(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels [N,H,W] of which a neighbour, left, right, above or below, has another label."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, :, 1:] != labels[:, :, :-1], labels[:, 1:] != labels[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return edge
