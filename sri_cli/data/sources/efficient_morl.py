"""Objects Room and CLEVR6 from the HDF5 files that EfficientMORL was trained on.

Groups train, val and test, each with `imgs` uint8 [N,H,W,3] and `masks` uint8 [N,E,H,W,C], 0 or
255. Axes: N images, E entities, background first, H, W rows and columns, C copies of a mask (1 or
3).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, Rows, Survey
from sri_cli.data.sources.asked import Job, kept_words
from sri_cli.data.sources.hdf5 import (
    Array,
    find,
    has,
    opened,
    read_present,
    read_rows,
    wrong,
)
from sri_cli.data.sources.picture import Picture, make
from sri_cli.data.sources.records import RecordSet
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError

MASK_AXES = (2, 3)  # H, W
FLAGS = {"train": "--scenes", "val": "--val-scenes", "test": "--test-scenes"}


@dataclass(frozen=True)
class Plan(Survey):
    """`kept`: for each split the images of its group that are used, int64, increasing."""

    kept: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def efficient_morl_job(kind: RecordSet, path: Path, asked: Options) -> Job:
    """The job of such a file; nothing is read before its survey.

    The numbers asked for limit each group to the first so many that pass the filter; None: all.
    """
    asked.check()
    size_px = asked.size_px or kind.size_px
    limits = dict(zip(SPLITS, (asked.scenes, asked.val_scenes, asked.test_scenes), strict=True))
    parameters: dict[str, Any] = {
        "file": path.name,
        "kept": kept_words(kind.most_entities),
        "split": "groups of the file",
        **{split: "all" if limit is None else limit for split, limit in limits.items()},
    }
    header = Header(
        name=kind.name,
        size=size_px,
        source="original",
        background_labels=kind.background_labels,
        parameters=parameters,
        preprocessing=Resizing(size_px, kind.filter, kind.box).words(),
    )
    return Job(
        header,
        survey=functools.partial(survey, kind, path, limits),
        items=functools.partial(pictures, kind, path),
        make=functools.partial(make, Resizing(size_px, kind.filter)),
        survey_again=True,
        items_per_task=8,
        workers=1,
    )


def sources(kind: RecordSet, file: h5py.File, split: str) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Images and masks of a group; SriError when they are missing or of another type or shape."""
    if not has(file, split, h5py.Group):
        there = ", ".join(islice(file, 8)) or "nothing"
        raise SriError(
            f"{file.filename} has no group `{split}`; there is {there}",
            "name a file with the groups train, val and test (imgs and masks in each):"
            " --from FILE; or make pictures like them: --from simulate",
        )
    images, masks = find(file[split], ("imgs",)), find(file[split], ("masks",))
    picture = (kind.height, kind.width)
    if images.dtype != np.uint8 or images.shape[1:] != (*picture, 3) or not len(images):
        raise wrong(images, f"uint8 [N, {kind.height}, {kind.width}, 3]")
    fits = masks.ndim == 5 and (len(masks), *masks.shape[2:4]) == images.shape[:3]
    if masks.dtype not in (np.uint8, np.bool_) or not fits or masks.shape[4] not in (1, 3):
        raise wrong(masks, f"uint8 [{len(images)}, entities, {kind.height}, {kind.width}, 1]")
    if not 1 <= masks.shape[1] <= 255:
        raise wrong(masks, "a number of 1 to 255 entities")
    return images, masks


def survey(kind: RecordSet, path: Path, limits: dict[str, int | None]) -> Plan:
    """Which images of each group are used; reads masks only where a filter needs them."""
    with opened(path) as file, Progress(0, 0, f"check {path.name}", "image") as progress:
        masks = {split: sources(kind, file, split)[1] for split in SPLITS}
        if kind.most_entities is not None:
            progress.expect(sum(map(len, masks.values())))
        kept = {split: kept_rows(kind, masks[split], limits[split], progress) for split in SPLITS}
        for split, rows in kept.items():
            check_limit(masks[split], split, limits[split], len(rows))
    return Plan({split: len(rows) for split, rows in kept.items()}, kept=kept)


def kept_rows(
    kind: RecordSet, masks: h5py.Dataset, limit: int | None, progress: Progress
) -> NDArray[np.int64]:
    """The images of a group that are used; its masks are read as far as it takes."""
    every = np.arange(len(masks))
    if kind.most_entities is None:
        return every[:limit]
    rows: list[int] = []
    before = progress.done
    for row, present in enumerate(read_present(masks, every, entities_present, MASK_AXES)):
        if present.sum() <= kind.most_entities:
            rows.append(row)
        if row % 100 == 99:
            progress.reach(before + row + 1)
        if len(rows) == limit:
            break
    progress.advance(before + len(masks))
    return np.array(rows, np.int64)


def check_limit(masks: h5py.Dataset, split: str, limit: int | None, num_kept: int) -> None:
    """SriError when more images are asked for than a group has."""
    if limit is not None and num_kept < limit:
        raise SriError(
            f"{FLAGS[split]} {limit}: {masks.file.filename} has {len(masks):,} images in {split},"
            f" {num_kept:,} of them kept",
            f"{FLAGS[split]} {num_kept}, or leave it out for all of them",
        )


def entities_present(tile: Array) -> NDArray[np.bool_]:
    """Which entities have a pixel in a part of the masks: [rows,E,H,W,C] to [rows,E]."""
    return np.asarray(tile.any(axis=(2, 3, 4)))


def as_labels(tile: Array) -> NDArray[np.uint8]:
    """A part of the masks [rows,E,H,W,C] as labels [rows,H,W]: the first entity that is set, 0
    where none is."""
    labels = np.zeros((len(tile), *tile.shape[2:4]), np.uint8)
    for entity in reversed(range(tile.shape[1])):
        labels[tile[:, entity].any(axis=-1)] = entity
    return labels


def pictures(
    kind: RecordSet, path: Path, plan: Survey, rows: Rows
) -> Iterator[tuple[str, Picture]]:
    """The images that are missing after `rows`, split by split, in each group's order."""
    assert isinstance(plan, Plan)
    with opened(path) as file:
        for split in SPLITS:
            images, masks = sources(kind, file, split)
            wanted = plan.kept[split][rows[split] :]
            cropped = read_rows(images, wanted, axes=(1, 2), box=kind.box)
            labels = read_rows(masks, wanted, as_labels, axes=MASK_AXES, box=kind.box)
            for row, image, labelled in zip(wanted, cropped, labels, strict=True):
                yield split, Picture(f"{split}-{row}", image, labelled)
