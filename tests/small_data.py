"""A data file of a few random images, for tests that need one at all."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Scenario, Simulation, Source
from sri_cli.data.writer import DataFileWriter, Header


def random_scenario(views: int, size: int, seed: int, index: int) -> Scenario:
    """A function of (seed, index) alone."""
    rng = np.random.default_rng((seed, index))
    images = rng.integers(0, 256, (views, size, size, 3), np.uint8)
    masks = rng.integers(0, 4, (views, size, size), np.uint8)
    factors = {"height": np.full(views, index % 5 + 2), "pose": rng.normal(size=(views, 6, 7))}
    return Scenario(f"scene-{index}", images, masks, factors, index % 2)


def header(name: str, size: int, counts: dict[str, int], **parameters: Any) -> Header:
    """Of a data file of noise."""
    return Header(name, size, "simulated", 1, {"seed": 0} | parameters, "none", counts)


def changed(source: Source, **attributes: Any) -> Any:
    """A copy of a source with other attributes or methods."""
    other = copy.copy(source)
    vars(other).update(attributes)
    return other


def small_source(scenarios: int = 30, views: int = 4, size: int = 16, seed: int = 0) -> Simulation:
    """`scenarios` for training and six for each of the others."""
    numbers = {"train": scenarios, "val": 6, "test": 6}
    head = header("towers", size, {}, train=scenarios, views=views, seed=seed)
    make = functools.partial(random_scenario, views, size, seed)
    return Simulation(head, numbers, views, make)


def write_small_data(path: Path, images: int = 16, size: int = 32) -> Path:
    """`images` random ones in each split; the data set's name is the file's."""
    name = path.stem.removesuffix(f"-{size}")
    with DataFileWriter(path, header(name, size, dict.fromkeys(SPLITS, images))) as writer:
        for number, split in enumerate(SPLITS):
            scene = random_scenario(images, size, 0, number)
            writer.append(split, scene.images, scene.masks, scene.factors)
        writer.finish()
    return path
