"""`sri prepare --list` and `show`: a table of prepared files, and the description of one with the
settings that fit it.

Axes: N images, H W rows and columns, L the 256 possible labels.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import list_folder
from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_names
from sri_cli.config.schema import MOST_SLOTS, TINY, element_error
from sri_cli.console import Progress, counted, format_table
from sri_cli.data.dataset import SPLITS, DataFile, Split
from sri_cli.data.writer import MASK_CHUNK_BYTES
from sri_cli.errors import SriError
from sri_cli.run import Workspace, is_path

HEADER = ("FILE", "DATA SET", "SOURCE", "SIZE", "TRAIN", "VAL", "TEST", "MASKS", "SEED", "MB")
QUIET_BYTES = 200_000_000  # smaller files are checked in a moment: no progress is shown
MAX_MASKS = 20_000  # of a split whose masks are read
NUM_LABELS = 256
BAR_COLUMNS, BAR_LINES = 40, 20  # of the histogram; several numbers share a line beyond that
NUM_SKIPPED_SHOWN = 5


def list_files(workspace: Workspace) -> str:
    """A table of the prepared files, then unfinished and unusable ones; only headers are read."""
    table, others = [], []
    for path in list_folder(workspace.data_root):
        if path.name.endswith(".h5.partial"):
            others.append(f"{path}: unfinished{progress_of(path)}; run its `sri prepare` again")
        elif path.suffix == ".h5":
            try:
                data = DataFile(path)
            except SriError as error:
                problem = error.message.removeprefix(f"data file {path} ")
                others.append(f"{path}: unusable, {problem}")
                continue
            counts = [f"{data.counts[name]:,}" for name in SPLITS]
            seed, megabytes = str(data.attrs.get("seed", "-")), path.stat().st_size / 1e6
            row = (str(path), data.name, data.source, f"{data.size} px", *counts)
            table.append((*row, masked_splits(data), seed, f"{megabytes:,.1f}"))
    return "\n".join(([format_table(HEADER, table, left=3)] if table else []) + others)


def masked_splits(data: DataFile) -> str:
    """yes or no, or the splits that have masks."""
    return {0: "no", len(data.splits): "yes"}.get(len(data.masked), "+".join(data.masked))


def progress_of(path: Path) -> str:
    """` (1,200 of 28,800 images)` of an unfinished file; "" while its writer changes it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            done = sum(int(file[name].attrs["rows"]) for name in SPLITS)
            total = sum(json.loads(file.attrs["counts"]))
    except (OSError, LookupError, TypeError, ValueError, RuntimeError):
        return ""
    return f" ({done:,} of {total:,} images)"


def find_files(workspace: Workspace, name_or_file: str, size: int | None) -> list[Path]:
    """The file, or all files of a data set (or that of one size); SriError when there is none."""
    if is_path(name_or_file) and size is not None:
        raise SriError(
            f"the size {size} selects among the files of a data set; {name_or_file} is one file",
            "leave it out, or name a data set",
        )
    sizes = workspace.data_files().get(name_or_file, {})
    if size is None and sizes:
        return list(sizes.values())
    return [workspace.find_data(name_or_file, size)]


def describe(data: DataFile) -> str:
    """Check that the images of a data file are those that were written, and describe it."""
    attrs, total = data.attrs, sum(data.counts.values())
    quiet = data.path.stat().st_size < QUIET_BYTES
    with Progress(total, 0, f"check {data.path.name}", "image", quiet) as progress:
        if not data.is_intact(progress.update):
            raise data.broken("is damaged: its images have changed since they were written")
    lines = [
        ("file", f"{data.path} ({data.path.stat().st_size / 1e6:,.1f} MB, intact)"),
        ("data set", data.caption),
        ("images", counts_text(data)),
        ("scenes", ", ".join(f"{scenes_text(data.split(name))} {name}" for name in data.splits)),
        ("a scene", attrs.get("scene_rule", "")),
        ("source", data.source),
        ("made with", parameters_text(attrs["parameters"])),
        ("processing", attrs.get("preprocessing", "unknown")),
        ("factors", ", ".join(data.split(data.splits[0]).factor_names()) or "unknown"),
        ("discarded", discarded_text(int(attrs.get("discarded", 0)))),
        ("left out", skipped_text(attrs)),
        *(("note", note) for note in json.loads(attrs.get("notes", "[]"))),
        ("made by", f"sri {attrs.get('tool_version', 'unknown')}"),
        ("sha-256", attrs["sha256"]),
        *mask_lines(data, facts := mask_facts(data)),
        *suggestions(data, facts.objects if facts else None),
    ]
    return "\n".join(f"{label:<10}  {text}" for label, text in lines if text)


def counts_text(data: DataFile) -> str:
    """16,000 train, 2,560 val, 10,240 test images of 64 px."""
    counts = ", ".join(f"{data.counts[name]:,} {name}" for name in data.splits)
    return f"{counts} images of {data.size} px"


