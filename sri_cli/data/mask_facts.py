"""What the masks of a data file hold: objects in an image, foreground, deviations from the rule.

Masks are read and unpacked a chunk at a time, so that a million images need no more memory than
a few hundred. Axes: N images, H W rows and columns, L the 256 labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import SPLITS, Advance, DataFile, Split
from sri_cli.data.writer import MASK_CHUNK_BYTES

MOST_IMAGES = 20_000  # of a split whose masks are looked at
LABELS = 256


@dataclass
class MaskFacts:
    """What the masks of some images hold, added up block by block."""

    background_labels: int
    images: int = 0
    largest: int = 0  # label
    pixels: int = 0
    foreground: int = 0  # pixels
    deviating: int = 0  # images
    deviating_labels: set[int] = field(default_factory=set)
    objects: Counter[int] = field(default_factory=Counter)  # objects in an image -> images

    def add(self, masks: NDArray[np.uint8]) -> None:
        """Take in masks [N,H,W]."""
        pixels = label_pixels(masks)[:, self.background_labels :]
        deviates = deviating(masks, self.background_labels)
        self.images += len(masks)
        self.largest = max(self.largest, int(masks.max()))
        self.pixels += masks.size
        self.foreground += int(pixels.sum())
        self.deviating += int(deviates.any(axis=1).sum())
        self.deviating_labels |= set(np.flatnonzero(deviates.any(axis=0)).tolist())
        self.objects.update(np.count_nonzero(pixels, axis=1).tolist())


def mask_facts(data: DataFile, advance: Advance = lambda done: None) -> MaskFacts | None:
    """What the masks of all splits hold, from some of the images where there are very many.

    `advance` hears how many were looked at.
    """
    facts = MaskFacts(data.background_labels)
    for split, start, stop in parts(data):
        facts.add(split.mask_rows(start, stop))
        advance(facts.images)
    return facts if facts.images else None


def num_looked_at(data: DataFile) -> int:
    """Of how many images `mask_facts` looks at the masks."""
    return sum(stop - start for _, start, stop in parts(data))


def parts(data: DataFile) -> Iterator[tuple[Split, int, int]]:
    """(split, start, stop) of the masks that are looked at."""
    rows = max(1, MASK_CHUNK_BYTES // data.size**2)  # as writer.py packs them
    for split in map(data.split, SPLITS):
        for start, stop in blocks(len(split), rows) if split.has_masks else ():
            yield split, start, stop


def blocks(count: int, rows: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows from all over a split, about MOST_IMAGES in all at most."""
    starts = range(0, count, rows)
    step = 1 if count <= MOST_IMAGES else -(-count // MOST_IMAGES)
    for start in starts[::step]:
        yield start, min(start + rows, count)


def label_pixels(masks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many pixels each label has in each of the masks [N,...], [N,L]."""
    number = len(masks)
    keys = np.arange(number)[:, None] * LABELS + masks.reshape(number, -1)
    return np.bincount(keys.ravel(), minlength=number * LABELS).reshape(number, LABELS)


def deviating(masks: NDArray[np.uint8], background_labels: int) -> NDArray[np.bool_]:
    """Whether a background label above 0 is seen, but at neither side of the picture, [N,L].

    In Objects Room the first four entities count as background by the published rule, but in
    some images only three are; the fourth is an object then, and a wall always reaches a side.
    """
    if background_labels < 2:
        return np.zeros((len(masks), LABELS), bool)
    deviates = (label_pixels(masks) > 0) & (label_pixels(masks[:, :, [0, -1]]) == 0)
    deviates[:, [0, *range(background_labels, LABELS)]] = False
    return deviates
