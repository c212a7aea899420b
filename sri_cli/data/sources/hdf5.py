"""Data sets that others publish as HDF5: the files of a mirror, and EfficientMORL's.

The mirror (Objects Room, CLEVR, ShapeStacks) has `image` uint8 [N,H,W,3], `mask` integers [N,H,W,1]
or [N,H,W] and factors [N,...]. EfficientMORL's files have groups train, val and test, each with
`imgs` uint8 [N,H,W,3] and `masks` uint8 [N,E,H,W,C], 0 or 255.

Axes: N images, H, W rows and columns, E entities, background first, C copies of a mask (1 or 3).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS, reason_of
from sri_cli.data.source import Options, Rows, Scenario
from sri_cli.data.sources.published import ImageSource, scene_of
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, SriFailure
from sri_cli.rng import stream

MIRROR = "https://data-download.compute.dtu.dk/multi_object_datasets/"
IMAGE, MASK = ("image", "images", "imgs"), ("mask", "masks")

# Scenes of the mirror's ShapeStacks. The file is shuffled and does not say which images show the
# same scene, but images of a training scene must not be in the test split.
VIEWS = 16
NUM_SCENES, NUM_EVALUATION_SCENES = 19_450, 2_916  # published; the latter for val and test each
# Factors that do not depend on the camera, unlike `visibility` and `pixel_coords`.
SCENE_FACTORS = ("com", "rgba", "shape", "size")
IMAGES_PER_SCENE = (12, 20)  # on average; outside this range the factors do not identify scenes
SHUFFLE = 0x5CE4E5  # separates this permutation from others of the same seed

BLOCK_BYTES = 64 * 2**20  # read at once
MAX_CHUNK_ROW_BYTES = 2**30  # rows that share a chunk are read at once up to this size
CACHE_BYTES = 16 * 2**20  # of chunks; one must fit, or HDF5 reads byte by byte
MAX_FACTOR_BYTES = 4096  # per image
PROGRESS_ROWS = 256
ANOTHER_FILE = "choose a file of this data set: --from FILE"


class Plan(NamedTuple):
    """What to take from a group: `splits` int8 [N], the index of each image's split in SPLITS or
    -1; `names` [N] of scenes, after a prefix."""

    splits: NDArray[np.int8]
    names: NDArray[np.int64]
    prefix: str


class Hdf5Source(ImageSource):
    """A file of the mirror or of EfficientMORL; `remote`: downloaded from the mirror to `path`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.by_group = not (self.remote or has_images(self.path))
        self.groups = (("test",) if self.test_only else SPLITS) if self.by_group else ("/",)
        self.header = Header(
            name=self.name,
            size=self.resizing.size,
            source="original" if self.by_group else "mirror",
            background_labels=self.kind.background_labels,
            parameters={"file": self.path.name, **self.base, **self._split_parameters()},
            preprocessing="",  # depends on the file
        )

    def _split_parameters(self) -> dict[str, Any]:
        given = self.options.given
        if self.by_group:
            default = "all" if given["train"] is None else "a sixth of train"
            limits = {split: given[split] or default for split in self.groups}
            rule = "test only" if self.test_only else "groups of the file"
            return {"kept": self.kind.kept, "split": rule, **limits}
        if self.kind.split is not None:
            split = self.kind.split.changed_by(self.options)
            return {"kept": self.kind.kept, **split.parameters()}
        scaled = {split: "as published, to scale" if n is None else n for split, n in given.items()}
        rule = "scenes, shuffled by the seed; not the official lists"
        if given["train"] is not None:  # files of earlier versions have other training scenes
            rule += "; training scenes from the end"
        return {"split": rule, **scaled, "seed": self.options.seed}

    def _crop(self, image: h5py.Dataset) -> Resizing:
        """The published crop, unless the images are cropped already."""
        cropped = image.shape[1:3] == (self.kind.mirror_px, self.kind.mirror_px)
        return replace(self.resizing, box=None) if cropped else self.resizing

    def _datasets(self, file: h5py.File, name: str) -> tuple[h5py.Dataset, h5py.Dataset]:
        """Images and masks of a group; SriError if they are missing or of another type or shape."""
        kind = self.kind
        if not isinstance(file.get(name), h5py.Group):
            content = ", ".join(itertools.islice(file, 8)) or "nothing"
            raise SriError(
                f"{self.path} has neither images nor a group `{name}`, but {content}", ANOTHER_FILE
            )
        group = file[name]
        if kind.name != "shapestacks" and "com" in group:  # rooms have the same size
            raise SriError(f"{self.path} is of shapestacks, not of {kind.name}", ANOTHER_FILE)
        image, mask = _find(group, IMAGE), _find(group, MASK)
        sides = image.shape[1:3]
        allowed = {(kind.height, kind.width), (kind.mirror_px, kind.mirror_px)}
        if (
            image.dtype != np.uint8
            or image.shape[3:] != (3,)
            or sides not in allowed
            or not len(image)
        ):
            expected = " or ".join(f"[N, {h}, {w}, 3]" for h, w in sorted(allowed))
            raise _unexpected(image, f"uint8 {expected}")
        by_label = mask.dtype.kind in "iub" and mask.shape in (
            image.shape[:3],
            (*image.shape[:3], 1),
        )
        by_entity = (
            mask.dtype in (np.uint8, np.bool_)
            and (mask.ndim, mask.shape[0], *mask.shape[2:4]) == (5, *image.shape[:3])
            and 1 <= mask.shape[1] <= 255
        )
        if not by_label and not by_entity:
            n, h, w = image.shape[:3]
            raise _unexpected(mask, f"integers [{n}, {h}, {w}, 1] or [{n}, entities, {h}, {w}, 1]")
        return image, mask

    def survey(self, workers: int) -> tuple[Header, dict[str, Plan]]:
        """Assign images to splits; reads factors, and masks only where the filter needs them."""
        root, rule = os.environ.get("SRI_MIRROR", MIRROR), ""
        notes: tuple[str, ...] = ()
        self.download(root, self.path.name, self.kind.mirror_sha256)
        with (
            open_hdf5(self.path) as file,
            Progress(0, 0, f"check {self.path.name}", "image") as progress,
        ):
            crop = self._crop(self._datasets(file, self.groups[0])[0])
            mirrors = "the mirror's own crop, not the published one; "
            preprocessing = mirrors * (self.kind.crop != crop.box) + crop.describe()
            if self.by_group:
                plan = {split: self._take_group(file, split, progress) for split in self.groups}
            else:
                image, mask = self._datasets(file, "/")
                if self.kind.split is None:
                    scenes, rule = group_scenes(file, len(image), progress)
                    splits = split_scenes(scenes, self.options)
                    plan = {"/": Plan(splits, scenes, "scene")}
                else:
                    split = self.kind.split.changed_by(self.options)
                    splits = np.full(len(image), -1, np.int8)
                    for name, row in split.assign(enumerate(self._kept(mask, progress))):
                        splits[row] = SPLITS.index(name) if name else -1
                    split.check(self.path, len(image), _counts([splits]))
                    notes = split.notes
                    plan = {"/": Plan(splits, np.arange(len(image)), "image")}
        counts = _counts([group.splits for group in plan.values()])
        header = replace(self.header, counts=counts, scene_rule=rule, preprocessing=preprocessing)
        return replace(header, notes=notes), plan

    def _take_group(self, file: h5py.File, split: str, progress: Progress) -> Plan:
        """The first images of a group that pass the filter, as many as given; without a number all,
        or for validation and test at most a sixth of given training images."""
        _, mask = self._datasets(file, split)
        kept = (row for row, keep in enumerate(self._kept(mask, progress)) if keep)
        rows = list(itertools.islice(kept, self.options.number(split)))
        there = f"{self.path} has {len(mask):,} images in {split}, {len(rows):,} of them kept"
        self.options.check_number(split, len(rows), there)
        splits = np.full(len(mask), -1, np.int8)
        splits[rows] = SPLITS.index(split)
        return Plan(splits, np.arange(len(mask)), split)

    def _kept(self, mask: h5py.Dataset, progress: Progress) -> Iterator[bool]:
        """Whether each image passes the filter, by its visibility factor or its mask."""
        if self.kind.max_entities is None:
            yield from itertools.repeat(True, len(mask))
            return
        known = _factors(mask.parent, len(mask)).get("visibility")
        before = progress.done
        progress.set_total(before + len(mask))
        for row, values in enumerate(read_rows(mask if known is None else known)):
            if known is not None:
                visible = values.sum(dtype=np.float64)
            elif values.ndim == 4:
                visible = np.count_nonzero(values.any(axis=(1, 2, 3)))
            else:
                visible = len(np.unique(values))
            if row % PROGRESS_ROWS == 0:
                progress.update(before + row)
            yield bool(visible <= self.kind.max_entities)
        progress.advance(before + len(mask))

    def items(self, plan: dict[str, Plan], rows: Rows) -> Iterator[tuple[str, Scenario]]:
        """In the order of the file, group by group."""
        with open_hdf5(self.path) as file:
            for name, part in plan.items():
                image, mask = self._datasets(file, name)
                crop = self._crop(image)
                by_split = [
                    np.flatnonzero(part.splits == i)[rows[s] :] for i, s in enumerate(SPLITS)
                ]
                missing = np.sort(np.concatenate(by_split))
                known = _factors(file[name], len(image))
                columns = [read_rows(one, missing) for one in (image, mask, *known.values())]
                for row, pixels, labels, *values in zip(missing, *columns, strict=True):
                    scene = scene_of(
                        f"{part.prefix}-{part.names[row]}",
                        pixels,
                        self._labels(labels),
                        dict(zip(known, map(_as_factor, values), strict=True)),
                        crop,
                    )
                    yield SPLITS[part.splits[row]], scene

    def _labels(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """A mask [H,W,1], [H,W] or [E,H,W,C] (the first entity that is set) as uint8 [H,W]."""
        if mask.ndim == 4:
            return mask.any(axis=-1).argmax(axis=0).astype(np.uint8)
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high > 255:
            raise SriError(
                f"{self.path}: a mask has labels from {low} to {high}, not from 0 to 255",
                ANOTHER_FILE,
            )
        labels = mask.reshape(mask.shape[:2]).astype(np.uint8)
        if self.kind.unassigned_label is not None:
            labels[labels == self.kind.unassigned_label] = 0
        return labels


def _counts(splits: list[NDArray[np.int8]]) -> dict[str, int]:
    together = np.concatenate(splits)
    return {name: int((together == index).sum()) for index, name in enumerate(SPLITS)}


def group_scenes(
    file: h5py.File, num_images: int, progress: Progress
) -> tuple[NDArray[np.int64], str]:
    """The scene of each image of ShapeStacks int64 [N], numbered by first appearance, and the rule:
    images with equal scene factors show the same scene.

    SriError if the factors do not identify scenes.
    """
    factors = _factors(file, num_images)
    names = [name for name in SCENE_FACTORS if name in factors]
    known: dict[bytes, int] = {}
    scenes = np.zeros(num_images, np.int64)
    progress.set_total(num_images)
    for row, values in enumerate(zip(*(read_rows(factors[name]) for name in names), strict=True)):
        # -0.0 equals 0.0, but its bytes do not.
        key = b"".join((v + 0.0 if v.dtype.kind == "f" else v).tobytes() for v in values)
        scenes[row] = known.setdefault(key, len(known))
        if row % PROGRESS_ROWS == 0:
            progress.update(row)
    low, high = IMAGES_PER_SCENE
    if known and low <= num_images / len(known) <= high:
        return scenes, f"images of equal {', '.join(names)}"
    reason = f"it has none of the factors {', '.join(SCENE_FACTORS)}"
    if names:
        shown = counted(len(known), "scene")
        reason = f"by {', '.join(names)} they show {shown}, not {VIEWS} images each"
    raise SriError(
        f"{file.filename}: its images cannot be grouped by scene: {reason}",
        "choose the mirror's file of ShapeStacks, or simulate: sri prepare shapestacks",
    )


def split_scenes(scenes: NDArray[np.int64], options: Options) -> NDArray[np.int8]:
    """The index in SPLITS of each image's split, -1 for none: int8 [N], by shuffled scenes.

    Scenes for test come first in the shuffled order, those for training last: in a file of other
    numbers of scenes none of these is for testing, unless there are more than usual for training.
    """
    count = int(scenes.max()) + 1
    share = max(1, round(count * NUM_EVALUATION_SCENES / NUM_SCENES))
    numbers = options.divide(count, share, "scenes")
    order = stream(options.seed, SHUFFLE).permutation(count)
    test, val, train = (numbers[split] for split in ("test", "val", "train"))
    split_of_scene = np.full(count, -1, np.int8)
    split_of_scene[order[:test]] = SPLITS.index("test")
    split_of_scene[order[test : test + val]] = SPLITS.index("val")
    split_of_scene[order[count - train :]] = SPLITS.index("train")
    return split_of_scene[scenes]


def has_images(path: Path) -> bool:
    """Whether an HDF5 file has images in its root, as the mirror's files have."""
    with open_hdf5(path) as file:
        return any(isinstance(file.get(name), h5py.Dataset) for name in IMAGE)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file; SriError if it does not exist, is not HDF5, or is damaged where it is read,
    SriFailure if the disk fails."""
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise SriError(f"{path} {problem}", "choose an existing file: --from FILE")
    if os.access(path, os.R_OK) and not h5py.is_hdf5(path):
        raise SriError(f"{path} is not an HDF5 file", ANOTHER_FILE)
    cache = {"rdcc_nbytes": CACHE_BYTES, "rdcc_nslots": 100_003}
    try:
        with h5py.File(path, "r", locking=False, **cache) as file:
            yield file
    except (OSError, RuntimeError) as error:  # of h5py, for damaged files
        kind, hint = SriError, "download or copy the file again"
        if getattr(error, "errno", None):  # of the disk: the rows so far stay
            kind, hint = SriFailure, f"run the same command again, or {hint}"
        raise kind(f"{path} cannot be read: {reason_of(error)}", hint) from error


def read_rows(
    dataset: h5py.Dataset, rows: NDArray[np.int64] | None = None
) -> Iterator[NDArray[Any]]:
    """Each of the increasing `rows` (None: all), read in blocks that end where chunks end.

    h5py's automatic chunks hold few pixels of many images: read one by one, every image would cost
    as much as all of these.
    """
    row_bytes = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    size, chunk = max(1, BLOCK_BYTES // row_bytes), dataset.chunks[0] if dataset.chunks else 1
    if chunk <= size:
        size -= size % chunk
    elif chunk * row_bytes <= MAX_CHUNK_ROW_BYTES:
        size = chunk
    every = range(len(dataset)) if rows is None else rows.tolist()
    for _, group in itertools.groupby(every, lambda row: row // size):
        numbers = list(group)
        block = dataset[numbers[0] : numbers[-1] + 1]
        for row in numbers:
            yield block[row - numbers[0]].copy()  # a row in a queue does not keep its block
        del block


def _find(group: h5py.Group, names: tuple[str, ...]) -> h5py.Dataset:
    """The dataset that has one of these names; SriError if there is none."""
    for name in names:
        if isinstance(group.get(name), h5py.Dataset):
            return group[name]
    content = ", ".join(itertools.islice(group, 8)) or "nothing"
    raise SriError(
        f"{group.file.filename}: `{group.name}` has no dataset `{names[0]}`, but {content}",
        ANOTHER_FILE,
    )


def _unexpected(dataset: h5py.Dataset, expected: str) -> SriError:
    return SriError(
        f"{dataset.file.filename}: `{dataset.name}` is {dataset.dtype} {list(dataset.shape)},"
        f" not {expected}",
        ANOTHER_FILE,
    )


def _factors(group: h5py.Group, num_images: int) -> dict[str, h5py.Dataset]:
    """The numeric factors of each image by name, up to 4 KB per image."""
    factors: dict[str, h5py.Dataset] = {}
    room = MAX_FACTOR_BYTES
    for name in sorted(set(group) - {*IMAGE, *MASK, "scenario"}):
        dataset = group.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape[:1] != (num_images,):
            continue
        row_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
        numeric = dataset.dtype.kind in "iufb" and dataset.dtype.itemsize <= 8
        if numeric and row_bytes <= room:
            room -= row_bytes
            factors[name] = dataset
    return factors


def _as_factor(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32, booleans as bytes, integers as they are, in native byte order."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    return values.astype(np.uint8 if values.dtype.kind == "b" else values.dtype.newbyteorder("="))
