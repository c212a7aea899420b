"""Which images of the mirror's ShapeStacks show the same scene, and which split a scene goes to.

The mirror's file is shuffled, its images are not labelled with their scene, and an image of a
training scene from another side would make a test worthless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, sixth
from sri_cli.data.sources.hdf5 import Array, has, read_rows
from sri_cli.errors import SriError

VIEWS = 16
PUBLISHED = {"train": 13_618, "val": 2_916, "test": 2_916}  # scenes
RUNS = (
    f"{VIEWS} images that follow one another; if the file is shuffled, train, val and test share"
    " scenes"
)
# What a scene is made of, whoever looks at it. Not `visibility`, `num_actual_objects` and
# `pixel_coords`: they follow from the camera.
WORLD = ("com", "rgba", "shape", "size")
NEAR = (12, 20)  # images a scene, on the average, that can be 16 views each
SHUFFLE = 0x5CE4E5  # keeps these random numbers apart from others of the same seed


@dataclass(frozen=True)
class Scenes:
    """The scene of each image int64 [N], numbered as they come; what they are called, and how they
    were found."""

    numbers: NDArray[np.int64]
    prefix: str
    rule: str

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.numbers.max()) + 1


def scenes_of(file: h5py.File, num_images: int, progress: Progress) -> Scenes:
    """By equal world factors; where these tell no scenes apart, by runs of 16 images, which a note
    and the data file say. SriError when there are no such runs either, or nothing at all says that
    the file is of towers."""
    names = [name for name in WORLD if is_world_factor(file, name, num_images)]
    why = f"it has none of {', '.join(WORLD)}"
    if names:
        numbers = number_by_factors(file, names, num_images, progress)
        scenes = Scenes(numbers, "scene", f"images of equal {', '.join(names)}")
        if NEAR[0] <= num_images / scenes.count <= NEAR[1]:
            return scenes
        why = (
            f"by {', '.join(names)} its {num_images:,} images show"
            f" {counted(scenes.count, 'scene')}, not {VIEWS} views of each"
        )
    elif "shapestacks" not in Path(file.filename).name.lower():
        raise SriError(
            f"{file.filename} does not look like ShapeStacks: {why}, nor is that its name",
            "name the mirror's file of shapestacks; if this is a part of it, call it"
            " shapestacks-NAME.hdf5",
        )
    if num_images % VIEWS:
        raise SriError(
            f"{file.filename}: which images show the same scene cannot be told: {why}, and"
            f" {num_images:,} images are no multiple of {VIEWS}",
            "get the file again, or simulate the towers: sri prepare shapestacks --from simulate",
        )
    progress.note(f"Warning: {file.filename}: {why}; scenes are taken to be {RUNS}")
    return Scenes(np.arange(num_images) // VIEWS, "run", RUNS)


def is_world_factor(file: h5py.File, name: str, num_images: int) -> bool:
    """Whether the factor is there for every image, as numbers or short texts."""
    if not has(file, name, h5py.Dataset):
        return False
    dataset = file[name]
    return dataset.dtype.kind in "iufbS" and dataset.shape[:1] == (num_images,)


def number_by_factors(
    file: h5py.File, names: list[str], num_images: int, progress: Progress
) -> NDArray[np.int64]:
    """The same number for images whose factors are all equal: int64 [N]."""
    known: dict[bytes, int] = {}
    numbers = np.empty(num_images, np.int64)
    progress.expect(num_images)
    for row, key in enumerate(keys_of(file, names, num_images)):
        numbers[row] = known.setdefault(key, len(known))
        if row % 1000 == 999:
            progress.reach(row + 1)
    return numbers


def keys_of(file: h5py.File, names: list[str], num_images: int) -> Iterator[bytes]:
    """16 bytes that stand for the factors of each image."""
    every = np.arange(num_images)
    readers = [read_rows(file[name], every, without_negative_zero) for name in names]
    for values in zip(*readers, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for value in values:
            digest.update(value.tobytes())
        yield digest.digest()


def without_negative_zero(values: Array) -> Array:
    """-0.0 equals 0.0, but its bytes do not."""
    return values + 0.0 if values.dtype.kind == "f" else values


def numbers_of(asked: Options, num_scenes: int) -> dict[str, int]:
    """How many scenes each split gets: what is asked for, else the published proportions; beside a
    number of training scenes the others get a sixth of it, as far as their share goes. SriError
    when there are too few."""
    share = {
        split: max(1, round(num_scenes * PUBLISHED[split] / sum(PUBLISHED.values())))
        for split in ("val", "test")
    }
    if asked.scenes is not None:
        share = {split: min(most, sixth(asked.scenes)) for split, most in share.items()}
    val = share["val"] if asked.val_scenes is None else asked.val_scenes
    test = share["test"] if asked.test_scenes is None else asked.test_scenes
    train = max(1, num_scenes - val - test) if asked.scenes is None else asked.scenes
    if train + val + test > num_scenes:
        raise SriError(
            f"{train:,} scenes for training, {val:,} for validation and {test:,} for testing are"
            f" more than the {num_scenes:,} that there are",
            "ask for fewer: --scenes N --val-scenes V --test-scenes T",
        )
    return dict(zip(SPLITS, (train, val, test), strict=True))


def split_scenes(scenes: Scenes, numbers: dict[str, int], seed: int) -> NDArray[np.int8]:
    """For each image the position of its split in SPLITS, -1 for none: int8 [N]. Scenes are
    shuffled; the first are for testing, the next for validation, so that other numbers of training
    scenes leave the tests as they are."""
    order = np.random.default_rng((seed, SHUFFLE)).permutation(scenes.count)
    split_of_scene = np.full(scenes.count, -1, np.int8)
    begin = 0
    for split in ("test", "val", "train"):
        split_of_scene[order[begin : begin + numbers[split]]] = SPLITS.index(split)
        begin += numbers[split]
    return split_of_scene[scenes.numbers]
