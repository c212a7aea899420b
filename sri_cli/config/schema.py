"""The schema of a recipe: every key with its range, unit, default and description.

`models.build.build_model` takes the model section as plain keyword arguments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from sri_cli.config.registry import NAME

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]  # for GroupNorm with 8 groups
TRAINED = {"trained": True}  # validation context for the recipe of a trained model


class Section(BaseModel):
    """Refuses unknown keys, conversions ('3' is not a number), nan and infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


MOST_SLOTS = 64
DRAW_STEPS = 4  # in which Slot-VAE draws the scene variable; models.slot_vae.STEPS


class ModelSection(Section):
    """The generative model."""

    system: Literal["sri", "genesis-v2", "genesis", "emorl", "slot-vae"] = Field(
        description="model: SRI, GENESIS-v2, GENESIS, EfficientMORL or Slot-VAE"
    )
    image_size: Literal[32, 64, 96, 128] = Field(
        64, description="height and width of the images, px; by default that of the data file"
    )
    slots: Annotated[int, Field(ge=2, le=MOST_SLOTS)] = Field(
        9, description="K, slots in training: the most objects, and some for the background"
    )
    slot_size: Width = Field(64, description="D, width of a slot latent")
    scene: bool | None = Field(
        None, description="scene variable (Tables 3 and 4); null: sri has one, the others have none"
    )
    scene_size: Count = Field(128, description="S, width of the scene latent")
    likelihood: Literal["mog", "gaussian"] = Field(
        "mog", description="image likelihood: mixture of Gaussians over slots, or one Gaussian"
    )
    std: Positive = Field(
        0.7, description="standard deviation of the likelihood, for image values in [0,1]"
    )
    normalised: bool = Field(True, description="include 0.5 log 2pi in the likelihood")
    segregation: Literal["genesis-v2", "emorl", "slot-attention", "frozen"] = Field(
        "genesis-v2", description="segregation model of sri; frozen: on a pretrained encoder"
    )
    encoder: str | None = Field(
        None,
        description="encoder of a frozen one: timm/NAME, or timm/NAME@FILE with its state dict in"
        " FILE, relative to the recipe",
    )
    encoder_size: Annotated[int, Field(ge=32, le=1024)] | None = Field(
        None,
        description="height and width to which images are resized for that encoder, px; null: as in"
        " its training",
    )
    order: Literal["greedy", "hungarian", "sinkhorn"] = Field(
        "greedy",
        description="matching of slots to the slot prior; sinkhorn: relaxed, with gradient",
    )
    alignment: bool = Field(
        True, description="align the posterior to the order of the slot prior (Table 3, b)"
    )
    cross_order: bool = Field(True, description="include the cross-order KL (Table 3, c)")
    prior: Literal["lstm", "transformer"] = Field("lstm", description="network of the slot prior")
    end_to_end: bool = Field(
        False,
        description="let the gradient of relate and imagine reach the segregation model, which"
        " keeps its own loss",
    )
    kernel: Literal["gaussian", "laplacian", "epanechnikov"] = Field(
        "gaussian", description="distance kernel of GENESIS-v2's instance colouring"
    )
    decoder: Literal["broadcast", "iodine", "big"] | None = Field(
        None, description="slot decoder; null: iodine on EMORL, else broadcast"
    )
    refinements: Annotated[int, Field(ge=0, le=20)] = Field(
        3, description="I, refinement steps of EMORL"
    )
    init: Literal["xavier_small", "default"] = Field(
        "xavier_small",
        description="initial weights of EMORL: as published (at first almost nothing of the image"
        " reaches the slots), or PyTorch's",
    )
    decoder_channels: Width | None = Field(
        None,
        description="channels of the broadcast and Slot-VAE decoders; null: min(64, slot_size)",
    )
    feature_channels: Width | None = Field(
        None,
        description="channels of the features of GENESIS-v2 and Slot-VAE; null: min(64, slot_size)",
    )
    component_size: Count = Field(16, description="width of GENESIS' component latents")
    component_channels: Count = Field(32, description="channels of GENESIS' component networks")


