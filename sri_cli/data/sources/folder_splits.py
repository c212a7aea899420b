"""Which images of a folder are to train on, to validate and to test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, sixth
from sri_cli.data.sources.folder_files import Entry
from sri_cli.errors import SriError

SHUFFLE_STREAM = 2  # keeps this permutation apart from others of the same seed
FEWER = "ask for fewer: --scenes N --val-scenes V --test-scenes T"
Parted = dict[str, list[Entry]]


def shares(count: int, asked: Options, what: str = "images") -> dict[str, int]:
    """How many of `count` images each split gets; SriError when they are too few.

    Validation and test get a sixth of asked training images, 2 at least, and without --scenes a
    tenth of all, 1 at least.
    """
    if count < len(SPLITS):
        raise SriError(
            f"too few {what} ({count}): train, val and test need one each", "add more images"
        )
    beside = max(1, count // 10) if asked.scenes is None else sixth(asked.scenes)
    val = beside if asked.val_scenes is None else asked.val_scenes
    test = beside if asked.test_scenes is None else asked.test_scenes
    train = max(1, count - val - test) if asked.scenes is None else asked.scenes
    if train + val + test > count:
        raise SriError(
            f"{train:,} train, {val:,} val and {test:,} test images are asked for, there are"
            f" {count:,} {what}",
            FEWER,
        )
    return {"train": train, "val": val, "test": test}


def own_shares(counts: Mapping[str, int], asked: Options) -> dict[str, int]:
    """How many of the images in a folder's own splits are taken: all, or as many as asked for.

    --scenes alone also asks for a sixth in the others, as far as they go.
    """
    beside = None if asked.scenes is None else sixth(asked.scenes)
    wanted = {"train": asked.scenes, "val": asked.val_scenes, "test": asked.test_scenes}
    for split, number in wanted.items():
        if number is not None and number > counts[split]:
            raise SriError(
                f"{number:,} {split} images are asked for, there are {counts[split]:,}", FEWER
            )
    return {split: wanted[split] or min(counts[split], beside or counts[split]) for split in SPLITS}


def check_numbers(entries: Sequence[Entry], own: bool, asked: Options) -> None:
    """SriError for more images than there are files, before any is read."""
    if own:
        own_shares({split: len(parted) for split, parted in by_split(entries).items()}, asked)
    else:
        shares(len(entries), asked)


def part(good: Sequence[Entry], own: bool, asked: Options) -> Parted:
    """The folder's own splits, or new ones; what is taken, a seeded permutation says.

    Each split is sorted by path. A folder's own splits are never mixed, even when one of them
    has nothing that can be read.
    """
    rng = np.random.default_rng((asked.seed, SHUFFLE_STREAM))
    if own:
        there = by_split(good)
        numbers = own_shares({split: len(there[split]) for split in SPLITS}, asked)
        return {s: chosen(there[s], rng.permutation(len(there[s]))[: numbers[s]]) for s in SPLITS}
    numbers = shares(len(good), asked, "readable images")
    order, test_and_val = rng.permutation(len(good)), numbers["test"] + numbers["val"]
    return {
        "train": chosen(good, order[test_and_val : test_and_val + numbers["train"]]),
        "val": chosen(good, order[numbers["test"] : test_and_val]),
        "test": chosen(good, order[: numbers["test"]]),
    }


def by_split(entries: Sequence[Entry]) -> Parted:
    """The entries of each of the folder's own splits."""
    return {split: [entry for entry in entries if entry.split == split] for split in SPLITS}


def chosen(entries: Sequence[Entry], which: np.ndarray) -> list[Entry]:
    """Those entries, in their own order."""
    return [entries[index] for index in sorted(which.tolist())]
