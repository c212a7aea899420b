"""`sri prepare show`: a data file in words, with a contact sheet and what its masks hold.

Axes: N images, H W rows and columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.listing import counts_text, find, parameters_text
from sri_cli.data.store import SPLITS, DataFile, Split
from sri_cli.errors import SriError
from sri_cli.figures.contact import contact_sheet
from sri_cli.figures.grids import png_bytes
from sri_cli.workspace import Workspace, write_atomic

SHEET_IMAGES = 48
MOST_IMAGES = 20_000  # of a split whose masks are looked at
BLOCK = 1000
BAR_COLUMNS = 40


@dataclass(frozen=True)
class Description:
    """A data file in words (lines) and pictures (a PNG)."""

    lines: list[str]
    sheet: Path


@dataclass
class MaskFacts:
    """What the masks of some images hold, added up block by block."""

    background_labels: int
    images: int = 0
    largest: int = 0
    pixels: int = 0
    foreground: int = 0
    deviating: int = 0
    objects: dict[int, int] = field(default_factory=dict)  # objects in an image -> images

    def add(self, masks: NDArray[np.uint8]) -> None:
        """Take in masks [N,H,W]."""
        self.images += len(masks)
        self.largest = max(self.largest, int(masks.max()))
        self.pixels += masks.size
        self.foreground += int((masks >= self.background_labels).sum())
        self.deviating += int(deviates(masks, self.background_labels).sum())
        for count, images in zip(
            *np.unique(objects_in(masks, self.background_labels), return_counts=True), strict=True
        ):
            self.objects[int(count)] = self.objects.get(int(count), 0) + int(images)


def describe(workspace: Workspace, name_or_file: str, size: int | None = None) -> list[Description]:
    """Every file of a data set (or one file), checked to the last image, with a contact sheet."""
    return [describe_file(path) for path in find(workspace, name_or_file, size)]


def describe_file(path: Path) -> Description:
    """A file in words; its contact sheet is written beside it."""
    data = DataFile(path)
    if not data.is_intact():
        raise SriError(
            f"data file {path} is damaged: its images are not those that were written",
            f"make it again: sri prepare {data.prepare_words} --force",
        )
    facts = mask_facts(data)
    lines = [
        f"file        {path} ({path.stat().st_size / 1e6:,.0f} MB, intact)",
        f"data set    {data.caption}",
        f"images      {counts_text(data)}",
        f"scenes      {scenes_text(data)}",
        f"made with   {parameters_text(data.attrs['parameters'])}",
        f"pictures    {data.attrs.get('preprocessing', 'unknown')}",
        f"factors     {', '.join(data.split('train').factors) or 'unknown'}",
        *left_out(data),
        f"made by     sri {data.attrs.get('tool_version', 'unknown')}",
        f"sha-256     {data.attrs['sha256']}",
        *mask_lines(data, facts),
    ]
    sheet = path.with_suffix(".png")
    write_atomic(sheet, sheet_png(data, facts))
    return Description(lines, sheet)


def scenes_text(data: DataFile) -> str:
    """1,000 train, 160 val, 640 test; or that they are unknown."""
    scenes = [data.split(name).factors.get("scenario") for name in SPLITS]
    return ", ".join(
        f"{len(np.unique(names)):,} {split}" if names is not None else f"unknown {split}"
        for split, names in zip(SPLITS, scenes, strict=True)
    )


def left_out(data: DataFile) -> list[str]:
    """Scenarios that a simulator discarded, files that could not be read."""
    lines = []
    if discarded := int(data.attrs.get("discarded", 0)):
        lines.append(f"discarded   {discarded:,} scenarios that broke the simulator's rules")
    if skipped := int(data.attrs.get("skipped", 0)):
        names = json.loads(data.attrs.get("skipped_files", "[]"))
        more = ", ..." if skipped > len(names[:5]) else ""
        lines.append(f"left out    {skipped:,} files: {', '.join(names[:5])}{more}")
    return lines


def mask_facts(data: DataFile) -> MaskFacts | None:
    """What the masks of all splits hold, from some of the images where there are very many."""
    if not data.split("train").has_masks:
        return None
    facts = MaskFacts(data.background_labels)
    for name in SPLITS:
        split = data.split(name)
        for start, stop in blocks(len(split)) if split.has_masks else ():
            facts.add(split.mask_rows(start, stop))
    return facts


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of rows from all over a split, at most MOST_IMAGES in all."""
    starts = range(0, count, BLOCK)
    step = max(1, -(-len(starts) * BLOCK // MOST_IMAGES))
    for start in starts[::step]:
        yield start, min(start + BLOCK, count)


def objects_in(masks: NDArray[np.uint8], background_labels: int) -> NDArray[np.intp]:
    """How many foreground labels each of the masks [N,H,W] has, [N]."""
    count = np.zeros(len(masks), np.intp)
    for label in range(background_labels, int(masks.max()) + 1):
        count += (masks == label).any(axis=(1, 2))
    return count


def deviates(masks: NDArray[np.uint8], background_labels: int) -> NDArray[np.bool_]:
    """Whether a background label above 0 is seen, but at neither side of the picture, [N].

    In Objects Room the first four entities count as background by the published rule, but in
    some images only three are; the fourth is an object then, and a wall always reaches a side.
    """
    found = np.zeros(len(masks), bool)
    for label in range(1, background_labels):
        here = masks == label
        found |= here.any(axis=(1, 2)) & ~here[:, :, [0, -1]].any(axis=(1, 2))
    return found


def mask_lines(data: DataFile, facts: MaskFacts | None) -> list[str]:
    """The masks in words, and a histogram of the objects in an image."""
    if facts is None:
        return ["masks       unknown"]
    share = facts.foreground / facts.pixels
    looked = "" if facts.images == sum(data.counts.values()) else f" ({facts.images:,} looked at)"
    lines = [
        f"masks       labels 0 to {facts.largest}, {facts.background_labels} of them background;"
        f" {share:.0%} of the pixels are foreground{looked}"
    ]
    if facts.background_labels > 1 and data.source != "simulated":
        lines.append(
            f"deviating   {facts.deviating:,} of {facts.images:,} images have a background label"
            " that reaches neither side, so probably an object; the published rule, kept here,"
            " counts it as background"
        )
    most = max(facts.objects.values())
    for count, images in sorted(facts.objects.items()):
        bar = "#" * max(1, round(BAR_COLUMNS * images / most))
        plural = "" if count == 1 else "s"
        lines.append(f"{count:>4} object{plural:<1}  {bar} {images / facts.images:.1%}")
    return lines


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
