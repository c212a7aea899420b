"""The schema of a recipe: every key with its range, unit and default.

`models.build.build_model` takes the model section as plain keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]  # for GroupNorm with 8 groups
TRAINED = {"trained": True}  # validation context for the recipe of a trained model


class Section(BaseModel):
    """Refuses unknown keys, conversions ('3' is not a number), nan and infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ModelSection(Section):
    """The generative model."""

    system: Literal["sri", "genesis-v2", "genesis", "emorl"]
    image_size: Literal[32, 64, 96, 128] = 64  # px
    slots: Annotated[int, Field(ge=2, le=64)] = 9  # K in training
    slot_size: Width = 64  # D, width of a slot latent
    scene: bool | None = None  # scene variable; null: only for sri (Tables 3, 4)
    scene_size: Count = 128  # S, width of the scene latent
    likelihood: Literal["mog", "gaussian"] = "mog"
    std: Positive = 0.7  # standard deviation of the likelihood, for image values in [0,1]
    normalised: bool = True  # include 0.5 log 2pi in the likelihood
    # Segregation model of sri; the encoder of a frozen one is timm/NAME, or timm/NAME@FILE with
    # the state dict in FILE, relative to the recipe.
    segregation: Literal["genesis-v2", "emorl", "slot-attention", "frozen"] = "genesis-v2"
    encoder: str | None = None
    order: Literal["greedy", "hungarian"] = "greedy"  # matching of slots to the slot prior
    alignment: bool = True  # of the posterior to the order of the slot prior (Table 3, b)
    cross_order: bool = True  # include the cross-order KL (Table 3, c)
    # Distance kernel of instance colouring.
    kernel: Literal["gaussian", "laplacian", "epanechnikov"] = "gaussian"
    # Slot decoder; null: iodine on EMORL, else broadcast.
    decoder: Literal["broadcast", "iodine", "big"] | None = None
    refinements: Annotated[int, Field(ge=0, le=20)] = 3  # I, refinement steps of EMORL
    # EMORL's initial weights: as published (at first almost nothing of the image reaches the
    # slots), or PyTorch's defaults.
    init: Literal["xavier_small", "default"] = "xavier_small"
    decoder_channels: Width | None = None  # of the broadcast decoder; null: min(64, slot_size)
    feature_channels: Width | None = None  # of the U-Net; null: min(64, slot_size)
    component_size: Count = 16  # width of GENESIS' component latents
    component_channels: Count = 32  # of GENESIS' component networks

    @model_validator(mode="after")
    def _no_idle_keys(self, info: ValidationInfo) -> ModelSection:
        refuse_without_effect(self, without_effect(self.model_dump()), info)
        if "emorl" in (self.system, self.segregation) and self.decoder == "broadcast":
            raise ValueError("decoder: EMORL has only iodine and big")
        if (self.encoder is None) == (self.segregation == "frozen"):
            raise ValueError(
                "encoder: timm/NAME is needed for segregation frozen, and for no other"
            )
        return self


class TrainSection(Section):
    """The training."""

    steps: Count = 500_000
    batch: Count = 32  # images, over all ranks
    lr: Positive = 1e-4  # of Adam
    geco_target: float  # reconstruction error that GECO holds, nats per pixel and channel
    geco_lr: Positive = 1e-6  # GECO's rate at 64 px (scaled by 64^2/H^2, but for EMORL)
    geco_speedup: Annotated[float, Field(ge=1)] = 10.0  # of that rate, below the target
    beta_start: Positive = 1.0  # initial weight of the KL
    beta_min: Positive = 1e-10  # lowest weight of the KL
    geco_warmup: Steps = 0  # steps before the weight of the KL changes
    gaussian_warmup_steps: Steps = 0  # first steps with the gaussian likelihood instead of mog
    lr_warmup: Steps = 0  # steps of linear warm-up of the learning rate
    lr_decay_steps: Steps = 0  # steps of cosine decay to a hundredth after it; 0: no decay
    lr_half_life: Steps = 0  # steps in which the rate halves after the warm-up; 0: no decay
    late_refinements: Steps | None = None  # refinement steps of EMORL late in training
    late_refinements_from: Count | None = None  # training step from which they apply
    clip_grad: Positive | None = None  # largest gradient norm; null: no clipping
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware has it
    compile: Literal["auto", "on", "off"] = "auto"  # auto: compile the step on a GPU
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # for initialisation, data order and noise
    log_every: Count = 100  # steps between log records
    checkpoint_every: Count = 2500  # steps between checkpoints
    keep_checkpoints: Count = 3  # number of newest checkpoints to keep
    keep_every: Count = 50_000  # checkpoints at multiples of so many steps stay, too

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if self.lr_half_life and self.lr_decay_steps:
            raise ValueError("lr_half_life: excludes lr_decay_steps")
        if (self.late_refinements is None) != (self.late_refinements_from is None):
            raise ValueError("late_refinements: needs late_refinements_from, and vice versa")
        return self


