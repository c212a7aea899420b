"""Objects Room and CLEVR6 from the published TFRecord files of Multi-Object Datasets.

Axes: H, W rows and columns of a record's picture, E entities, background first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, Rows, Survey
from sri_cli.data.sources.asked import InOrder, Job, kept_words, split_in_order
from sri_cli.data.sources.picture import Picture, make
from sri_cli.data.sources.tfrecord import (
    Faulty,
    Features,
    bytes_of,
    floats_of,
    located,
    num_bytes_of,
    parse_example,
    read_records,
)
from sri_cli.data.transforms import Box, Filter, Resizing
from sri_cli.data.writer import Header

MEGABYTE = 1_000_000
# Each file of the bucket and its number of records, to tell what a cut one lacks.
RECORDS = {
    "objects_room_train.tfrecords": 1_000_000,
    "objects_room_test_empty_room.tfrecords": 922,
    "objects_room_test_six_objects.tfrecords": 922,
    "objects_room_test_identical_color.tfrecords": 922,
    "clevr_with_masks_train.tfrecords": 100_000,
}


@dataclass(frozen=True)
class RecordSet:
    """A published data set: the shape of its records and what is made of them."""

    name: str
    file: str  # within the bucket
    height: int
    width: int
    background_labels: int
    size_px: int  # as the paper uses it
    filter: Filter
    box: Box | None
    published: InOrder
    factors: tuple[str, ...] = ()  # float32 [E]
    most_entities: int | None = None  # visible ones, background included; None: no filter


# Splits as GENESIS made them (of CLEVR it takes the first 70,000); crop and filter of CLEVR6.
SETS = {
    "objects-room": RecordSet(
        name="objects-room",
        file="objects_room/objects_room_train.tfrecords",
        height=64,
        width=64,
        background_labels=4,
        size_px=64,
        filter="bilinear",
        box=None,
        published=InOrder(10_000, 10_000, None, published=True),
    ),
    "clevr6": RecordSet(
        name="clevr6",
        file="clevr_with_masks/clevr_with_masks_train.tfrecords",
        height=240,
        width=320,
        background_labels=1,
        size_px=96,
        filter="bicubic",
        box=(29, 64, 192, 192),
        published=InOrder(10_000, 10_000, 50_000, published=True),
        factors=("x", "y", "z", "rotation", "visibility"),
        most_entities=7,
    ),
}


def records_job(kind: RecordSet, path: Path, asked: Options) -> Job:
    """The job of a TFRecord file. Nothing is read before its survey."""
    split = split_in_order(asked, kind.published)
    resizing = Resizing(asked.size_px or kind.size_px, kind.filter, kind.box)
    kept = kept_words(kind.most_entities)
    header = Header(
        name=kind.name,
        size=resizing.size,
        source="original",
        background_labels=kind.background_labels,
        parameters={"file": path.name, "kept": kept, **split.parameters()},
        preprocessing=resizing.words(),
    )
    return Job(
        header,
        survey=functools.partial(survey, kind, path, split),
        items=functools.partial(pictures, kind, path, split, resizing),
        make=functools.partial(make, Resizing(resizing.size, kind.filter)),
        items_per_task=8,
        workers=1,  # reading bounds it: handing pictures to others gained nothing
    )


def survey(kind: RecordSet, path: Path, split: InOrder) -> Survey:
    """Read the file as far as it is needed, check every record, count what each split gets."""
    counts = dict.fromkeys(SPLITS, 0)
    num_records = 0
    size = path.stat().st_size // MEGABYTE if path.is_file() else 0
    with Progress(size, 0, f"check {path.name}", "MB") as progress:

        def tell(position: int) -> None:
            progress.reach(position // MEGABYTE)

        def read() -> Iterator[tuple[int, bool]]:
            nonlocal num_records
            for (num_records, _), keep in kept_records(kind, path, tell):
                yield num_records, keep

        for name, _ in split.assign(read()):
            counts[name] += 1
    kept = f" ({sum(counts.values()):,} of them kept)" if kind.most_entities else ""
    split.check(f"{path} has {num_records:,} records{kept}", num_records, counts)
    return Survey(counts)


def pictures(
    kind: RecordSet, path: Path, split: InOrder, resizing: Resizing, _: Survey, rows: Rows
) -> Iterator[tuple[str, Picture]]:
    """The records that are missing after `rows`, with their splits."""
    seen = dict.fromkeys(SPLITS, 0)
    for name, (number, features) in split.assign(kept_records(kind, path)):
        seen[name] += 1
        if seen[name] > rows[name]:
            with located(path, number):
                yield name, read_picture(kind, resizing, number, features)


def kept_records(
    kind: RecordSet, path: Path, tell: Any = None
) -> Iterator[tuple[tuple[int, Features], bool]]:
    """((number, features), whether the filter keeps it) of each record."""
    records = read_records(path, tell, RECORDS.get(path.name))
    for number, data in enumerate(records, start=1):
        with located(path, number):
            features = parse_example(data)
            check_shape(kind, features)
            keep = (
                kind.most_entities is None
                or floats_of(features, "visibility").sum() <= kind.most_entities
            )
        yield (number, features), bool(keep)


def check_shape(kind: RecordSet, features: Features) -> None:
    """Faulty when this is a record of another data set."""
    area = kind.height * kind.width
    image, masks = (num_bytes_of(features, name) for name in ("image", "mask"))
    if image != 3 * area or masks % area or not area <= masks <= 255 * area:
        raise Faulty(
            f"no record of {kind.name}: it has an image of {image:,} and masks of {masks:,} bytes,"
            f" {kind.height}x{kind.width}x3 and a number of {kind.height}x{kind.width} are wanted",
            f"name a file of {kind.name}: --from FILE",
        )


def read_picture(kind: RecordSet, resizing: Resizing, number: int, features: Features) -> Picture:
    """Cropped picture and labels: the first entity whose mask is set, 0 where none is."""
    image = bytes_of(features, "image").reshape(kind.height, kind.width, 3)
    masks = bytes_of(features, "mask").reshape(-1, kind.height, kind.width)
    labels = np.zeros(resizing.crop(masks[0]).shape, np.uint8)
    for entity in reversed(range(1, len(masks))):
        labels[resizing.crop(masks[entity]) > 127] = entity
    labels[resizing.crop(masks[0]) > 127] = 0
    factors = {name: floats_of(features, name) for name in kind.factors}
    image = np.ascontiguousarray(resizing.crop(image))
    return Picture(f"record-{number}", image, labels, factors)