class TrainSection(Section):
    """The training."""

    steps: Count = Field(500_000, description="last step")
    batch: Count = Field(32, description="images in a step, over all GPUs")
    lr: Positive = Field(1e-4, description="learning rate of Adam")
    geco_target: float | None = Field(
        description="reconstruction error that GECO holds, nats per pixel and channel (slot-vae"
        " has none); `sri prepare show` suggests one"
    )
    geco_lr: Positive = Field(
        1e-6, description="GECO's rate at 64 px (scaled by 64^2/H^2, but for EMORL)"
    )
    geco_speedup: Annotated[float, Field(ge=1)] = Field(
        10.0, description="factor of that rate while the error is below the target"
    )
    beta_start: Positive = Field(1.0, description="initial weight of the KL")
    beta_min: Positive = Field(1e-10, description="lowest weight of the KL")
    geco_warmup: Steps = Field(0, description="steps before the weight of the KL changes")
    gaussian_warmup_steps: Steps = Field(
        0, description="first steps, with the gaussian likelihood instead of mog"
    )
    end_to_end_from: Steps = Field(
        0, description="step from which model.end_to_end lets the gradient pass"
    )
    sinkhorn_start: Positive = Field(
        1.0, description="first temperature of the relaxed matching, in units of distance"
    )
    sinkhorn_end: Positive = Field(0.1, description="last temperature of the relaxed matching")
    sinkhorn_steps: Count = Field(
        50_000, description="steps in which it falls from the first to the last, by equal factors"
    )
    lr_warmup: Steps = Field(0, description="steps of linear warm-up of the learning rate")
    lr_decay_steps: Steps = Field(
        0, description="steps of cosine decay to a hundredth after the warm-up; 0: no decay"
    )
    lr_half_life: Steps = Field(
        0, description="steps in which the rate halves after the warm-up; 0: no decay"
    )
    late_refinements: Steps | None = Field(
        None, description="refinement steps of EMORL late in training; null: as before"
    )
    late_refinements_from: Count | None = Field(
        None, description="training step from which late_refinements applies"
    )
    clip_grad: Positive | None = Field(None, description="largest gradient norm; null: no clipping")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the hardware has it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="compile the training step; auto: on a GPU"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="for initialisation, data order and noise"
    )
    log_every: Count = Field(100, description="steps between log records")
    checkpoint_every: Count = Field(2500, description="steps between checkpoints")
    keep_checkpoints: Count = Field(3, description="number of newest checkpoints to keep")
    keep_every: Count = Field(
        50_000, description="a checkpoint at every multiple of so many steps is written and stays"
    )
    preview_every: Steps = Field(
        2500, description="steps between previews: samples, order, validation terms; 0: none"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if self.lr_half_life and self.lr_decay_steps:
            raise ValueError("lr_half_life: excludes lr_decay_steps")
        if (self.late_refinements is None) != (self.late_refinements_from is None):
            raise ValueError("late_refinements: needs late_refinements_from, and vice versa")
        return self


class Recipe(Section):
    """One system on one data set, fully resolved."""

    name: Annotated[str, Field(min_length=1, pattern=f"^{NAME}$")] = Field(
        description="name of the recipe; runs are named after it"
    )
    description: str = Field("", description="one line for `sri recipes ls`")
    data: Annotated[str, Field(min_length=1)] = Field(description="data set (--data)")
    size: Literal["paper", "small", "tiny"] = Field(
        "paper",
        description="on the command line: shrink the recipe for two CPU cores, to 64 px and hours"
        " (small) or 32 px and minutes (tiny)",
    )
    model: ModelSection = Field(description="the generative model")
    train: TrainSection = Field(description="the training")

    @model_validator(mode="before")
    @classmethod
    def _without_geco(cls, tree: Any) -> Any:
        """Slot-VAE needs no target."""
        match tree:
            case {"model": {"system": "slot-vae"}, "train": dict(train)}:
                return tree | {"train": {"geco_target": None} | train}
        return tree

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Recipe:
        faults = list(self._faults(info.context == TRAINED))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self, trained: bool) -> Iterator[str]:
        """What does not fit together. A key without effect would mislead.

        The recipe of a trained model may have such keys.
        """
        model, train = self.model, self.train
        reasons = without_effect(model.model_dump())
        for name, section in (("model", model), ("train", train)):
            for key, field in type(section).model_fields.items():
                usual = None if field.is_required() else field.default
                if key in reasons and getattr(section, key) != usual and not trained:
                    yield f"{name}.{key}: no effect, {reasons[key]}; leave it out"
        if "emorl" in (model.system, model.segregation) and model.decoder == "broadcast":
            yield "model.decoder: EMORL has only iodine and big"
        if model.system == "sri" and (model.encoder is None) == (model.segregation == "frozen"):
            yield "model.encoder: timm/NAME is needed for segregation frozen, and for no other"
        if model.system == "slot-vae" and model.scene_size % DRAW_STEPS:
            yield f"model.scene_size: slot-vae needs a multiple of {DRAW_STEPS}"
        if train.geco_target is None and "geco_target" not in reasons:
            yield "train.geco_target: only slot-vae has none"
        if (train.late_refinements or 0) > model.refinements and not trained:
            yield f"train.late_refinements: more than the {model.refinements} of model.refinements"


