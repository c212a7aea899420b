"""How multi-object data sets are published: their files, shapes, crops and splits.

Axes: H, W rows and columns of an image, E entities, background first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import SPLITS
from sri_cli.data.download import Remote, download
from sri_cli.data.source import Options, Scenario, Source, sixth
from sri_cli.data.transforms import Box, Filter, Resizing
from sri_cli.errors import SriError

T = TypeVar("T")
OTHER_SOURCES = "use --from simulate, or --from FILE for a local copy"


@dataclass(frozen=True)
class PositionSplit:
    """A split by position: the first `test` images, the next `val`, then `train`; None: the rest.

    The published rule counts all images of a file, also those that a filter drops; a split with
    other numbers counts only the images that are kept.
    """

    test: int | None
    val: int
    train: int | None
    published: bool = True
    trains_on_test: bool = False  # on images that may be test images of the usual split

    def changed_by(self, options: Options) -> PositionSplit:
        """The split with the user's numbers; the published one if there are none."""
        train, val, test = (options.given[split] for split in SPLITS)
        if options.test_only:
            return PositionSplit(test, 0, 0, published=False)
        if train is None and val is None and test is None:
            return self
        default = sixth(train) if train is not None else val or test or 1
        test, val = test or default, val or default
        overlaps = test + val < (self.test or 0)
        return PositionSplit(test, val, train, published=False, trains_on_test=overlaps)

    def assign(self, images: Iterable[tuple[T, bool]]) -> Iterator[tuple[str | None, T]]:
        """(split, image) of each (image, whether it is kept), up to the end of the split; None for
        those that are not kept."""
        first_val = math.inf if self.test is None else self.test
        position, first_train = 0, first_val + self.val
        for image, keep in images:
            if self.train is not None and position >= first_train + self.train:
                return
            evaluation = "test" if position < first_val else "val"
            split = evaluation if position < first_train else "train"
            yield split if keep else None, image
            position += keep or self.published

    def check(self, path: Path, num_images: int, counts: Mapping[str, int]) -> None:
        """SriError if a file of `num_images` is too short for the split.

        `counts`: the images of each split that are kept.
        """
        needed = {
            "test": self.test or 1,
            "val": self.val,
            "train": 1 if self.train is None else self.train,
        }
        if self.published:
            enough = num_images >= sum(needed.values()) and all(counts.values())
        else:
            enough = all(counts[split] >= number for split, number in needed.items())
        if not enough:
            rule = "the published split" if self.published else "a split"
            only = self.val == self.train == 0
            raise SriError(
                f"{path} has {num_images:,} images ({sum(counts.values()):,} of them kept), too few"
                f" for {rule} of {self.test or 'some'} test, {self.val:,} validation and"
                f" {'more' if self.train is None else self.train} training images",
                "choose a smaller number: --test-scenes T"
                if only
                else "choose another split: --test-scenes T --val-scenes V --scenes N",
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before models are compared."""
        note = (
            "training images of this split may be test images of the usual one: do not test models"
            " that are trained on it with a file of the usual one"
        )
        return (note,) * self.trains_on_test

    def parameters(self) -> dict[str, object]:
        """The split as recorded in the data file."""
        if self.val == self.train == 0:
            return {"split": "test only", "test": "all" if self.test is None else self.test}
        return {
            "split": "as published" if self.published else "in order: test, val, train",
            "test": self.test,
            "val": self.val,
            "train": "the rest" if self.train is None else self.train,
        }


@dataclass(frozen=True)
class PublishedSet:
    """A published data set: its files, the shape of its images, and how the paper uses them."""

    name: str
    mirror_file: str = ""  # "": not in the mirror
    mirror_sha256: str = ""
    mirror_px: int = 64
    record_file: str = ""  # within the bucket; "": not published there
    records: int = 0  # of that file; 0: their number is not known
    height: int = 64
    width: int = 64
    channels: int = 3
    entities: int | None = None  # E; None: any number, as test sets have others
    entities_third: bool = False  # masks are [H,W,E,1], not [E,H,W,1]
    factors: tuple[str, ...] = ()  # of records, float32 [E] or [E,...]
    background_labels: int = 1
    unassigned_label: int | None = None  # of pixels that belong to nothing
    split: PositionSplit | None = None  # None: by scene
    max_entities: int | None = None  # visible ones, with the background; None: no filter
    crop: Box | None = None
    size_px: int = 64
    filter: Filter = "bilinear"

    @property
    def kept(self) -> str:
        """Which images are kept, as recorded in the data file."""
        return "all" if self.max_entities is None else f"at most {self.max_entities} visible"


# No split of Multi-dSprites and Tetrominoes is published: this one has GENESIS' evaluation images.
FIRST_60_000 = PositionSplit(10_000, 10_000, 60_000, published=False)
# Splits as GENESIS made them (of CLEVR it takes the first 70,000); crop and filter of CLEVR6.
# Beside the mirror's towers lies `shapestacks-metadata.npy`, a pickle: it can run code when it is
# opened and only holds the types of the factors, so it is never downloaded.
SETS = {
    "shapestacks": PublishedSet(
        name="shapestacks",
        mirror_file="shapestacks-full.hdf5",
        mirror_sha256="09433b2e629744fc2aaa81d5f922d8b0509500bcb0e49d884675f4f8d52c1928",
        unassigned_label=7,
    ),
    "objects-room": PublishedSet(
        name="objects-room",
        mirror_file="objects_room_train-full.hdf5",
        mirror_sha256="5bddda03ebb48dca426071317c3d3ed1fb1a6683fd20c5fdf57a0a8c04bf2444",
        record_file="objects_room/objects_room_train.tfrecords",
        records=1_000_000,
        background_labels=4,
        split=PositionSplit(10_000, 10_000, None),
    ),
    "tetrominoes": PublishedSet(
        name="tetrominoes",
        record_file="tetrominoes/tetrominoes_train.tfrecords",
        height=35,
        width=35,
        entities=4,
        factors=("x", "y", "shape", "visibility", "color"),
        split=FIRST_60_000,
        size_px=32,
    ),
    "clevr6": PublishedSet(
        name="clevr6",
        mirror_file="clevr_10-full.hdf5",
        mirror_sha256="419dd56bc7791541daaa246d4b60a00ab3d9c0b9a1330c8b8a015350130240c2",
        mirror_px=128,
        record_file="clevr_with_masks/clevr_with_masks_train.tfrecords",
        records=100_000,
        height=240,
        width=320,
        entities=11,
        factors=("x", "y", "z", "rotation", "visibility"),
        split=PositionSplit(10_000, 10_000, 50_000),
        max_entities=7,
        crop=(29, 64, 192, 192),
        size_px=96,
        filter="bicubic",
    ),
}
SETS["clevr10"] = replace(SETS["clevr6"], name="clevr10", max_entities=None)
# Data set -> its variants -> their names as data sets; the first is the default.
VARIANTS = {
    "multi-dsprites": {
        "colored_on_grayscale": "multi-dsprites",
        "colored_on_colored": "multi-dsprites-colored-on-colored",
        "binarized": "multi-dsprites-binarized",
    },
    "clevrtex": {
        "full": "clevrtex",
        **{key: f"clevrtex-{key}" for key in ("pbg", "vbg", "grassbg", "camo", "outd")},
    },
}
for (_variant, _name), _entities in zip(VARIANTS["multi-dsprites"].items(), (6, 5, 4), strict=True):
    SETS[_name] = PublishedSet(
        name=_name,
        record_file=f"multi_dsprites/multi_dsprites_{_variant}.tfrecords",
        channels=1 if _variant == "binarized" else 3,
        entities=_entities,
        entities_third=True,
        factors=("x", "y", "shape", "visibility", "orientation", "scale", "color"),
        split=FIRST_60_000,
    )


@dataclass(eq=False)
class ImageSource(Source):
    """A published file of single images, whose items are finished scenes.

    A published test set is a data set of its own, without training images.
    """

    kind: PublishedSet
    path: Path
    options: Options
    remote: bool = False  # the file is downloaded to `path` first
    offline: bool = False  # only a file downloaded before is used

    items_per_task = 8
    max_workers = 1  # reading is the bottleneck: more workers did not help

    def __post_init__(self) -> None:
        found = re.match(r"objects_room_test_(\w+)\.", self.path.name)
        if found:
            self.options = replace(self.options, test_only=True)
        self.test_only = self.options.test_only
        suffix = f"-{found[1].replace('_', '-')}" if found else "-test" * self.test_only
        self.name = self.kind.name + suffix
        self.base: dict[str, Any] = {"set": self.kind.name} if suffix else {}  # parameters
        if not self.remote and self.path.is_file():
            self.base["bytes"] = self.path.stat().st_size  # another file may have this name
        size_px = self.options.size_px or self.kind.size_px
        self.resizing = Resizing(size_px, self.kind.filter, self.kind.crop)

    def download(self, root: str, file: str, sha256: str | None = None) -> None:
        """Download a remote source from the web folder `root`."""
        if self.remote:
            remote = Remote(f"{root.rstrip('/')}/{file}", sha256)
            download(remote, self.path, instead=OTHER_SOURCES, offline=self.offline)

    def make(self, item: Scenario) -> Scenario:
        return item


def scene_of(
    name: str,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    factors: Mapping[str, Any],
    resizing: Resizing,
) -> Scenario:
    """A scene of one view: an image [H,W,3] and its labels [H,W], cropped and resized."""
    return Scenario(
        name,
        resizing.image(image)[None],
        resizing.labels(labels)[None],
        {key: np.asarray(values)[None] for key, values in factors.items()},
    )
