"""Plain keyword arguments to a complete model: the only place that knows how parts combine."""

from __future__ import annotations

from typing import Literal

from torch import nn

from sri_cli.model.genesis_v2 import GenesisV2
from sri_cli.model.likelihood import ImageLikelihood, LikelihoodKind
from sri_cli.model.segregate.genesis_v2 import GenesisV2Segregation
from sri_cli.model.sri import SRI

MAX_CHANNELS = 64


def build_model(
    system: Literal["sri", "genesis-v2"],
    *,
    image_size: int = 64,
    slots: int = 9,
    slot_size: int = 64,
    scene_size: int = 128,
    likelihood: LikelihoodKind = "mog",
    std: float = 0.7,
    normalised: bool = True,
    kernel: str = "gaussian",
    order: str = "greedy",
    feature_channels: int | None = None,
    decoder_channels: int | None = None,
) -> nn.Module:
    """Build a slot VAE (`output.SlotVAE`) with freshly initialised parameters.

    `slots` is the number K in training; `feature_channels` (U-Net) and `decoder_channels` are
    min(slot_size, 64) unless given. `scene_size` and `order` matter to SRI alone.

    Raises:
        ValueError: for sizes that the architecture cannot have, or an unknown system.
    """
    features = feature_channels or min(slot_size, MAX_CHANNELS)
    decoder = decoder_channels or min(slot_size, MAX_CHANNELS)
    pixels = ImageLikelihood(likelihood, std, normalised)
    segregation = GenesisV2Segregation(
        image_size=image_size,
        slots=slots,
        slot_size=slot_size,
        feature_channels=features,
        decoder_channels=decoder,
        kernel=kernel,
        likelihood=pixels,
    )
    if system == "genesis-v2":
        return GenesisV2(
            segregation=segregation, image_size=image_size, slots=slots, slot_size=slot_size
        )
    if system == "sri":
        return SRI(
            segregation=segregation,
            image_size=image_size,
            slots=slots,
            slot_size=slot_size,
            scene_size=scene_size,
            decoder_channels=decoder,
            likelihood=pixels,
            order=order,
        )
    raise ValueError(f"unknown system {system!r}: sri or genesis-v2")
