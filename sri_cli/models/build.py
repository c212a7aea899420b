"""Plain keyword arguments to a complete model: how parts combine."""

from __future__ import annotations

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

MAX_CHANNELS = 64


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
        ValueError: for sizes that the architecture cannot have.
    """
    sizes = {"image_size": image_size, "slots": slots, "slot_size": slot_size}
    pixels = ImageLikelihood(likelihood, std, normalised)
    channels = min(slot_size, MAX_CHANNELS)
    widths = {
        "feature_channels": feature_channels or channels,
        "decoder_channels": decoder_channels or channels,
    }
    optional_scene = scene_size if scene else None

    if system == "genesis":
        return Genesis(
            **sizes,
            component_size=component_size,
            component_channels=component_channels,
            likelihood=pixels,
            scene_size=optional_scene,
        )
    if system == "slot-vae":
        return SlotVae(**sizes, **widths, scene_size=scene_size, likelihood=pixels)
    stage: Segregation
    kind = segregation if system == "sri" else system
    if kind == "genesis-v2":
        stage = GenesisV2Segregation(**sizes, **widths, kernel=kernel, likelihood=pixels)
        if system == kind:
            return GenesisV2(stage, optional_scene)
    elif kind == "emorl":
        own = decoder or "iodine"
        stage = EmorlSegregation(**sizes, decoder=own, likelihood=pixels, refinements=refinements)
        if init == "default":  # its parts draw `xavier_small` weights themselves
            init_default(stage)
        if system == kind:
            return Emorl(stage)
    elif kind == "slot-attention":
        stage = SlotAttentionSegregation(**sizes)
    else:
        assert encoder is not None  # a recipe with segregation: frozen has one
        stage = FrozenSegregation(
            **sizes, encoder=encoder, encoder_size=encoder_size, pretrained=pretrained
        )
    # SRI's own decoder is of the kind of its segregation model, unless `decoder` names one.
    own = decoder or ("iodine" if kind == "emorl" else "broadcast")
    slot_decoder: nn.Module
    if own in DECODERS:
        slot_decoder = DECODERS[own](image_size, slot_size)
        if init == "default":
            init_default(slot_decoder)
    else:
        slot_decoder = BroadcastDecoder(image_size, slot_size, widths["decoder_channels"])
    return SRI(
        segregation=stage,
        **sizes,
        scene_size=scene_size,
        decoder=slot_decoder,
        likelihood=pixels,
        order=order,
        scene=scene is not False,
        alignment=alignment,
        cross_order=cross_order,
        prior=prior,
        end_to_end=end_to_end,
    )
