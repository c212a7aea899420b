"""Small HDF5 files in published layouts, whose right answers are known by hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Source
from tests.small_data import changed

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "automatic": {"chunks": True},
    "gzip": {"rows": 5, "compression": "gzip", "compression_opts": 1},
}


def store(group: h5py.Group, name: str, values: np.ndarray, layout: str) -> None:
    """One data set in a layout."""
    options = dict(LAYOUTS[layout])
    if (rows := options.pop("rows", None)) is not None:
        options["chunks"] = (min(rows, len(values)), *values.shape[1:])
    group.create_dataset(name, data=values, **options)


def numbered_images(count: int, height: int, width: int) -> np.ndarray:
    """[N,H,W,3]: green and blue are the image's number, red is the column."""
    images = np.zeros((count, height, width, 3), np.uint8)
    images[..., 0] = np.arange(width) % 256
    images[..., 1] = (np.arange(count) % 256)[:, None, None]
    images[..., 2] = (np.arange(count) // 256)[:, None, None]
    return images


def numbers_in(data: DataFile, split: str) -> list[int]:
    """Which images of the source a split has, by their pixels."""
    corner = np.asarray(data.split(split).images[:, 0, 0]).astype(int)
    return list(corner[:, 1] + 256 * corner[:, 2])


def made(source: Source, folder: Path, name: str = "out.h5", workers: int = 1) -> DataFile:
    """The data file of a source, checked."""
    data = prepare(source, folder / name, workers=workers).data
    assert data.is_intact()
    return data


def stopped_at(source: Source, call: int) -> Source:
    """The same source; SIGTERM comes with item number `call`."""
    calls = 0

    def make(item: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return source.make(item)

    return changed(source, make=make)


def tower_masks(count: int, side: int = 64) -> np.ndarray:
    """int64 [N,H,W,1]: 0 left, 1 + k % 5 in the middle, 7 in the last column."""
    masks = np.zeros((count, side, side, 1), np.int64)
    masks[:, :, side // 4 : -1, 0] = (1 + np.arange(count) % 5)[:, None, None]
    masks[:, :, -1] = 7
    return masks


def write_towers(
    path: Path, scenes: int = 12, layout: str = "contiguous", **instead: Any
) -> np.ndarray:
    """A ShapeStacks file of 16 views a scene, shuffled; returns the scene of each image. `instead`:
    other values of a dataset, None to leave it out."""
    rng = np.random.default_rng(0)
    scene = rng.permutation(np.repeat(np.arange(scenes), 16))
    world = {
        "com": rng.normal(size=(scenes, 6, 3)),
        "rgba": rng.random((scenes, 6, 4)).astype(">f4"),
        "shape": rng.integers(0, 3, (scenes, 6)),
        "size": rng.random((scenes, 6, 3)),
    }
    count = len(scene)
    values: dict[str, Any] = {
        "image": numbered_images(count, 64, 64),
        "mask": tower_masks(count),
        "num_actual_objects": rng.integers(1, 7, (count, 1)),
        "visibility": rng.random((count, 6, 1)),
        "pixel_coords": rng.random((count, 6, 3)),
        "label": np.array([b"tower"] * count),
        **{name: factor[scene] for name, factor in world.items()},
    }
    with h5py.File(path, "w") as file:
        for name, array in (values | instead).items():
            if array is not None:
                store(file, name, array, layout)
    return scene


def write_flat(
    path: Path, count: int, height: int, width: int, layout: str = "contiguous", **more: Any
) -> None:
    """The mirror's Objects Room or CLEVR: image k shows k % 10 + 2 labels."""
    masks = np.zeros((count, height, width, 1), np.uint8)
    for k in range(count):
        for label in range(1, k % 10 + 2):
            masks[k, height // 2, 8 * label + width // 3 : 8 * label + width // 3 + 8] = label
    values = {"image": numbered_images(count, height, width), "mask": masks}
    with h5py.File(path, "w") as file:
        for name, array in (values | more).items():
            if array is not None:
                store(file, name, array, layout)


def entity_masks(
    shown: list[int], height: int, width: int, entities: int, copies: int = 1
) -> np.ndarray:
    """uint8 [N,E,H,W,C]: image k shows the background and `shown[k]` - 1 objects, blocks of 8x8 in
    a row; the two columns at the left edge show nothing at all."""
    masks = np.zeros((len(shown), entities, height, width, copies), np.uint8)
    masks[:, 0] = 255
    masks[:, 0, :, :2] = 0
    for k, number in enumerate(shown):
        for entity in range(1, number):
            rows, left = slice(height // 4, height // 4 + 8), width // 3 + 8 * entity
            masks[k, 0, rows, left : left + 8] = 0
            masks[k, entity, rows, left : left + 8] = 255
    return masks


def write_groups(
    path: Path,
    shown: dict[str, list[int]],
    height: int = 240,
    width: int = 320,
    entities: int = 11,
    copies: int = 1,
    layout: str = "contiguous",
) -> None:
    """EfficientMORL's layout: for each split the entities that its images show."""
    with h5py.File(path, "w") as file:
        first = 0
        for split in SPLITS:
            if split not in shown:
                continue
            images = numbered_images(first + len(shown[split]), height, width)[first:]
            group = file.create_group(split)
            store(group, "imgs", images, layout)
            masks = entity_masks(shown[split], height, width, entities, copies)
            store(group, "masks", masks, layout)
            first += 100
