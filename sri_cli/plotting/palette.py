"""One colour per slot index, the same in every figure, apart for colour-blind readers too.

Axis legend: K slots, H W pixels; `...` any leading axes.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's eight (black made grey, to be seen beside dark scenes), then four of Tol's.
BASE = (
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


def slot_colours(slots: int) -> NDArray[np.uint8]:
    """[K,3]; slot k has the same colour whatever the number of slots."""
    return np.array([_colour(k) for k in range(slots)], dtype=np.uint8).reshape(-1, 3)


def blend_masks(masks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Masks [...,K,H,W], summing to 1 over K, to an image [...,H,W,3] of blended slot colours."""
    colours = slot_colours(masks.shape[-3]).astype(np.float32)
    blended = np.einsum("...khw,kc->...hwc", masks, colours)
    return np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def _colour(k: int) -> tuple[int, int, int]:
    if k < len(BASE):
        return BASE[k]
    # Far beyond any training K: hues that never meet, at two brightnesses.
    red, green, blue = colorsys.hsv_to_rgb(k * GOLDEN_ANGLE % 1, 0.65, 0.9 if k % 2 else 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)
