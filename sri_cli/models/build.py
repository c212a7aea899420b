"""Plain keyword arguments to a complete model: how parts combine."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from sri_cli.models.base import Segregation, SlotVAE
from sri_cli.models.decoders import DECODERS, BroadcastDecoder
from sri_cli.models.emorl import Emorl, EmorlSegregation
from sri_cli.models.genesis import Genesis
from sri_cli.models.genesis_v2 import GenesisV2, GenesisV2Segregation
from sri_cli.models.layers import init_default
from sri_cli.models.likelihood import ImageLikelihood, LikelihoodKind
from sri_cli.models.pretrained_encoder import FrozenSegregation
from sri_cli.models.slot_attention import SlotAttentionSegregation
from sri_cli.models.slot_vae import SlotVae
from sri_cli.models.sri import SRI

SYSTEMS = ("sri", "genesis-v2", "genesis", "emorl", "slot-vae")
MAX_CHANNELS = 64
Part = TypeVar("Part", bound=nn.Module)


def build_model(
    system: str,
    *,
    image_size: int = 64,
    slots: int = 9,
    slot_size: int = 64,
    scene: bool | None = None,
    scene_size: int = 128,
    likelihood: LikelihoodKind = "mog",
    std: float = 0.7,
    normalised: bool = True,
    segregation: str = "genesis-v2",
    encoder: str | None = None,
    encoder_size: int | None = None,
    order: str = "greedy",
    alignment: bool = True,
    cross_order: bool = True,
    prior: str = "lstm",
    end_to_end: bool = False,
    kernel: str = "gaussian",
    decoder: str | None = None,
    refinements: int = 3,
    init: str = "xavier_small",
    decoder_channels: int | None = None,
    feature_channels: int | None = None,
    component_size: int = 16,
    component_channels: int = 32,
    pretrained: bool = True,
) -> SlotVAE:
    """Build a model with freshly initialised parameters.

    The arguments are the keys of a recipe's model section, with the same defaults, and described
    there (`config.schema.ModelSection`). `scene` None: SRI has a scene variable, others have none.
    `pretrained` False, for timing: a frozen encoder has random weights, none are downloaded.

    Raises:
        ValueError: for sizes that the architecture cannot have, or an unknown system.
    """
    sizes = {"image_size": image_size, "slots": slots, "slot_size": slot_size}
    pixels = ImageLikelihood(likelihood, std, normalised)
    channels = min(slot_size, MAX_CHANNELS)

    def initialised(part: Part) -> Part:
        """EMORL's parts draw `xavier_small` weights themselves."""
        if init == "default":
            init_default(part)
        return part

    def genesis_v2_stage() -> GenesisV2Segregation:
        return GenesisV2Segregation(
            **sizes,
            feature_channels=feature_channels or channels,
            decoder_channels=decoder_channels or channels,
            kernel=kernel,
            likelihood=pixels,
        )

    def emorl_stage() -> EmorlSegregation:
        kind = decoder or "iodine"
        return initialised(
            EmorlSegregation(**sizes, decoder=kind, likelihood=pixels, refinements=refinements)
        )

    def first_stage() -> Segregation:
        if segregation == "genesis-v2":
            return genesis_v2_stage()
        if segregation == "emorl":
            return emorl_stage()
        if segregation == "slot-attention":
            return SlotAttentionSegregation(**sizes)
        if encoder is None:
            raise ValueError("segregation frozen needs an encoder")
        return FrozenSegregation(
            **sizes, encoder=encoder, encoder_size=encoder_size, pretrained=pretrained
        )

    def build_decoder() -> nn.Module:
        """SRI's own decoder, of the kind of its segregation model unless `decoder` names one."""
        kind = decoder or ("iodine" if segregation == "emorl" else "broadcast")
        if kind in DECODERS:
            return initialised(DECODERS[kind](image_size, slot_size))
        return BroadcastDecoder(image_size, slot_size, decoder_channels or channels)

    optional_scene = scene_size if scene else None
    if system == "sri":
        return SRI(
            segregation=first_stage(),
            **sizes,
            scene_size=scene_size,
            decoder=build_decoder(),
            likelihood=pixels,
            order=order,
            scene=scene is not False,
            alignment=alignment,
            cross_order=cross_order,
            prior=prior,
            end_to_end=end_to_end,
        )
    if system == "genesis-v2":
        return GenesisV2(genesis_v2_stage(), optional_scene)
    if system == "genesis":
        return Genesis(
            **sizes,
            component_size=component_size,
            component_channels=component_channels,
            likelihood=pixels,
            scene_size=optional_scene,
        )
    if system == "emorl":
        return Emorl(emorl_stage())
    if system == "slot-vae":
        return SlotVae(
            **sizes,
            scene_size=scene_size,
            likelihood=pixels,
            feature_channels=feature_channels or channels,
            decoder_channels=decoder_channels or channels,
        )
    raise ValueError(f"unknown system {system!r}: {', '.join(SYSTEMS)}")
