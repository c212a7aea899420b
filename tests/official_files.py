"""Checkpoints as the official implementations write them, filled with the golden numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.golden_numbers import Golden, formula

FILES = {
    "sri": "sri_mog_tiny.npz",
    "genesis-v2": "genesis_v2_tiny.npz",
    "genesis": "genesis_tiny.npz",
    "emorl": "emorl_tiny.npz",
}
RECIPES = {"sri": "sri-mog", "genesis-v2": "genesis-v2-mog", "genesis": "genesis", "emorl": "emorl"}
# The sizes of the golden models. Of EMORL's weights none depends on the image size, and its 16 px
# are no size of a recipe.
SIZES: dict[str, tuple[str, ...]] = {
    "sri": ("model.image_size=32", "model.slots=4", "model.slot_size=16", "model.scene_size=32"),
    "genesis-v2": ("model.image_size=32", "model.slots=4", "model.slot_size=16"),
    "genesis": (
        *("model.image_size=32", "model.slots=4", "model.slot_size=16"),
        *("model.component_size=6", "model.component_channels=8"),
    ),
    "emorl": (
        *("model.image_size=32", "model.slots=3", "model.slot_size=16", "model.refinements=2"),
        "train.late_refinements=null",
        "train.late_refinements_from=null",
    ),
}


def golden(system: str) -> Golden:
    return Golden(FILES[system], system)


def official_tensors(system: str) -> dict[str, torch.Tensor]:
    """The state dict: parameters by the golden formula, BatchNorm's buffers as after two steps."""
    numbers = golden(system)
    kept = numbers.json("kept_scalars")
    tensors = {}
    for name, shape in numbers.json("parameters"):
        tensors[name] = torch.tensor(kept[name]) if name in kept else formula(name, shape)
        if name.endswith("_norm.bias"):
            norm = name.removesuffix("bias")
            tensors[f"{norm}running_mean"] = formula(f"{norm}running_mean", shape)
            tensors[f"{norm}running_var"] = 1 + formula(f"{norm}running_var", shape).abs()
            tensors[f"{norm}num_batches_tracked"] = torch.tensor(2)
    return tensors


def adam_state(system: str, step: int = 7) -> dict[str, Any]:
    """Moments that tell which parameter they belong to: i and i/2 all over."""
    shapes = golden(system).json("parameters")
    state = {
        i: {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.full(shape, float(i)) + formula(name, shape),
            "exp_avg_sq": torch.full(shape, i / 2),
        }
        for i, (name, shape) in enumerate(shapes)
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(range(len(shapes)))}
    return {"state": state, "param_groups": [group]}


def official_content(system: str, step: int = 7) -> dict[str, Any]:
    """The whole checkpoint; GENESIS' and SRI's keys, EMORL's model under its own."""
    tensors = official_tensors(system)
    if system == "emorl":
        return {"model": tensors, "step": step}
    content = {
        "model_state_dict": tensors,
        "optimiser_state_dict": adam_state(system, step),
        "beta": torch.tensor(0.25),
        "err_ema": torch.tensor(6000.0),
        "iter_idx": step,
    }
    sri = {"beta_sri": torch.tensor(0.5), "err_sri_ema": torch.tensor(7000.0)}
    return content | (sri if system == "sri" else {})


def write_official(path: Path, system: str, **changes: Any) -> Path:
    """The checkpoint with some of its entries changed."""
    torch.save(official_content(system) | changes, path)
    return path