def scenes_text(split: Split) -> str:
    """The number of scenes, or unknown."""
    if "scenario" not in split.factor_names():
        return "unknown"
    return f"{len(np.unique(split.factor('scenario'))):,}"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """preset original, seed 0, test 640, ..."""
    return ", ".join(f"{key} {value}" for key, value in sorted(parameters.items()))


def discarded_text(number: int) -> str:
    """How many scenes the simulator discarded, if any."""
    return f"{counted(number, 'scene')} that broke the simulator's rules" if number else ""


def skipped_text(attrs: Mapping[str, Any]) -> str:
    """How many files of the source could not be read, and the first of them, if any."""
    number = int(attrs.get("skipped", 0))
    if not number:
        return ""
    names = json.loads(attrs.get("skipped_files", "[]"))[:NUM_SKIPPED_SHOWN]
    more = "; ..." if number > len(names) else ""
    return f"{counted(number, 'file')} that cannot be used: {'; '.join(names)}{more}"


def mask_lines(data: DataFile, facts: MaskFacts | None) -> list[tuple[str, str]]:
    """Lines about the masks, and a histogram of the objects in an image."""
    if facts is None:
        return [("masks", "unknown")]
    share = facts.foreground / max(1, facts.pixels)
    masked = masked_splits(data)
    some = "pixels" if masked == "yes" else f"pixels of {masked}"
    every = facts.images == sum(data.counts[name] for name in data.masked)
    read = "" if every else f" ({facts.images:,} images read)"
    void = "" if data.void_label is None else f"; {data.void_label} is void"
    mean = sum(count * images for count, images in facts.objects.items()) / facts.images
    lines = [
        (
            "masks",
            f"labels 0 to {facts.largest}, {facts.background_labels} of them background{void};"
            f" {share:.1%} of the {some} are foreground{read}",
        ),
        (
            "objects",
            f"{min(facts.objects)} to {max(facts.objects)} in an image, {mean:.1f} on average",
        ),
    ]
    if facts.background_labels > 1 and data.source != "simulated":
        labels = ", ".join(map(str, sorted(facts.deviating_labels)))
        rule = f" have a background label ({labels}) that reaches neither side of the image: "
        rule += "probably an object, but background by the rule of the published numbers"
        none = " deviate: every background label reaches a side"
        number = f"{facts.deviating:,} of {facts.images:,} images"
        lines.insert(1, ("deviating", number + (rule if facts.deviating else none)))
    return lines + histogram_lines(facts.objects)


