"""Which keys of the recipe would make weights of other shapes fit: tried out, not guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Size

from sri_cli.config.schema import ModelSection
from sri_cli.models.build import build_model
from sri_cli.training.official_match import match, wanted_by

CHOICES: dict[str, tuple[Any, ...]] = {
    "image_size": (32, 64, 96, 128),
    "decoder": ("broadcast", "iodine", "big"),
}
WIDTHS = (
    "slot_size",
    "scene_size",
    "component_size",
    "component_channels",
    "feature_channels",
    "decoder_channels",
)
WIDEST = 1024


def mending_words(section: ModelSection, system: str, shapes: Mapping[str, Size]) -> list[str]:
    """`model.KEY=VALUE` words with which every shape would fit; empty: none were found.

    One key after the other takes the value that leaves the fewest faults. Models are built
    without memory for their weights: a trial takes some 40 ms.
    """
    now, changes = section, dict[str, Any]()
    faults, misshapen = _faults(now, system, shapes)
    while misshapen:
        trials = [
            (*_faults(tried, system, shapes), key, tried) for key, tried in _near(now, shapes)
        ]
        fewest, misshapen, key, now = min(trials, key=lambda trial: trial[0])
        if fewest >= faults:
            return []
        faults = fewest
        changes[key] = getattr(now, key)
    return [f"model.{key}={value}" for key, value in changes.items()]


def shapes_fit(section: ModelSection, system: str, shapes: Mapping[str, Size]) -> bool:
    """Whether every tensor that has a place has its shape."""
    return _faults(section, system, shapes)[1] == 0


def _near(section: ModelSection, shapes: Mapping[str, Size]) -> Iterator[tuple[str, ModelSection]]:
    """The section with one key changed, for every value that the file's shapes suggest."""
    sizes = {size for shape in shapes.values() for size in shape if size <= WIDEST}
    widths = tuple(sorted(sizes | {size // 2 for size in sizes}))
    for key, values in (CHOICES | dict.fromkeys(WIDTHS, widths)).items():
        for value in values:
            try:
                yield key, ModelSection.model_validate(section.model_dump() | {key: value})
            except ValidationError:  # the system has no such key, or not this value of it
                continue


def _faults(section: ModelSection, system: str, shapes: Mapping[str, Size]) -> tuple[float, int]:
    """How many tensors are missing, too many or misshapen, and how many of them are misshapen."""
    try:
        with torch.device("meta"):
            model = build_model(**section.model_dump())
    except (ValueError, RuntimeError):  # no model has these sizes
        return float("inf"), 1
    found = match(system, shapes, wanted_by(model, system))
    wrong = len(found.misshapen)
    return len(found.missing) + len(found.unexpected) + wrong, wrong
