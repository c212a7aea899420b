"""Small models of every variant, built from parts, and their noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sri_cli.models.decoders import BroadcastDecoder
from sri_cli.models.genesis_v2 import GenesisV2, GenesisV2Segregation
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.slot_attention import SlotAttentionSegregation
from sri_cli.models.sri import SRI
from sri_cli.rng import draw_noise

SLOTS, SLOT_SIZE, SCENE_SIZE, SIDE = 4, 16, 24, 32
SIZES = {"image_size": SIDE, "slots": SLOTS, "slot_size": SLOT_SIZE}
PIXELS = ImageLikelihood("mog", 0.7, True)


def genesis_v2_stage() -> GenesisV2Segregation:
    """With a gate that lets colours through, as after some training."""
    stage = GenesisV2Segregation(
        **SIZES, feature_channels=16, decoder_channels=16, kernel="gaussian", likelihood=PIXELS
    )
    stage.colouring.gate.data.fill_(1.0)
    return stage


def small_genesis_v2(scene_size: int | None = None) -> GenesisV2:
    return GenesisV2(segregation=genesis_v2_stage(), **SIZES, scene_size=scene_size)


def small_sri(segregation: nn.Module | None = None, order: str = "greedy", **switches: bool) -> SRI:
    return SRI(
        segregation=segregation or genesis_v2_stage(),
        **SIZES,
        scene_size=SCENE_SIZE,
        decoder=BroadcastDecoder(SIDE, SLOT_SIZE, 16),
        likelihood=PIXELS,
        order=order,
        **switches,
    )


VARIANTS: dict[str, Callable[[], Any]] = {
    "sri": small_sri,
    "sri-a": lambda: small_sri(scene=False),
    "sri-b": lambda: small_sri(alignment=False),
    "sri-c": lambda: small_sri(cross_order=False),
    "sri-ab": lambda: small_sri(scene=False, alignment=False),
    "sri-sa": lambda: small_sri(SlotAttentionSegregation(**SIZES)),
    "genesis-v2": small_genesis_v2,
    "genesis-v2-scene": lambda: small_genesis_v2(SCENE_SIZE),
}


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def noise_for(model: Any, count: int = 2, step: int = 0) -> dict[str, torch.Tensor]:
    return draw_noise(model.training_noise(), count, 0, step)