def histogram_lines(objects: Mapping[int, int]) -> list[tuple[str, str]]:
    """A bar for each number of objects in an image -> images."""
    first, last = min(objects), max(objects)
    per_line = -(-(last - first + 1) // BAR_LINES)
    bars: Counter[int] = Counter()
    for number, images in objects.items():
        bars[number - (number - first) % per_line] += images
    total, most = sum(bars.values()), max(bars.values())
    lines = []
    for number, images in sorted(bars.items()):
        numbers = f"{number}" if per_line == 1 else f"{number}-{number + per_line - 1}"
        noun = "object " if numbers == "1" else "objects"
        bar = "#" * max(1, round(BAR_COLUMNS * images / most))
        lines.append(("", f"{numbers:>5} {noun}  {bar} {images / total:.1%}"))
    return lines


@dataclass
class MaskFacts:
    """Statistics of masks, added up block by block."""

    background_labels: int
    void_label: int | None = None
    images: int = 0
    largest: int = 0  # label, but for the void one
    pixels: int = 0  # not void
    foreground: int = 0  # pixels
    deviating: int = 0  # images
    deviating_labels: set[int] = field(default_factory=set)
    objects: Counter[int] = field(default_factory=Counter)  # objects in an image -> images

    def add(self, masks: NDArray[np.uint8]) -> None:
        """Add masks [N,H,W]."""
        every = label_pixels(masks)
        if self.void_label is not None:
            every[:, self.void_label] = 0
        pixels = every[:, self.background_labels :]
        deviates = deviating(masks, self.background_labels)
        self.images += len(masks)
        self.largest = max([self.largest, *np.flatnonzero(every.any(axis=0)).tolist()])
        self.pixels += int(every.sum())
        self.foreground += int(pixels.sum())
        self.deviating += int(deviates.any(axis=1).sum())
        self.deviating_labels |= set(np.flatnonzero(deviates.any(axis=0)).tolist())
        self.objects.update(np.count_nonzero(pixels, axis=1).tolist())


def mask_facts(data: DataFile) -> MaskFacts | None:
    """Statistics of the masks of all splits, or of some of very many; None where there are none.

    Masks are read a chunk at a time, so a million images need little memory.
    """
    facts, parts = MaskFacts(data.background_labels, data.void_label), list(mask_parts(data))
    total, quiet = sum(b - a for _, a, b in parts), data.path.stat().st_size < QUIET_BYTES
    progress = Progress(total, 0, f"masks of {data.path.name}", "image", quiet)
    with progress, data.open() as file:
        for split, start, stop in parts:
            with data.reading(split):
                masks = file[split]["masks"][start:stop]
            facts.add(masks)
            progress.update(facts.images)
    return facts if parts else None


def mask_parts(data: DataFile) -> Iterator[tuple[str, int, int]]:
    """(split, start, stop) of the masks to read: chunks from all over a split."""
    rows = max(1, MASK_CHUNK_BYTES // data.size**2)  # as the writer chunks them
    for name in data.masked:
        count = data.counts[name]
        for start in range(0, count, rows)[:: -(-count // MAX_MASKS)]:
            yield name, start, min(start + rows, count)


def label_pixels(masks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many pixels each label has in each of the masks [N,...], [N,L]."""
    number = len(masks)
    keys = np.arange(number)[:, None] * NUM_LABELS + masks.reshape(number, -1)
    counts = np.bincount(keys.ravel(), minlength=number * NUM_LABELS)
    return counts.reshape(number, NUM_LABELS)


def deviating(masks: NDArray[np.uint8], background_labels: int) -> NDArray[np.bool_]:
    """Whether a background label above 0 is visible but at neither side of the image, [N,L].

    In Objects Room the first four entities count as background by the published rule, but some
    images have three: the fourth is an object there. A wall always reaches a side.
    """
    if background_labels < 2:
        return np.zeros((len(masks), NUM_LABELS), bool)
    deviates = (label_pixels(masks) > 0) & (label_pixels(masks[:, :, [0, -1]]) == 0)
    deviates[:, [0, *range(background_labels, NUM_LABELS)]] = False
    return deviates


# Settings of a recipe for new data, measured on the training images of a file
#
# The published targets of GECO lie between the error of a perfect reconstruction and that of the
# mean image, both of which follow from the standard deviation of the likelihood.

ERROR_IMAGES = 2000  # of which the mean image is taken
MOST_IMAGES = 0.99  # that have room in the suggested number of slots
# What a model is to leave of the mean image's squared error. The published targets leave 4 to 10 %
# in 500,000 steps; an earlier shipped model, of size=tiny, reached 19 % after 3,400 of its 16,000.
ERROR_LEFT, ERROR_LEFT_TINY = 0.07, 0.2


def suggestions(data: DataFile, objects: Mapping[int, int] | None) -> list[tuple[str, str]]:
    """Labelled lines with overrides for training on these data; none without training images.

    `objects` maps the number of objects in an image to images, and is None without masks.
    """
    if "train" not in data.splits:
        return []
    error, in_objects, number = mean_image_error(data)
    slots, reason = suggest_slots(objects, data.background_labels)
    shares = {"": ERROR_LEFT}
    if data.size == TINY["model"]["image_size"]:
        shares["size=tiny "] = ERROR_LEFT_TINY
    usual = Path("data") / f"{data.name}-{data.size}.h5"
    name = shlex.quote(data.name if data.path == usual else str(data.path))
    lines = [
        f"for sri train RECIPE --data {name}, measured on {counted(number, 'image')}:",
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
    if in_objects is not None and in_objects < max(shares.values()):
        lines += [
            f"objects hold {in_objects:.0%} of e: a model that may leave more can reach its target"
            " without drawing",
            "them; choose a smaller f, or crop closer to the objects",
        ]
    return [("suggested" if line is lines[0] else "", line) for line in lines]


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
    reason += f" and {background} for the background"
    if most + background > MOST_SLOTS:
        reason += f"; models have at most {MOST_SLOTS}: crop to fewer objects"
    return min(most + background, MOST_SLOTS), reason


def mean_image_error(data: DataFile) -> tuple[float, float | None, int]:
    """The mean squared difference of training images from their mean image, the share of it that
    the pixels of objects hold (None without masks), and the number of images.

    Values are in [0,1]; the mean is over images, pixels and channels.
    """
    split = data.split("train")
    picked = split.pick(ERROR_IMAGES)
    masks = split.masks_of(picked)
    mean = sum(split.images[i] / 255.0 for i in picked) / len(picked)
    total = in_objects = 0.0
    for number, i in enumerate(picked):
        errors = ((split.images[i] / 255.0 - mean) ** 2).mean(axis=2)
        total += errors.mean()
        if masks is not None:
            labels = masks[number]
            objects = (labels >= data.background_labels) & (labels != data.void_label)
            in_objects += (errors * objects).mean()
    share = None if masks is None or total == 0 else in_objects / total
    return total / len(picked), share, len(picked)


def likelihoods(data: str) -> dict[tuple[float, bool], list[str]]:
    """(std, normalised) of the shipped recipes with GECO on a data set -> their names."""
    groups: dict[tuple[float, bool], list[str]] = {}
    for name in recipe_names():
        recipe = load_recipe(name, data)
        if recipe.train.geco_target is not None:
            kind = (recipe.model.std, recipe.model.normalised)
            groups.setdefault(kind, []).append(name)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))
