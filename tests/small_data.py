"""Small data files, of noise or of stacked squares, and runs that were never trained."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Scenario, Simulation, Source
from sri_cli.data.writer import DataFileWriter, Header

SMALL = ["size=tiny", "model.slot_size=16", "model.slots=3"]
COUNTS = {"train": 24, "val": 8, "test": 16}


def save_image(path: str | Path, values: object, dtype: type = np.uint8, **options: Any) -> Path:
    """An image of these values; grey or colours by their shape."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path, **options)
    return path


def write_images(
    folder: Path, count: int, size: int = 32, ending: str = "png", seed: int = 0
) -> Path:
    """Images of noise: 0.png, 1.png, ..."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    for number, image in enumerate(noise):
        save_image(folder / f"{number}.{ending}", image)
    return folder


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
    other = object.__new__(type(source))
    vars(other).update(vars(source) | attributes)
    return other


def small_source(seed: int = 0) -> Simulation:
    """30 scenarios of four views for training and six for each of the others."""
    head = header("towers", 16, {}, train=30, views=4, seed=seed)
    make = functools.partial(random_scenario, 4, 16, seed)
    return Simulation(head, {"train": 30, "val": 6, "test": 6}, 4, make)


def write_splits(path: Path, name: str, splits: dict[str, tuple[Any, ...]], **more: Any) -> Path:
    """A data file of images, masks and factors by split; `more` fields of its header."""
    counts = {split: len(splits[split][0]) if split in splits else 0 for split in SPLITS}
    size = next(iter(splits.values()))[0].shape[1]
    with DataFileWriter(path, replace(header(name, size, counts), **more)) as writer:
        for split, parts in splits.items():
            writer.append(split, *parts)
        writer.finish()
    return path


def write_small_data(path: Path, images: int = 16, size: int = 32, seed: int = 0) -> Path:
    """`images` random ones in each split; the data set's name is the file's."""
    scenes = {s: random_scenario(images, size, seed, number) for number, s in enumerate(SPLITS)}
    parts = {split: (one.images, one.masks, one.factors) for split, one in scenes.items()}
    return write_splits(path, path.stem.removesuffix(f"-{size}"), parts)


def towers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N,32,32,3] and masks uint8 [N,32,32] of one to three stacked squares.

    The first image is empty.
    """
    random = np.random.default_rng(seed)
    images = np.full((count, 32, 32, 3), 130, np.uint8)
    masks = np.zeros((count, 32, 32), np.uint8)
    for i in range(1, count):
        left, bottom = random.integers(4, 20), 28
        for label in range(1, random.integers(2, 5)):
            top = bottom - 7
            images[i, top:bottom, left : left + 8] = random.permutation([220, 30, 60])
            masks[i, top:bottom, left : left + 8] = label
            bottom = top
    return images, masks


def write_data(path: Path, with_masks: bool = True, name: str = "demo-towers", **more: Any) -> Path:
    """A data file of such towers; `more` fields of its header."""
    made = {s: towers(count, seed) for seed, (s, count) in enumerate(COUNTS.items())}
    splits = {s: (images, masks if with_masks else None, {}) for s, (images, masks) in made.items()}
    return write_splits(path, name, splits, **more)


def write_run(
    run_dir: Path, system: str = "sri", step: int = 10, data: str = "demo-towers"
) -> None:
    """A run with one checkpoint of random weights."""
    import torch  # here, because worker processes of tests import this file

    from sri_cli import checkpoint as checkpoints
    from sri_cli.models.build import build_model

    if system == "slot-vae":  # refuses keys of the others
        recipe = load_recipe(system, None, SMALL)
    else:  # a system without a scene variable accepts only the default size of one
        scene = f"model.scene_size={16 if system == 'sri' else 128}"
        recipe = load_recipe("sri-mog", None, [*SMALL, scene, f"model.system={system}"])
    recipe = recipe.model_copy(update={"data": data})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(**recipe.model.model_dump())
    checkpoints.save(run_dir, step, model.state_dict(), recipe.model_dump(mode="json"), {})


def write_log(run_dir: Path) -> None:
    """A log of 40 steps, as training leaves it."""
    stages = ("error_per_element/segregation", "error_per_element/imagination")
    keys = (*stages, "kl/imagination", "kl_scene", "beta/imagination")
    time = {"time": "2026-01-02T03:04:05+00:00"}
    lines = [json.dumps({"step": s} | time | dict.fromkeys(keys, 1 / s)) for s in range(1, 41)]
    (run_dir / "log.jsonl").write_text("\n".join(lines) + "\n")
