"""A small data file of stacked squares, and runs that were never trained: looking needs no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.data.writer import DataFileWriter, Header
from sri_cli.models.build import build_model
from sri_cli.run import Workspace

SMALL = ["model.slot_size=16", "model.slots=3"]
COUNTS = {"train": 24, "val": 8, "test": 16}


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


def write_data(path: Path, with_masks: bool = True) -> None:
    """A data file of such towers."""
    header = Header("demo-towers", 32, "simulated", 1, {"seed": 0}, "none", COUNTS)
    with DataFileWriter(path, header) as writer:
        for seed, (split, count) in enumerate(COUNTS.items()):
            images, masks = towers(count, seed)
            writer.append(split, images, masks if with_masks else None, {})
        writer.finish()


def write_run(run_dir: Path, system: str = "sri", step: int = 10) -> None:
    """A run with one checkpoint of random weights."""
    # The recipe has a scene variable; its default size is what a system without one may say.
    scene = f"model.scene_size={16 if system == 'sri' else 128}"
    recipe = load_recipe("sri-mog-tiny", None, [*SMALL, scene, f"model.system={system}"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(**recipe.model.model_dump())
    checkpoints.save(run_dir, step, model.state_dict(), recipe.model_dump(mode="json"), {})


def write_workspace(root: Path) -> Workspace:
    """Data and two runs of random weights: `other` (GENESIS-v2) and then `tiny` (SRI)."""
    workspace = Workspace(root / "data", root / "runs")
    write_data(workspace.data_path("demo-towers", 32))
    write_run(workspace.runs_root / "other", "genesis-v2")
    write_run(workspace.runs_root / "tiny")
    return workspace