# Training settings that do not change what is learned at a given step.
NOT_LEARNED = {"steps", "precision", "compile", "log_every", "checkpoint_every"}
NOT_LEARNED |= {"keep_checkpoints", "keep_every", "preview_every"}
# The systems that have a key; all systems have the keys that are not listed.
ONLY_FOR = {
    "scene": ("sri", "genesis", "genesis-v2"),
    "scene_size": ("sri", "genesis", "genesis-v2", "slot-vae"),
    "segregation": ("sri",),
    "encoder": ("sri",),
    "encoder_size": ("sri",),
    "order": ("sri",),
    "alignment": ("sri",),
    "cross_order": ("sri",),
    "prior": ("sri",),
    "end_to_end": ("sri",),
    "kernel": ("sri", "genesis-v2"),
    "decoder": ("sri", "emorl"),
    "refinements": ("sri", "emorl"),
    "init": ("sri", "emorl"),
    "feature_channels": ("sri", "genesis-v2", "slot-vae"),
    "decoder_channels": ("sri", "genesis-v2", "slot-vae"),
    "component_size": ("genesis",),
    "component_channels": ("genesis",),
}


def describe_keys(
    section: type[Section] = Recipe, prefix: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every key that can be set, in the order of a recipe."""
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from describe_keys(field.annotation, f"{name}.")
            continue
        default = "required" if field.is_required() else json.dumps(field.default).strip('"')
        systems = f"; only for {', '.join(ONLY_FOR[name])}" if name in ONLY_FOR else ""
        meaning = f"{field.description}{systems}"
        yield f"{prefix}{name}", _type_text(properties[name]), default, meaning


def _type_text(schema: Mapping[str, Any]) -> str:
    """`integer, 2 to 64`, `greedy|hungarian`, `number above 0 or null` of a JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_type_text(one) for one in schema["anyOf"])
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    text, low, high = schema["type"], schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        text += f" above {schema['exclusiveMinimum']:g}"
    elif "multipleOf" in schema:
        text += f", multiple of {schema['multipleOf']}"
    elif low is not None:
        text += f", {low:g} to {high}" if high is not None else f", at least {low:g}"
    return {"boolean": "true|false", "string": "text"}.get(text, text)


def without_effect(model: Mapping[str, Any]) -> dict[str, str]:
    """Keys of both sections that have no effect with this model section, and the reason.

    Keys missing from `model` have their defaults.
    """
    fields = ModelSection.model_fields
    m = {key: model.get(key, field.default) for key, field in fields.items()}
    system = m["system"]
    stage = m["segregation"] if system == "sri" else system
    slot_vae = system == "slot-vae"
    has_scene = m["scene"] or slot_vae or (system == "sri" and m["scene"] is None)
    broadcast = (
        slot_vae
        or stage == "genesis-v2"
        or (stage != "emorl" and m["decoder"] not in ("iodine", "big"))
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

    gecos = ("geco_target", "geco_lr", "geco_speedup", "geco_warmup", "beta_start", "beta_min")
    add(slot_vae, "the weights of Slot-VAE's KLs are fixed", *gecos)
    refinement = ("refinements", "late_refinements", "late_refinements_from")
    add(stage != "emorl", "only EMORL refines", *refinement)
    add(stage != "emorl", "only EMORL has initial weights of its own", "init")
    add(stage == "emorl", "EMORL's GECO has fixed values", "beta_start", "beta_min")
    add(not has_scene, "there is no scene variable", "scene_size")
    add(m["segregation"] != "frozen", "there is no frozen encoder", "encoder_size")
    add(stage != "genesis-v2", "only GENESIS-v2's masks use it", "kernel")
    add(stage not in ("genesis-v2", "slot-vae"), "there are no such features", "feature_channels")
    add(not broadcast, "there is no broadcast decoder", "decoder_channels")
    add(stage == "slot-attention" or not m["alignment"], "slots are not matched", "order")
    add(not m["alignment"], "there is no cross-order KL without alignment", "cross_order")
    relaxed = system == "sri" and m["order"] == "sinkhorn" and "order" not in reasons
    sinkhorn = ("sinkhorn_start", "sinkhorn_end", "sinkhorn_steps")
    add(not relaxed, "the matching is not relaxed", *sinkhorn)
    own_loss = stage not in ("slot-attention", "frozen")
    add(not own_loss, "the segregation model has no loss of its own", "end_to_end")
    add(not m["end_to_end"], "no gradient passes", "end_to_end_from")
    gaussian = m["likelihood"] == "gaussian"
    add(gaussian, "likelihood is gaussian from the start", "gaussian_warmup_steps")
    return reasons


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
        "sinkhorn_steps": 4000,
        "geco_lr": 1e-4,
        "beta_start": 1e-3,
        "beta_min": 1e-3,
        "log_every": 50,
        "checkpoint_every": 1000,
        "preview_every": 1000,
    },
}