class Recipe(Section):
    """One system on one data set, fully resolved."""

    # Runs are named after the recipe.
    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""  # one line for `sri recipes ls`
    data: Annotated[str, Field(min_length=1)]  # data set
    size: Literal["paper", "tiny"] = "paper"  # tiny: shrunk by size=tiny on the command line
    model: ModelSection
    train: TrainSection

    @model_validator(mode="after")
    def _no_idle_train_keys(self, info: ValidationInfo) -> Recipe:
        refuse_without_effect(self.train, without_effect(self.model.model_dump()), info)
        return self


# The systems that have a key; all systems have the keys that are not listed.
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
    """Keys of both sections that have no effect with this model section, and the reason.

    Keys missing from `model` have their defaults.
    """
    fields = ModelSection.model_fields
    m = {key: model.get(key, field.default) for key, field in fields.items()}
    system = m["system"]
    stage = m["segregation"] if system == "sri" else system
    has_scene = m["scene"] or (system == "sri" and m["scene"] is None)
    broadcast = stage == "genesis-v2" or (
        stage != "emorl" and m["decoder"] not in ("iodine", "big")
    )
    reasons = {
        key: f"system {system} has no such part"
        for key, systems in ONLY_FOR.items()
        if system not in systems
    }

    def add(useless: bool, reason: str, *keys: str) -> None:
        if useless:
            for key in keys:
                reasons.setdefault(key, reason)

    refinement = ("refinements", "late_refinements", "late_refinements_from")
    add(stage != "emorl", "only EMORL refines", *refinement)
    add(stage != "emorl", "only EMORL has initial weights of its own", "init")
    add(stage == "emorl", "EMORL's GECO has fixed values", "beta_start", "beta_min")
    add(not has_scene, "there is no scene variable", "scene_size")
    add(stage != "genesis-v2", "only GENESIS-v2's masks use it", "kernel", "feature_channels")
    add(not broadcast, "there is no broadcast decoder", "decoder_channels")
    add(stage == "slot-attention" or not m["alignment"], "slots are not matched", "order")
    add(not m["alignment"], "there is no cross-order KL without alignment", "cross_order")
    gaussian = m["likelihood"] == "gaussian"
    add(gaussian, "likelihood is gaussian from the start", "gaussian_warmup_steps")
    return reasons


def refuse_without_effect(
    section: Section, reasons: Mapping[str, str], info: ValidationInfo
) -> None:
    """ValueError for the first key that is set and has no effect: it would mislead.

    The recipe of a trained model may have such keys.
    """
    if info.context == TRAINED:
        return
    for key, reason in reasons.items():
        field = type(section).model_fields.get(key)
        if field is not None and getattr(section, key) != field.default:
            prefix = "train." if isinstance(section, TrainSection) else ""
            raise ValueError(f"{prefix}{key}: no effect, {reason}; leave it out")


# Changes of `size=tiny`, with which every system learns on 2 cores in minutes. The weight of the KL
# stays high enough for the slot prior to learn from the first step, and warm-ups of thousands of
# steps are dropped. Targets and likelihoods stay the paper's.
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
        "gaussian_warmup_steps": 1500,  # with a mixture alone, samples stay at the mean image
        "late_refinements": None,
        "late_refinements_from": None,
        "geco_lr": 1e-4,
        "beta_start": 1e-3,
        "beta_min": 1e-3,
        "log_every": 50,
        "checkpoint_every": 1000,
    },
}


# EMORL keeps its GECO, which is fast; its decoder and refinement take seconds a step. With
# PyTorch's initial weights 300 steps come as far as 1500 with the published ones.
EMORL_TINY: dict[str, dict[str, Any]] = {
    "model": {"decoder": "big", "refinements": 1, "init": "default"},
    "train": {"batch": 8},
}


def shrink(tree: dict[str, Any]) -> None:
    """Apply to a recipe, in place, the keys of TINY that have an effect on its system."""
    model = tree["model"]
    emorl = "emorl" in (model.get("system"), model.get("segregation"))
    left_out = {*without_effect(model), *(["geco_lr"] if emorl else [])}
    for section, values in TINY.items():
        tree[section] |= {key: value for key, value in values.items() if key not in left_out}
        if emorl:
            tree[section] |= EMORL_TINY[section]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
