"""Test images for figures: their reconstructions, rollouts, masks and slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import DataFile
from sri_cli.generation.reconstruct import Seen, seen
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.plotting.figure_scenes import title_of
from sri_cli.plotting.sheet import Panels
from sri_cli.plotting.sheet_blocks import row_panels, segmentation_panels

SPLIT = "test"


class Blocks(NamedTuple):
    """What is drawn, and what is to be said of it."""

    blocks: list[Panels]
    notes: list[str]


def rollout_blocks(
    trained: Sequence[TrainedRun], data: Sequence[DataFile], num: int, seed: int
) -> Blocks:
    """Three rows for each run, two for one that imagines nothing from an image."""
    found = Blocks([], [])
    for one, file in zip(trained, data, strict=True):
        images = seen(one, file, SPLIT, num, seed)
        rows = [("input", images.inputs), ("reconstruction", images.pictures)]
        if images.imagined is None:
            name = one.run_dir.name
            found.notes.append(f"{name} imagines nothing from an image: drawn without rollouts")
        else:
            rows.append(("imagination rollout", images.imagined))
        found.blocks.append(row_panels(rows, title_of(one)))
    return found


def segmentation_blocks(
    trained: Sequence[TrainedRun], data: Sequence[DataFile], num: int, seed: int
) -> Blocks:
    """A row for each image; without true masks where the data have none."""
    found = Blocks([], [])
    for one, file in zip(trained, data, strict=True):
        images = seen(one, file, SPLIT, num, seed)
        truth = true_masks(file, images)
        if truth is None:
            note = f"{file.caption} holds no masks: drawn without the true ones"
            found.notes.extend([note] * (note not in found.notes))
        found.blocks.append(
            segmentation_panels(
                images.inputs,
                images.attention,
                images.masks,
                images.pictures,
                images.rgb,
                truth,
                title_of(one),
            )
        )
    return found


def true_masks(data: DataFile, images: Seen) -> NDArray[np.uint8] | None:
    """Labels [N,H,W] of the images, if the data have them."""
    split = data.split(SPLIT)
    if not split.has_masks:
        return None
    rows = [split.mask_rows(place, place + 1) for place in images.places.tolist()]
    return np.concatenate(rows)
