"""`sri prepare show`: a data file in words, with a contact sheet and what its masks hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import write_atomic
from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS, DataFile, Split
from sri_cli.data.listing import counts_text, find, parameters_text
from sri_cli.data.mask_facts import MaskFacts, mask_facts, num_looked_at
from sri_cli.data.mending import make_again
from sri_cli.errors import SriError, SriFailure
from sri_cli.plotting.contact import contact_sheet
from sri_cli.plotting.grid import png_bytes
from sri_cli.run import Workspace

SHEET_IMAGES = 48
BAR_COLUMNS = 40
BAR_LINES = 20  # at most; beyond that several numbers share a line
NAMED_FILES = 5
SHOWN_FROM_BYTES = 200_000_000


@dataclass(frozen=True)
class Description:
    """A data file in words (lines) and pictures (a PNG; None where it could not be written)."""

    lines: list[str]
    sheet: Path | None


def describe(workspace: Workspace, name_or_file: str, size: int | None = None) -> list[Description]:
    """Every file of a data set (or one file), checked to the last image, with a contact sheet."""
    return [describe_file(path) for path in find(workspace, name_or_file, size)]


def describe_file(path: Path) -> Description:
    """A file in words; its contact sheet is written beside it, unless the folder takes none."""
    data = DataFile(path)
    facts = checked(data)
    lines = [
        f"file        {path} ({path.stat().st_size / 1e6:,.0f} MB, intact)",
        f"data set    {data.caption}",
        f"images      {counts_text(data)}",
        f"scenes      {scenes_text(data)}",
        *scene_rule(data),
        f"source      {data.source}",
        f"made with   {parameters_text(data.attrs['parameters'])}",
        f"pictures    {data.attrs.get('preprocessing', 'unknown')}",
        f"factors     {', '.join(data.factor_names('train')) or 'unknown'}",
        *left_out(data),
        f"made by     sri {data.attrs.get('tool_version', 'unknown')}",
        f"sha-256     {data.attrs['sha256']}",
        *mask_lines(data, facts),
    ]
    sheet = path.with_suffix(".png")
    try:
        write_atomic(sheet, sheet_png(data, facts))
    except SriFailure as refused:
        return Description([*lines, f"contact     none: {refused.message}"], None)
    return Description([*lines, f"contact     {sheet}"], sheet)


def checked(data: DataFile) -> MaskFacts | None:
    """What the masks hold, once all images were read; SriError when they are damaged. Progress of a
    large file is shown: that takes a while."""
    quiet = data.path.stat().st_size < SHOWN_FROM_BYTES
    total = sum(data.counts.values())
    with Progress(total, 0, f"check {data.path.name}", "image", quiet) as progress:
        if not data.is_intact(progress.reach):
            raise SriError(
                f"data file {data.path} is damaged: its images are not those that were written",
                make_again(data.path, data.attrs),
            )
    total = num_looked_at(data)
    with Progress(total, 0, f"masks of {data.path.name}", "image", quiet) as progress:
        return mask_facts(data, progress.reach)


def scenes_text(data: DataFile) -> str:
    """1,000 train, 160 val, 640 test; or that they are unknown."""

    def text(split: str) -> str:
        if "scenario" not in data.factor_names(split):
            return f"unknown {split}"
        return f"{len(np.unique(data.factor(split, 'scenario'))):,} {split}"

    return ", ".join(map(text, SPLITS))


def scene_rule(data: DataFile) -> list[str]:
    """How images were found to be of one scene, where the source did not say."""
    rule = data.attrs.get("scene_rule")
    return [f"a scene     {rule}"] if rule else []


def left_out(data: DataFile) -> list[str]:
    """Scenarios that a simulator discarded, files that could not be read."""
    lines = []
    if discarded := int(data.attrs.get("discarded", 0)):
        lines.append(
            f"discarded   {counted(discarded, 'scenario')} that broke the simulator's rules"
        )
    if skipped := int(data.attrs.get("skipped", 0)):
        names = json.loads(data.attrs.get("skipped_files", "[]"))
        shown = names[:NAMED_FILES]
        more = ", ..." if skipped > len(shown) else ""
        lines.append(f"left out    {counted(skipped, 'file')}: {', '.join(shown)}{more}")
    return lines


def mask_lines(data: DataFile, facts: MaskFacts | None) -> list[str]:
    """The masks in words, and a histogram of the objects in an image."""
    if facts is None:
        return ["masks       unknown"]
    share = facts.foreground / facts.pixels
    looked = "" if facts.images == sum(data.counts.values()) else f" ({facts.images:,} looked at)"
    mean = sum(count * images for count, images in facts.objects.items()) / facts.images
    return [
        f"masks       labels 0 to {facts.largest}, {facts.background_labels} of them background;"
        f" {share:.1%} of the pixels are foreground{looked}",
        *deviation_lines(data, facts),
        f"objects     {min(facts.objects)} to {max(facts.objects)} in an image,"
        f" {mean:.1f} on average",
        *histogram_lines(facts.objects),
    ]


def deviation_lines(data: DataFile, facts: MaskFacts) -> list[str]:
    """How often the published rule of what is background is doubtful; simulators keep to it."""
    if facts.background_labels < 2 or data.source == "simulated":
        return []
    if not facts.deviating:
        return [f"deviating   none of {facts.images:,} images: all background reaches a side"]
    labels = ", ".join(map(str, sorted(facts.deviating_labels)))
    return [
        f"deviating   {facts.deviating:,} of {facts.images:,} images have a background label"
        f" ({labels}) that reaches neither side, so probably an object; the data set's"
        " rule, kept here, counts it as background"
    ]


def histogram_lines(objects: Mapping[int, int]) -> list[str]:
    """A bar for each number of objects in an image -> images."""
    per_line = -(-(max(objects) - min(objects) + 1) // BAR_LINES)
    lines: dict[int, int] = {}
    for count, images in sorted(objects.items()):
        first = count - (count - min(objects)) % per_line
        lines[first] = lines.get(first, 0) + images
    total, most = sum(lines.values()), max(lines.values())
    texts = []
    for first, images in lines.items():
        numbers = f"{first}" if per_line == 1 else f"{first}-{first + per_line - 1}"
        bar = "#" * max(1, round(BAR_COLUMNS * images / most))
        noun = "object " if numbers == "1" else "objects"
        texts.append(f"{numbers:>7} {noun}  {bar} {images / total:.1%}")
    return texts


def sheet_png(data: DataFile, facts: MaskFacts | None) -> bytes:
    """PNG of training images from all over the split, their masks and the histogram."""
    split = data.split("train")
    picked = split.pick(SHEET_IMAGES)
    sheet = contact_sheet(
        split.images[picked],
        picked_masks(split, picked),
        data.background_labels,
        facts.objects if facts else {},
        f"{data.caption}, {data.size} px, training images",
    )
    return png_bytes(sheet)


def picked_masks(split: Split, picked: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    """The masks of a few images."""
    if not split.has_masks:
        return None
    return np.concatenate([split.mask_rows(int(i), int(i) + 1) for i in picked])
