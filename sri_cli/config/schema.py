"""What a recipe may say: every field with its range, its unit and its default.

The model section is handed to `model.build.build_model` as plain keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Unknown keys refused, no silent conversion ('3' is no number), no nan or infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


# Keys that only some systems have.
ONLY_FOR = {
    "scene": ("sri", "genesis", "genesis-v2"),
    "scene_size": ("sri", "genesis", "genesis-v2"),
    "segregation": ("sri",),
    "encoder": ("sri",),
    "order": ("sri",),
    "alignment": ("sri",),
    "cross_order": ("sri",),
    "kernel": ("sri", "genesis-v2"),
    "decoder": ("sri", "emorl"),
    "refinements": ("sri", "emorl"),
    "init": ("sri", "emorl"),
    "feature_channels": ("sri", "genesis-v2"),
    "decoder_channels": ("sri", "genesis-v2"),
    "component_size": ("genesis",),
    "component_channels": ("genesis",),
}


def without_effect(model: Mapping[str, Any]) -> dict[str, str]:
    """Keys of either section that change nothing for such a model section, and why.

    A switch without effect is a mistake, not a choice. Keys that `model` leaves out count as at
    their defaults.
    """

    def said(key: str) -> Any:
        return model.get(key, ModelSection.model_fields[key].default)

    system = said("system")
    stage = said("segregation") if system == "sri" else system
    causes = {
        f"system {system} has none": [k for k, only in ONLY_FOR.items() if system not in only],
        "only EMORL refines": ["refinements", "late_refinements", "late_refinements_from"]
        if stage != "emorl"
        else [],
        "it is of EMORL's weights": ["init"] if stage != "emorl" else [],
        "it is for a scene variable": ["scene_size"]
        if not (said("scene") or (system == "sri" and said("scene") is None))
        else [],
        "it is for GENESIS-v2's masks": ["kernel", "feature_channels"]
        if stage != "genesis-v2"
        else [],
        "there is no broadcast decoder": ["decoder_channels"]
        if stage == "emorl" or (stage != "genesis-v2" and said("decoder") in ("iodine", "big"))
        else [],
        "nothing is put in order": ["order"]
        if stage == "slot-attention" or not said("alignment")
        else [],
        "there is none without alignment": ["cross_order"] if not said("alignment") else [],
        "EMORL's GECO has its own": ["beta_start", "beta_min"] if stage == "emorl" else [],
        "likelihood gaussian is the blend": ["gaussian_warmup_steps"]
        if said("likelihood") == "gaussian"
        else [],
    }
    reasons: dict[str, str] = {}
    for why, keys in causes.items():
        for key in keys:
            reasons.setdefault(key, why)
    return reasons


TRAINED = {"trained": True}  # context of a validation: the recipe of weights that are there


def refuse(
    section: Section, reasons: Mapping[str, str], info: ValidationInfo, prefix: str = ""
) -> None:
    """ValueError for the first key that has no effect and yet is set.

    Not where weights were trained so: what has no effect spoils none.
    """
    if info.context == TRAINED:
        return
    for key, why in reasons.items():
        field = type(section).model_fields.get(key)
        if field is not None and getattr(section, key) != field.default:
            raise ValueError(f"{prefix}{key}: {why}; leave it out")


class ModelSection(Section):
    """The generative model."""

    system: Literal["sri", "genesis-v2", "genesis", "emorl"] = Field(
        description="family: sri on a segregation model, or one of those alone"
    )
    image_size: Literal[32, 64, 96, 128] = Field(64, description="image side, px")
    slots: Annotated[int, Field(ge=2, le=64)] = Field(9, description="K, slots in training")
    slot_size: Annotated[int, Field(ge=8, multiple_of=8)] = Field(
        64, description="D, width of a slot latent (a multiple of 8: GroupNorm(8))"
    )
    scene: bool | None = Field(
        None, description="a scene variable; null: for sri yes, for the others no (Tables 3, 4)"
    )
    scene_size: Count = Field(128, description="S, width of the scene latent")
    likelihood: Literal["mog", "gaussian"] = Field("mog", description="image likelihood")
    std: Positive = Field(0.7, description="its standard deviation, in image units [0,1]")
    normalised: bool = Field(True, description="whether 0.5 log 2pi counts in the likelihood")
    segregation: Literal["genesis-v2", "emorl", "slot-attention", "frozen"] = Field(
        "genesis-v2", description="first stage of sri"
    )
    encoder: str | None = Field(
        None,
        description="frozen encoder (segregation frozen): timm/NAME, or timm/NAME@FILE with weights"
        " from a state dict beside the recipe",
    )
    order: Literal["greedy", "hungarian"] = Field(
        "greedy", description="how slots are matched to the slot prior of sri"
    )
    alignment: bool = Field(
        True, description="whether sri aligns its posterior to the prior's order (Table 3, b)"
    )
    cross_order: bool = Field(True, description="whether sri has the cross-order KL (Table 3, c)")
    kernel: Literal["gaussian", "laplacian", "epanechnikov"] = Field(
        "gaussian", description="distance kernel of the instance colouring"
    )
    decoder: Literal["broadcast", "iodine", "big"] | None = Field(
        None, description="null: broadcast, and iodine where EMORL is"
    )
    refinements: Annotated[int, Field(ge=0, le=20)] = Field(
        3, description="I, refinement steps of EMORL"
    )
    init: Literal["xavier_small", "default"] = Field(
        "xavier_small",
        description="EMORL's initial weights: far smaller than PyTorch's, as published (almost"
        " nothing of the image reaches the slots at first), or PyTorch's own",
    )
    decoder_channels: Annotated[int, Field(ge=8, multiple_of=8)] | None = Field(
        None, description="channels of the broadcast decoder; null: min(64, slot_size)"
    )
    feature_channels: Annotated[int, Field(ge=8, multiple_of=8)] | None = Field(
        None, description="channels of the U-Net; null: min(64, slot_size)"
    )
    component_size: Count = Field(16, description="width of GENESIS' component latents")
    component_channels: Count = Field(32, description="channels of GENESIS' component networks")

    @model_validator(mode="after")
    def _only_what_the_system_has(self, info: ValidationInfo) -> ModelSection:
        refuse(self, without_effect(self.model_dump()), info)
        if "emorl" in (self.system, self.segregation) and self.decoder == "broadcast":
            raise ValueError("decoder: EMORL has iodine or big")
        if (self.encoder is None) == (self.segregation == "frozen"):
            raise ValueError("encoder: segregation frozen needs timm/NAME, the others have none")
        return self


class TrainSection(Section):
    """How it is trained. Targets are per pixel and channel, in nats."""

    steps: Count = Field(500_000, description="training steps")
    batch: Count = Field(32, description="global batch, images")
    lr: Positive = Field(1e-4, description="Adam's learning rate")
    geco_target: float = Field(description="error that GECO aims at, nats per pixel and channel")
    geco_lr: Positive = Field(
        1e-6, description="GECO's rate at 64 px (scaled by 64^2/H^2; EMORL's is not)"
    )
    geco_speedup: Annotated[float, Field(ge=1)] = Field(
        10.0, description="factor on GECO's rate once the error is under its goal"
    )
    beta_start: Positive = Field(1.0, description="first weight of the KL")
    beta_min: Positive = Field(1e-10, description="lowest weight of the KL")
    geco_warmup: Annotated[int, Field(ge=0)] = Field(
        0, description="steps before the weight of the KL begins to move"
    )
    gaussian_warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="first steps that explain the blended image instead of the mixture"
    )
    lr_warmup: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up")
    lr_decay_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps in which the rate then falls to a hundredth (half a cosine); 0: stays"
    )
    lr_half_life: Annotated[int, Field(ge=0)] = Field(
        0, description="steps in which the rate halves after the warm-up, again and again; 0: off"
    )
    late_refinements: Annotated[int, Field(ge=0)] | None = Field(
        None, description="refinement steps of EMORL late in training; null: as in the model"
    )
    late_refinements_from: Count | None = Field(
        None, description="step from which it takes only so many"
    )
    clip_grad: Positive | None = Field(None, description="largest gradient norm; null: off")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the machine computes in it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="compile the step; auto: on a GPU, where it pays"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="of weights, batches and noise"
    )
    log_every: Count = Field(100, description="steps between log records")
    checkpoint_every: Count = Field(2500, description="steps between checkpoints")
    keep_checkpoints: Count = Field(3, description="newest checkpoints kept")
    keep_every: Count = Field(50_000, description="steps; a checkpoint at a multiple stays")

    @model_validator(mode="after")
    def _one_schedule(self) -> TrainSection:
        """Keys that contradict each other or miss their other half."""
        if self.lr_half_life and self.lr_decay_steps:
            raise ValueError("lr_half_life: the rate falls by it or by lr_decay_steps, not by both")
        if (self.late_refinements is None) != (self.late_refinements_from is None):
            raise ValueError("late_refinements: wants late_refinements_from, and the other way")
        return self


# `size=tiny`: what it changes of any recipe, so that a system learns on 2 cores in minutes. The
# weight of the KL stays high enough for the slot prior to learn from the first step, and what
# takes thousands of steps to begin is dropped. Targets and likelihoods stay the paper's.
TINY: dict[str, dict[str, Any]] = {
    "model": {
        "image_size": 32,
        "slots": 5,
        "slot_size": 32,
        "scene_size": 64,
        "component_size": 8,
        "component_channels": 16,
    },
    "train": {
        "steps": 10_000,
        "batch": 16,
        "lr": 1e-3,
        "lr_warmup": 0,
        "geco_warmup": 0,
        "gaussian_warmup_steps": 1500,  # a mixture alone stays at the mean image for long
        "late_refinements": None,
        "late_refinements_from": None,
        "geco_lr": 1e-4,
        "beta_start": 1e-3,
        "beta_min": 1e-3,
        "log_every": 50,
        "checkpoint_every": 1000,
    },
}


# EMORL's GECO is fast as it is; the rest of it is what takes seconds a step.
EMORL_KEEPS = ("geco_lr",)
EMORL_TINY: dict[str, dict[str, Any]] = {
    # From PyTorch's own weights 300 steps come as far as 1500 from the published small ones.
    "model": {"decoder": "big", "refinements": 1, "init": "default"},
    "train": {"batch": 8},
}


def shrink(tree: dict[str, Any]) -> None:
    """Make a recipe tiny, in place: the keys of TINY that have an effect on its system."""
    model = tree["model"]
    emorl = "emorl" in (model.get("system"), model.get("segregation"))
    left_out = {*without_effect(model), *(EMORL_KEEPS if emorl else ())}
    for section, values in TINY.items():
        more = EMORL_TINY[section] if emorl else {}
        kept = {key: value for key, value in values.items() if key not in left_out}
        tree[section] |= kept | more


class Recipe(Section):
    """One system on one data set, everything resolved."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        description="of the recipe; runs are named after it"
    )
    description: str = Field("", description="one line for `sri recipes ls`")
    data: Annotated[str, Field(min_length=1)] = Field(description="data set")
    size: Literal["paper", "tiny"] = Field(
        "paper", description="size=tiny on the command line shrinks any recipe for 2 cores"
    )
    model: ModelSection
    train: TrainSection

    @model_validator(mode="after")
    def _only_what_it_trains_by(self, info: ValidationInfo) -> Recipe:
        refuse(self.train, without_effect(self.model.model_dump()), info, "train.")
        return self


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
