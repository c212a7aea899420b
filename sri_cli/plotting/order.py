"""The paper's Figure 4: random scenes, taken apart into their slots in generation order.

Axis legend: N scenes, K slots, H W pixels. Masks sum to 1 over K; pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sri_cli.plotting.grid import Picture, beside, caption, draw_text, enlarge, grid
from sri_cli.plotting.palette import blend_masks, slot_colours

CELL_PX = 72  # at least
SWATCH_PX = 5
MAX_SLOTS = 24  # columns; the rest is said, not drawn


def order_figure(
    images: Picture, rgb: Picture, masks: NDArray[np.floating], text: str = ""
) -> Picture:
    """One row per scene: image, masks blended in slot colours, each slot's contribution.

    images [N,H,W,3], rgb [N,K,H,W,3], masks [N,K,H,W] of the same scenes.
    """
    slots = masks.shape[1]
    shown = min(slots, MAX_SLOTS)
    scale = max(1, -(-CELL_PX // images.shape[1]))
    parts = contributions(rgb[:, :shown], masks[:, :shown])
    colours = slot_colours(shown)
    columns = [
        _column("image", images, scale),
        _column("masks", blend_masks(masks), scale),
        *(_column(str(k + 1), parts[:, k], scale, colours[k]) for k in range(shown)),
    ]
    figure = beside([beside(columns[:2], gap=2), beside(columns[2:], gap=2)], gap=10)
    if slots > shown:
        text = f"{text} (slots {shown + 1} to {slots} not drawn)"
    return caption(figure, text)


def contributions(rgb: Picture, masks: NDArray[np.floating]) -> Picture:
    """What each slot adds to the scene, on white: mask * rgb + (1 - mask) * 255, [N,K,H,W,3]."""
    weight = masks[..., None].astype(np.float32)
    return np.rint(255 + weight * (rgb.astype(np.float32) - 255)).clip(0, 255).astype(np.uint8)


def _column(
    name: str, images: Picture, scale: int, colour: NDArray[np.uint8] | None = None
) -> Picture:
    """A headed column of images [N,H,W,3], with the slot's colour under its number."""
    body = grid(enlarge(images, scale), columns=1, gap=2)
    width = body.shape[1]
    swatch = np.full((SWATCH_PX + 2, width, 3), 255, np.uint8)
    if colour is not None:
        swatch[:SWATCH_PX] = colour
    return np.concatenate([draw_text([name], width), swatch, body], axis=0)
