"""The mirror's files, read: which image goes to which split, and the images themselves.

Axes: N images, H, W rows and columns.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, Rows, Survey
from sri_cli.data.sources.asked import InOrder, split_in_order
from sri_cli.data.sources.hdf5 import (
    Array,
    as_factor,
    factors_of,
    find,
    has,
    opened,
    read_present,
    read_rows,
    wrong,
)
from sri_cli.data.sources.mirror_scenes import numbers_of, scenes_of, split_scenes
from sri_cli.data.sources.picture import Picture
from sri_cli.data.transforms import Box, Filter
from sri_cli.errors import SriError

IMAGE, MASK = ("image", "images", "imgs"), ("mask", "masks")
TOWERS_ONLY = "com"  # centres of mass; rooms are as large, and nothing else tells them apart
MOST_LABELS = 256
PRESENT_ROWS = 256  # labels are counted for so many at once


@dataclass(frozen=True)
class MirrorSet:
    """What is made of a file of the mirror."""

    name: str
    side: int  # px of its pictures
    size_px: int  # as the paper uses it
    background_labels: int
    filter: Filter
    unassigned: int | None = None  # a label of pixels that belong to nothing
    published: InOrder | None = None  # None: split by scenes
    most_entities: int | None = None  # visible ones, background included; None: no filter
    box: Box | None = None  # the published crop, for pictures that are not cropped yet
    uncropped: tuple[int, int] | None = None  # their rows and columns


@dataclass(frozen=True)
class Plan(Survey):
    """`splits` int8 [N]: the position of each image's split in SPLITS, -1 for none; `names`: the
    number of its scene."""

    splits: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    names: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    prefix: str = "image"


def sources(kind: MirrorSet, file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Images and masks; SriError when they are missing or of another type or shape."""
    image, mask = find(file, IMAGE), find(file, MASK)
    if kind.name != "shapestacks" and has(file, TOWERS_ONLY, h5py.Dataset):
        raise SriError(
            f"{file.filename} is of shapestacks, not of {kind.name}: it has a `{TOWERS_ONLY}`",
            f"sri prepare shapestacks --from {shlex.quote(file.filename)}",
        )
    sides = image.shape[1:3]
    if sides != kind.uncropped and sides != (kind.side, kind.side):
        raise wrong(image, f"uint8 [N, {kind.side}, {kind.side}, 3]")
    if image.dtype != np.uint8 or image.shape[3:] != (3,) or not len(image):
        raise wrong(image, f"uint8 [N, {sides[0]}, {sides[1]}, 3]")
    if mask.dtype.kind not in "iub" or mask.shape not in (image.shape[:3], (*image.shape[:3], 1)):
        raise wrong(mask, f"integers {[*image.shape[:3], 1]}")
    return image, mask


def survey(kind: MirrorSet, path: Path, asked: Options) -> Plan:
    """Which image goes to which split; reads factors, and masks only where a filter needs them."""
    with opened(path) as file, Progress(0, 0, f"check {path.name}", "image") as progress:
        image, mask = sources(kind, file)
        if kind.published is None:
            scenes = scenes_of(file, len(image), progress)
            splits = split_scenes(scenes, numbers_of(asked, scenes.count), asked.seed)
            return Plan(
                counts_of(splits),
                (),
                scenes.rule,
                splits=splits,
                names=scenes.numbers,
                prefix=scenes.prefix,
            )
        split = split_in_order(asked, kind.published)
        keep = kept(kind, file, mask, progress)
    splits = np.full(len(keep), -1, np.int8)
    for name, row in split.assign(enumerate(keep.tolist())):
        splits[row] = SPLITS.index(name)
    counts = counts_of(splits)
    held = f"{path} has {len(keep):,} images ({int(keep.sum()):,} of them kept)"
    split.check(held, len(keep), counts)
    return Plan(counts, splits=splits, names=np.arange(len(keep)))


def counts_of(splits: NDArray[np.int8]) -> dict[str, int]:
    """Images in each split."""
    return {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)}


def kept(
    kind: MirrorSet, file: h5py.File, mask: h5py.Dataset, progress: Progress
) -> NDArray[np.bool_]:
    """Which images pass the filter: bool [N]."""
    keep = np.ones(len(mask), np.bool_)
    if kind.most_entities is None:
        return keep
    every = np.arange(len(mask))
    visibility = factors_of(file, len(mask), set(file) - {"visibility"})
    if visibility:
        seen = read_rows(visibility["visibility"], every)
    else:
        seen = read_present(mask, every, functools.partial(labels_present, kind, mask), (1, 2))
    progress.expect(len(mask))
    for row, entities in enumerate(seen):
        keep[row] = entities.sum(dtype=np.float64) <= kind.most_entities
        if row % 1000 == 999:
            progress.reach(row + 1)
    return keep


def labels_present(kind: MirrorSet, mask: h5py.Dataset, tile: Array) -> NDArray[np.bool_]:
    """Which labels are in a part of the masks: [rows,H,W] to [rows,256]."""
    labels = as_labels(kind, mask, tile).reshape(len(tile), -1)
    found = np.zeros((len(tile), MOST_LABELS), np.bool_)
    for begin in range(0, len(tile), PRESENT_ROWS):
        part = labels[begin : begin + PRESENT_ROWS]
        np.put_along_axis(found[begin : begin + PRESENT_ROWS], part.astype(np.intp), True, 1)
    return found


def as_labels(kind: MirrorSet, mask: h5py.Dataset, tile: Array) -> NDArray[np.uint8]:
    """A part of the masks as uint8 [rows,H,W]; SriError for labels that are none."""
    if tile.ndim == 4:
        tile = tile[..., 0]
    low, high = int(tile.min()), int(tile.max())
    if low < 0 or high >= MOST_LABELS:
        raise SriError(
            f"{mask.file.filename}: `{mask.name.strip('/')}` has labels from {low} to {high},"
            f" 0 to {MOST_LABELS - 1} are possible",
            "name a file of this data set: --from FILE",
        )
    labels = tile.astype(np.uint8, copy=False)
    return labels if kind.unassigned is None else np.where(labels == kind.unassigned, 0, labels)


def pictures(
    kind: MirrorSet, path: Path, plan: Survey, rows: Rows
) -> Iterator[tuple[str, Picture]]:
    """The images that are missing after `rows`, in the file's order, with their splits."""
    assert isinstance(plan, Plan)
    with opened(path) as file:
        image, mask = sources(kind, file)
        wanted = missing(plan.splits, rows)
        box = kind.box if image.shape[1:3] == kind.uncropped else None
        images = read_rows(image, wanted, axes=(1, 2), box=box)
        labels = read_rows(
            mask, wanted, functools.partial(as_labels, kind, mask), axes=(1, 2), box=box
        )
        known = factors_of(file, len(image), {*IMAGE, *MASK, "scenario"})
        factors = [read_rows(dataset, wanted, as_factor) for dataset in known.values()]
        for row, picture, labelled, *values in zip(wanted, images, labels, *factors, strict=True):
            name = f"{plan.prefix}-{plan.names[row]}"
            numbers = dict(zip(known, values, strict=True))
            yield SPLITS[plan.splits[row]], Picture(name, picture, labelled, numbers)


def missing(splits: NDArray[np.int8], rows: Rows) -> NDArray[np.int64]:
    """The images that are still to be written, in the file's order."""
    left = [np.flatnonzero(splits == number)[rows[name] :] for number, name in enumerate(SPLITS)]
    return np.sort(np.concatenate(left))
