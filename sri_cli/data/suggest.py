"""Settings of a recipe for new data, measured on the training images of a file.

The published targets of GECO lie between the error of a perfect reconstruction and that of the mean
image, both of which follow from the standard deviation of the likelihood.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.config.schema import TINY, element_error
from sri_cli.console import counted
from sri_cli.data.dataset import DataFile, Split

ERROR_IMAGES = 2000  # of which the mean image is taken
MOST_IMAGES = 0.99  # that have room in the suggested number of slots
# What a model is to leave of the mean image's squared error. The published targets leave 4 to 10 %
# in 500,000 steps; the shipped model, of size=tiny, reached 19 % after 3,400 of its 16,000.
ERROR_LEFT, ERROR_LEFT_TINY = 0.07, 0.2


def suggestions(data: DataFile, objects: Mapping[int, int] | None) -> list[tuple[str, str]]:
    """Labelled lines with overrides for training on these data; none without training images.

    `objects` maps the number of objects in an image to images, and is None without masks.
    """
    if "train" not in data.splits:
        return []
    error, number = mean_image_error(data.split("train"))
    slots, reason = suggest_slots(objects, data.background_labels)
    shares = {"": ERROR_LEFT}
    if data.size == TINY["model"]["image_size"]:
        shares["size=tiny "] = ERROR_LEFT_TINY
    lines = [
        f"for sri train RECIPE --data {name_of(data)}, measured on {counted(number, 'image')}:",
        f"{f'model.slots={slots}' if slots else 'model.slots':<38}{reason}",
    ]
    for (std, normalised), recipes in likelihoods(data.name).items():
        kind = "normalised" if normalised else "not normalised"
        lines.append(f"{', '.join(recipes)} (std {std:g}, {kind}):")
        perfect, mean = (element_error(std, normalised, e) for e in (0.0, error))
        for size, share in shares.items():
            target = f"{size}train.geco_target={perfect + share * (mean - perfect):.5g}"
            lines.append(f"{target:<38}perfect {perfect:.4f}, mean image {mean:.4f}, f {share:.0%}")
    lines += [
        "geco_target = log std + 0.5 log 2pi (if normalised) + f e / (2 std^2), nats per pixel and",
        f"channel; e = {error:.4g} is the squared error of the mean image, f the share of it that a"
        " model is to leave",
    ]
    return [("suggested" if line is lines[0] else "", line) for line in lines]


def name_of(data: DataFile) -> str:
    """How --data names the file."""
    usual = Path("data") / f"{data.name}-{data.size}.h5"
    return shlex.quote(data.name if data.path == usual else str(data.path))


def suggest_slots(
    objects: Mapping[int, int] | None, background_labels: int
) -> tuple[int | None, str]:
    """A number of slots, and how it follows from the objects in an image."""
    if objects is None:
        return None, "the most objects that you count in an image, and 2 for the background"
    images = np.cumsum([objects[number] for number in sorted(objects)])
    most = sorted(objects)[int(np.searchsorted(images, MOST_IMAGES * images[-1]))]
    # A background without parts is often split in two, as in ground and sky.
    background = max(2, background_labels)
    reason = f"{counted(most, 'object')} ({MOST_IMAGES:.0%} of the images have no more)"
    return most + background, f"{reason} and {background} for the background"


def mean_image_error(split: Split) -> tuple[float, int]:
    """The mean squared difference of images from their mean image, and the number of images.

    Values are in [0,1]; it is the mean over images, pixels and channels.
    """
    picked = split.pick(ERROR_IMAGES)
    total = squares = np.zeros(())
    for i in picked:
        image = split.images[i] / 255.0
        total, squares = total + image, squares + image**2
    mean = total / len(picked)
    return float((squares / len(picked) - mean**2).mean()), len(picked)


def likelihoods(data: str) -> dict[tuple[float, bool], list[str]]:
    """(std, normalised) of the shipped recipes with GECO on a data set -> their names."""
    groups: dict[tuple[float, bool], list[str]] = {}
    for name in recipe_names():
        recipe = load_recipe(name, data)
        if recipe.train.geco_target is not None:
            kind = (recipe.model.std, recipe.model.normalised)
            groups.setdefault(kind, []).append(name)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))
