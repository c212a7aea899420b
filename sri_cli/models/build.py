"""Plain keyword arguments to a complete model: the only place that knows how parts combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sri_cli.models.decoders import BroadcastDecoder
from sri_cli.models.emorl import Emorl
from sri_cli.models.emorl_decoders import DECODERS
from sri_cli.models.emorl_segregation import EmorlSegregation
from sri_cli.models.genesis import Genesis
from sri_cli.models.genesis_v2 import GenesisV2
from sri_cli.models.genesis_v2_segregation import GenesisV2Segregation
from sri_cli.models.layers import init_default
from sri_cli.models.likelihood import ImageLikelihood, LikelihoodKind
from sri_cli.models.pretrained_encoder import FrozenSegregation
from sri_cli.models.slot_attention import SlotAttentionSegregation
from sri_cli.models.sri import SRI

MAX_CHANNELS = 64


@dataclass(frozen=True)
class ModelSettings:
    """What a recipe's model section says, with the same defaults; see recipe/schema.py."""

    image_size: int = 64
    slots: int = 9  # K in training
    slot_size: int = 64
    scene: bool | None = None
    scene_size: int = 128
    likelihood: LikelihoodKind = "mog"
    std: float = 0.7
    normalised: bool = True
    segregation: str = "genesis-v2"
    encoder: str | None = None
    order: str = "greedy"
    alignment: bool = True
    cross_order: bool = True
    kernel: str = "gaussian"
    decoder: str | None = None
    refinements: int = 3
    init: str = "xavier_small"  # or "default"
    decoder_channels: int | None = None
    feature_channels: int | None = None
    component_size: int = 16
    component_channels: int = 32

    @property
    def pixels(self) -> ImageLikelihood:
        """A likelihood of its own for each part that has one."""
        return ImageLikelihood(self.likelihood, self.std, self.normalised)

    @property
    def sizes(self) -> dict[str, int]:
        """What every model is told."""
        return {"image_size": self.image_size, "slots": self.slots, "slot_size": self.slot_size}


def build_model(system: str, **settings: Any) -> nn.Module:
    """Build a slot VAE (`output.SlotVAE`) with freshly initialised parameters.

    Raises:
        ValueError: for sizes that the architecture cannot have, or an unknown system.
    """
    if system not in SYSTEMS:
        raise ValueError(f"unknown system {system!r}: {', '.join(SYSTEMS)}")
    return SYSTEMS[system](ModelSettings(**settings))


def genesis_v2_segregation(m: ModelSettings, likelihood: ImageLikelihood) -> GenesisV2Segregation:
    """GENESIS-v2 up to its decoder."""
    return GenesisV2Segregation(
        **m.sizes,
        feature_channels=m.feature_channels or min(m.slot_size, MAX_CHANNELS),
        decoder_channels=m.decoder_channels or min(m.slot_size, MAX_CHANNELS),
        kernel=m.kernel,
        likelihood=likelihood,
    )


def build_genesis_v2(m: ModelSettings) -> nn.Module:
    """GENESIS-v2 alone."""
    return GenesisV2(
        segregation=genesis_v2_segregation(m, m.pixels),
        **m.sizes,
        scene_size=m.scene_size if m.scene else None,
    )


def build_genesis(m: ModelSettings) -> nn.Module:
    """GENESIS, alone or with a scene variable."""
    return Genesis(
        **m.sizes,
        component_size=m.component_size,
        component_channels=m.component_channels,
        likelihood=m.pixels,
        scene_size=m.scene_size if m.scene else None,
    )


def build_emorl(m: ModelSettings) -> nn.Module:
    """EfficientMORL alone."""
    return Emorl(emorl_segregation(m, m.pixels))


def build_sri(m: ModelSettings) -> nn.Module:
    """SRI on its segregation model; both explain pixels in the same way."""
    pixels = m.pixels
    return SRI(
        segregation=SEGREGATIONS[m.segregation](m, pixels),
        **m.sizes,
        scene_size=m.scene_size,
        decoder=sri_decoder(m),
        likelihood=pixels,
        order=m.order,
        scene=m.scene is not False,
        alignment=m.alignment,
        cross_order=m.cross_order,
    )


def emorl_segregation(m: ModelSettings, likelihood: ImageLikelihood) -> EmorlSegregation:
    """EfficientMORL up to its refined posterior."""
    segregation = EmorlSegregation(
        **m.sizes,
        decoder=m.decoder or "iodine",
        likelihood=likelihood,
        refinements=m.refinements,
    )
    if m.init == "default":
        init_default(segregation)
    return segregation


def slot_attention(m: ModelSettings, _: ImageLikelihood) -> nn.Module:
    """Slot Attention with starts of its own for every slot; it explains no pixels itself."""
    return SlotAttentionSegregation(**m.sizes)


def frozen(m: ModelSettings, _: ImageLikelihood) -> nn.Module:
    """Slot Attention on a pretrained encoder read from a file."""
    if m.encoder is None:
        raise ValueError("segregation frozen wants an encoder file")
    return FrozenSegregation(**m.sizes, encoder=m.encoder)


def sri_decoder(m: ModelSettings) -> nn.Module:
    """SRI's own decoder, of the kind of its segregation model."""
    kind = m.decoder or ("iodine" if m.segregation == "emorl" else "broadcast")
    if kind in DECODERS:
        decoder = DECODERS[kind](m.image_size, m.slot_size)
        if m.init == "default":
            init_default(decoder)
        return decoder
    channels = m.decoder_channels or min(m.slot_size, MAX_CHANNELS)
    return BroadcastDecoder(m.image_size, m.slot_size, channels)


SEGREGATIONS: dict[str, Callable[[ModelSettings, ImageLikelihood], nn.Module]] = {
    "genesis-v2": genesis_v2_segregation,
    "emorl": emorl_segregation,
    "slot-attention": slot_attention,
    "frozen": frozen,
}
SYSTEMS: dict[str, Callable[[ModelSettings], nn.Module]] = {
    "sri": build_sri,
    "genesis-v2": build_genesis_v2,
    "genesis": build_genesis,
    "emorl": build_emorl,
}