# Changes of `size=small`: scenes of 64 px in about two hours on two cores. Unlike in TINY the
# learning rate falls to the end (cosine), the target is closer to a perfect reconstruction, and
# GECO is fast enough to raise the weight of the KL once the target is reached.
SMALL: dict[str, dict[str, Any]] = {
    "model": {
        "image_size": 64,
        "slot_size": 64,
        "scene_size": 128,
        "decoder_channels": 32,
        "feature_channels": 32,
        "component_size": 16,
        "component_channels": 16,
    },
    "train": {
        **TINY["train"],
        "steps": 20_000,
        "lr": 7e-4,
        "lr_warmup": 300,
        "lr_half_life": 0,
        "sinkhorn_steps": 8000,
        "geco_lr": 3e-4,
        "preview_every": 2500,
    },
}
SMALL_ERROR = 0.0017  # mean squared error, for image values in [0,1]
# Slots for the most objects of the simulated data and for the background; else the recipe's.
SMALL_SLOTS = {"demo-towers": 5, "shapestacks": 7}

# EMORL keeps its GECO, which is fast; its decoder and refinement take seconds a step. With
# PyTorch's initial weights 300 steps come as far as 1500 with the published ones.
EMORL_SHRUNK: dict[str, dict[str, Any]] = {
    "model": {"decoder": "big", "refinements": 1, "init": "default"},
    "train": {"batch": 8},
}
SIZES = {"small": SMALL, "tiny": TINY}


def shrink(tree: dict[str, Any], size: str) -> None:
    """Apply to a recipe, in place, the keys of a size that have an effect on its system."""
    model, train = tree["model"], tree["train"]
    emorl = "emorl" in (model.get("system"), model.get("segregation"))
    left_out = {*without_effect(model), *(["geco_lr"] if emorl else [])}
    for section, values in SIZES[size].items():
        tree[section] |= {key: value for key, value in values.items() if key not in left_out}
        if emorl:
            tree[section] |= EMORL_SHRUNK[section]
    if size == "small":
        usual = model.get("slots", ModelSection.model_fields["slots"].default)
        model["slots"] = SMALL_SLOTS.get(tree["data"], usual)
        if train.get("geco_target") is not None and not emorl:
            fields = ModelSection.model_fields
            std, normalised = (model.get(key, fields[key].default) for key in ("std", "normalised"))
            perfect, error = (element_error(std, normalised, e) for e in (0.0, SMALL_ERROR))
            if not perfect < train["geco_target"] < error:  # of another std, or too easy
                train["geco_target"] = round(error, 4)


def element_error(std: float, normalised: bool, squared_error: float) -> float:
    """The reconstruction error of one Gaussian, in nats per pixel and channel.

        log std + 0.5 log 2pi (if normalised) + squared_error / (2 std^2)

    A mixture whose slots agree has the same.
    """
    constant = 0.5 * math.log(2 * math.pi) if normalised else 0.0
    return math.log(std) + constant + squared_error / (2 * std**2)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
