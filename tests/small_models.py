"""Small models of every variant, built from parts, and their noise; recipes that are trained."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import nn

from sri_cli.config.load import load_recipe, recipe_from_dict
from sri_cli.config.registry import recipe_names
from sri_cli.config.schema import Recipe
from sri_cli.models.base import Segregation
from sri_cli.models.build import build_model
from sri_cli.models.decoders import BroadcastDecoder
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.slot_attention import SlotAttentionSegregation
from sri_cli.models.sri import SRI
from sri_cli.rng import draw_noise

SLOTS, SLOT_SIZE, SCENE_SIZE, SIDE = 4, 16, 24, 32
SIZES: dict[str, Any] = {"image_size": SIDE, "slots": SLOTS, "slot_size": SLOT_SIZE}
Module = TypeVar("Module", bound=nn.Module)


def lively(model: Module) -> Module:
    """Weights of ordinary size: with those of the start all slots are alike."""
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.shape[0] > 1:
            nn.init.xavier_normal_(parameter)
    return model


def open_gate(model: Module) -> Module:
    """Colours pass, as after some training: closed, rounding decides which slot is which."""
    for name, parameter in model.named_parameters():
        if name.endswith("colouring.gate"):
            parameter.data.fill_(1.0)
    return model


def small_genesis_v2(scene_size: int | None = None, slots: int = SLOTS) -> Any:
    scene = {} if scene_size is None else {"scene": True, "scene_size": scene_size}
    return open_gate(build_model("genesis-v2", **SIZES | {"slots": slots}, **scene))


def small_sri(
    segregation: Segregation | None = None,
    order: str = "greedy",
    slots: int = SLOTS,
    **switches: Any,
) -> SRI:
    return SRI(
        segregation=segregation or small_genesis_v2(slots=slots).segregate,
        **SIZES | {"slots": slots},
        scene_size=SCENE_SIZE,
        decoder=BroadcastDecoder(SIDE, SLOT_SIZE, 16),
        likelihood=ImageLikelihood("mog", 0.7, True),
        order=order,
        **switches,
    )


def small_genesis(scene_size: int | None = None, **sizes: int) -> Any:
    scene = {} if scene_size is None else {"scene": True, "scene_size": scene_size}
    components = {"component_size": 6, "component_channels": 8}
    return build_model("genesis", **SIZES | components | sizes, **scene)


def small_emorl(**changes: Any) -> Any:
    likelihood = {"std": 0.3, "normalised": False}
    return lively(build_model("emorl", **SIZES | likelihood | {"refinements": 2} | changes))


def small_slot_vae(**sizes: int) -> Any:
    return lively(build_model("slot-vae", **SIZES | {"scene_size": SCENE_SIZE} | sizes))


# By name: a model with K slots.
VARIANTS: dict[str, Callable[..., Any]] = {
    "sri": small_sri,
    "sri-a": lambda **k: small_sri(scene=False, **k),
    "sri-b": lambda **k: small_sri(alignment=False, **k),
    "sri-c": lambda **k: small_sri(cross_order=False, **k),
    "sri-ab": lambda **k: small_sri(scene=False, alignment=False, **k),
    "sri-sinkhorn": lambda **k: small_sri(order="sinkhorn", **k),
    "sri-transformer": lambda **k: small_sri(prior="transformer", **k),
    "sri-end-to-end": lambda **k: small_sri(end_to_end=True, **k),
    "sri-sa": lambda: small_sri(SlotAttentionSegregation(**SIZES)),
    "genesis-v2": small_genesis_v2,
    "genesis-v2-scene": lambda **k: small_genesis_v2(SCENE_SIZE, **k),
    "genesis": small_genesis,
    "genesis-scene": lambda: small_genesis(SCENE_SIZE),
    "emorl": small_emorl,
    "slot-vae": small_slot_vae,
}


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def noise_for(model: Any, count: int = 2, step: int = 0) -> dict[str, torch.Tensor]:
    return draw_noise(model.training_noise(), count, 0, step)


def encoder_weights(name: str, path: Path, seed: int = 4) -> Path:
    """A file of random weights of a timm model, with its classifier."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    weights = timm.create_model(name, pretrained=False).state_dict()
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
    return path


@functools.cache
def _encoder_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()  # deleted when the process ends
    with torch.random.fork_rng():
        encoder_weights("test_vit", Path(folder.name) / "vit.safetensors")
    return folder


def small_encoder(recipe: str) -> list[str]:
    """The overrides with which a recipe on a pretrained encoder needs no download."""
    if recipe != "sri-timm":
        return []
    return [f"model.encoder=timm/test_vit@{_encoder_folder().name}/vit.safetensors"]


TINY_MODEL = {"system": "sri", "image_size": 32, "slots": 3, "slot_size": 8, "scene_size": 8}


def tiny_recipe(model: dict[str, Any] = TINY_MODEL, **train: Any) -> Recipe:
    """Of a training of seconds that records every step."""
    usual = {"geco_target": 0.5655, "steps": 6, "batch": 4, "lr": 1e-3, "log_every": 1}
    usual |= {"checkpoint_every": 2, "precision": "fp32"} | train
    return recipe_from_dict({"name": "small", "data": "towers", "model": model, "train": usual})


def one_of_each_system() -> list[Any]:
    """All recipes; those after the first of a system and segregation model are slow."""
    known: set[tuple[str, str]] = set()
    params = []
    for name in recipe_names():
        model = load_recipe(name).model
        kind = (model.system, model.segregation)
        params.append(pytest.param(name, marks=[pytest.mark.slow] if kind in known else []))
        known.add(kind)
    return params
