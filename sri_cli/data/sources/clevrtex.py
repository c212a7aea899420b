"""CLEVRTex from its unpacked archives: images, masks and descriptions side by side.

    DIR/clevrtex_<variant>/**/CLEVRTEX_<variant>_NNNNNN.png        320 x 240 px
    DIR/clevrtex_<variant>/**/CLEVRTEX_<variant>_NNNNNN_flat.png   labels, 0 background
    DIR/clevrtex_<variant>/**/CLEVRTEX_<variant>_NNNNNN.json       objects and ground

The split goes by number: the first tenth is for testing, the next for validation; the variant
`outd` is for testing alone. Axis: P = 10 objects.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.image_files import Unreadable, decode_labels, image_files, read_upright
from sri_cli.data.source import Options, Scenario, Source
from sri_cli.data.sources.published import VARIANTS, PositionSplit
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, SriFailure

NAME = "clevrtex"
WIDTH, HEIGHT = 320, 240
CROP_PX = 192  # 0.8 of the shorter side
SIZE_PX = 128
TEST_ONLY = "outd"
MAX_OBJECTS = 10
NAME_BYTES = 48  # of a material in a data file
MAX_LISTED = 8  # missing numbers in a message
AGAIN = "unpack its archives again"


class ClevrTex(Source):
    """One variant; `variant` None: the one that the folder is named after, or `full`."""

    items_per_task = 8

    def __init__(self, folder: Path, options: Options, variant: str | None = None) -> None:
        options.refuse_seed()
        named = Path(os.path.abspath(folder)).name.removeprefix("clevrtex_")
        self.variant = variant or (named if named in VARIANTS[NAME] else "full")
        self.name = base = VARIANTS[NAME][self.variant]
        if self.variant == TEST_ONLY:
            options = replace(options, test_only=True)
        elif options.test_only:
            self.name += "-test"
        self.test_only = options.test_only
        self.folder = folder
        self.images = list_numbered(folder, self.variant)
        tenth = len(self.images) // 10
        self.split = PositionSplit(tenth, tenth, None).changed_by(options)
        self.resizing = Resizing(options.size_px or SIZE_PX, centre=CROP_PX)
        self.header = Header(
            name=self.name,
            size=self.resizing.size,
            source="original",
            background_labels=1,
            parameters={"set": base, "images": len(self.images), **self.split.parameters()},
            preprocessing=self.resizing.describe(),
            notes=self.split.notes,
        )

    def survey(self, workers: int) -> tuple[Header, dict[str, list[Path]]]:
        """Check that every image has its mask, and that all have a description or none."""
        self.described = self.images[0].with_suffix(".json").exists()
        check_beside(self.images, mask_of)
        if self.described:
            check_beside(self.images, lambda path: path.with_suffix(".json"))
        plan: dict[str, list[Path]] = {split: [] for split in SPLITS}
        for split, image in self.split.assign((path, True) for path in self.images):
            assert split is not None
            plan[split].append(image)
        counts = {split: len(images) for split, images in plan.items()}
        self.split.check(self.folder, len(self.images), counts)
        return replace(self.header, counts=counts), plan

    def make(self, item: Path) -> Scenario:
        try:
            image, frame = read_upright(item)
            if (frame.width, frame.height) != (WIDTH, HEIGHT):
                raise Unreadable(f"has {frame.width}x{frame.height} px, not {WIDTH}x{HEIGHT}")
            pixels = np.asarray(image.convert("RGB"))  # transparency means nothing
            labels, _ = decode_labels(mask_of(item), frame, self.resizing)
        except Unreadable as error:
            if getattr(error.__cause__, "strerror", None):  # of the disk: the rows so far stay
                hint = f"run the same command again, or {AGAIN}"
                raise SriFailure(f"{item}: {error}", hint) from error
            raise SriError(f"{item}: {error}", AGAIN) from error
        return Scenario(
            item.stem,
            self.resizing.image(pixels)[None],
            labels[None],
            read_factors(item.with_suffix(".json")) if self.described else {},
        )


def mask_of(image: Path) -> Path:
    """The labels beside an image."""
    return image.with_name(f"{image.stem}_flat.png")


def list_numbered(folder: Path, variant: str) -> list[Path]:
    """The images of a variant in the order of their numbers.

    SriError unless their numbers are consecutive from 0 or 1 and each is there once.
    """
    if not folder.is_dir():
        raise SriError(f"--from {folder} is not a folder", "name the folder of the unpacked files")
    own = folder / f"clevrtex_{variant}"
    pattern = re.compile(rf"CLEVRTEX_{variant}_(\d+)\.png")
    images: dict[int, Path] = {}
    for path in image_files(own if own.is_dir() else folder)[0]:
        if match := pattern.fullmatch(path.name):
            number = int(match[1])
            if number in images:
                raise SriError(f"{images[number]} and {path} have one number", "remove one of them")
            images[number] = path
    if not images:
        raise SriError(
            f"no CLEVRTEX_{variant}_NNNNNN.png in {folder}",
            "unpack its archives (tar -xf FILE -C DIR) and name DIR, or choose another --variant",
        )
    numbers = range(0 if 0 in images else 1, max(images) + 1)
    if missing := [number for number in numbers if number not in images]:
        first = ", ".join(f"{number:06d}" for number in missing[:MAX_LISTED])
        raise SriError(f"{folder}: {counted(len(missing), 'image')} missing: {first}", AGAIN)
    return [images[number] for number in numbers]


def check_beside(images: list[Path], other: Any) -> None:
    """SriError for images without the file that `other` names."""
    without = [image for image in images if not other(image).is_file()]
    if without:
        raise SriError(
            f"{len(without):,} of {len(images):,} images have no {other(without[0]).name} or the"
            f" like beside them: the first is {without[0]}",
            AGAIN,
        )


def read_factors(path: Path) -> dict[str, NDArray[Any]]:
    """Shapes, sizes and materials of the objects as text, rotations float32 [1,P], in the order of
    the description; the material of the ground [1]."""
    try:
        scene = json.loads(path.read_bytes())
        objects = list(scene["objects"])
        values = {
            f"{key}s": [str(thing.get(key, "")) for thing in objects]
            for key in ("shape", "size", "material")
        }
        rotations = np.zeros((1, MAX_OBJECTS), np.float32)
        rotations[0, : len(objects)] = [float(thing.get("rotation", 0)) for thing in objects]
        ground = str(scene.get("ground_material", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SriError(f"{path} is not a description of CLEVRTex", AGAIN) from error
    known = {"rotations": rotations, "ground": as_text([ground])}
    for name, texts in values.items():
        known[name] = as_text(texts + [""] * (MAX_OBJECTS - len(texts)))[None]
    return known | {"objects": np.array([len(objects)], np.int16)}


def as_text(values: list[str]) -> NDArray[np.bytes_]:
    """Text as a data file holds it."""
    return np.array([value.encode()[:NAME_BYTES] for value in values], f"S{NAME_BYTES}")
