"""Arrays of scenes to blocks of a sheet: grids, slots in order, images as a model sees them.

Axis legend: N scenes, K slots, H W pixels. Masks sum to 1 over K; pictures are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sri_cli.plotting.grid import Picture
from sri_cli.plotting.order import contributions
from sri_cli.plotting.palette import blend_masks, slot_colours
from sri_cli.plotting.sheet import Panels

Masks = NDArray[np.floating]
Labels = NDArray[np.uint8]
WIDER = 2.0  # a grid of scenes has so many columns per row


def grid_columns(num: int, most: int) -> int:
    """Columns of a grid of `num` scenes, of which `most` fit side by side."""
    return min(most, num, math.ceil(math.sqrt(WIDER * num)))


def grid_panels(
    images: Picture, caption: str, columns: int, names: Sequence[str] | None = None
) -> Panels:
    """Scenes [N,H,W,3] row by row, each with its name below if there are names."""
    starts = range(0, len(images), columns)
    cells = [list(images[i : i + columns]) for i in starts]
    below = [] if names is None else [list(names[i : i + columns]) for i in starts]
    return Panels(cells, caption, names=below)


def row_panels(rows: Sequence[tuple[str, Picture]], caption: str) -> Panels:
    """Named rows of as many pictures [N,H,W,3] each."""
    return Panels([list(images) for _, images in rows], caption, [name for name, _ in rows])


def order_panels(images: Picture, rgb: Picture, masks: Masks, caption: str) -> Panels:
    """A row per scene: image, masks in slot colours, what each slot adds, in generation order.

    images [N,H,W,3], rgb [N,K,H,W,3], masks [N,K,H,W].
    """
    slots = masks.shape[1]
    parts, blended = contributions(rgb, masks), blend_masks(masks)
    return Panels(
        [[images[i], blended[i], *parts[i]] for i in range(len(images))],
        caption,
        columns=["image", "masks", *_numbers(slots)],
        slots=[None, None, *range(slots)],
        breaks=frozenset({2}),
    )


def segmentation_panels(
    inputs: Picture,
    attention: Masks,
    masks: Masks,
    reconstructed: Picture,
    rgb: Picture,
    truth: Labels | None,
    caption: str,
) -> Panels:
    """A row per image: as the model takes it apart and puts it together again, and the truth.

    inputs, reconstructed [N,H,W,3]; attention, masks [N,K,H,W]; rgb [N,K,H,W,3]; truth [N,H,W],
    left out when None.
    """
    slots = masks.shape[1]
    columns: list[tuple[str, Picture]] = [
        ("input", inputs),
        ("attention masks", blend_masks(attention)),
        ("decoded masks", blend_masks(masks)),
    ]
    if truth is not None:
        true = [label_picture(*pair) for pair in zip(truth, masks, strict=True)]
        columns.append(("true masks", np.stack(true)))
    columns.append(("reconstruction", reconstructed))
    whole = len(columns)
    parts = contributions(rgb, masks)
    return Panels(
        [[*(c[i] for _, c in columns), *parts[i]] for i in range(len(inputs))],
        caption,
        columns=[*(name for name, _ in columns), *_numbers(slots)],
        slots=[*[None] * whole, *range(slots)],
        breaks=frozenset({whole}),
    )


def label_picture(truth: Labels, masks: Masks) -> Picture:
    """True labels [H,W], each in the colour of the slot whose mask fits it best, [H,W,3].

    masks [K,H,W]. No two labels share a slot; labels left over get colours that no slot has.
    """
    present = np.unique(truth)
    strongest = masks.argmax(axis=0)
    inside = truth == present[:, None, None]
    slots = strongest == np.arange(len(masks))[:, None, None]
    both = (inside[:, None] & slots).sum(axis=(2, 3))
    either = (inside[:, None] | slots).sum(axis=(2, 3))
    rows, columns = linear_sum_assignment(both / np.maximum(either, 1), maximize=True)
    slot_of = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    rest = iter(range(len(masks), len(masks) + len(present)))
    index = [slot_of[i] if i in slot_of else next(rest) for i in range(len(present))]
    colours = slot_colours(max(index) + 1)[index]
    picture: Picture = colours[np.searchsorted(present, truth)]
    return picture


def _numbers(slots: int) -> list[str]:
    return [str(k + 1) for k in range(slots)]
