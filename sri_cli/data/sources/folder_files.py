"""Which files of a folder are images, which mask and which split belongs to each.

    DIR/**/NAME.jpg                   its mask: DIR/masks/**/NAME.png
    DIR/images/**/NAME.jpg            DIR/masks/**/NAME.png
    DIR/{train,val,test}/**/NAME.jpg  DIR/masks/{train,val,test}/**, DIR/{train,val,test}/masks/**

In general a folder masks/ mirrors what lies beside it, with or without a folder images/ between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sri_cli.console import counted
from sri_cli.data.dataset import SPLITS
from sri_cli.errors import SriError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
}
MASKS = "masks"
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """An image by its path below the folder without suffix, its mask and its split if known."""

    stem: str
    image: Path
    mask: Path | None
    split: str | None


@dataclass(frozen=True)
class Listing:
    """The images of a folder, sorted; `strays` lie outside of the folder's own splits."""

    folder: Path
    entries: tuple[Entry, ...]
    masked: bool  # an image without a mask is then a fault
    split: bool  # the folder has train, val and test of its own
    strays: int = 0


def list_images(folder: Path) -> Listing:
    """Every image below `folder`. Only names are looked at.

    Raises SriError when there is no folder or no image, when two have one stem, when the masks
    are none of these images', and when there is a train/ but only one of val/ and test/.
    """
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"{folder} {wrong}", "name the folder that holds your images")
    images, masks = sorted_out(folder)
    if not images:
        raise SriError(
            f"{folder} holds no images", f"known are {', '.join(sorted(IMAGES))}, in any folder"
        )
    entries = [
        Entry(shown(parts), path, mask_of(parts, masks), split_of(parts))
        for parts, path in sorted(images.items())
    ]
    masked = any(entry.mask for entry in entries)
    if masks and not masked:
        raise SriError(
            f"{folder} has {counted(len(masks), 'mask')}, but none has the name of an image",
            "give each image a PNG of the same name in masks/, or take that folder away",
        )
    split = has_splits(folder, {entry.split for entry in entries})
    used = tuple(entry for entry in entries if entry.split or not split)
    return Listing(folder, used, masked, split, len(entries) - len(used))


def sorted_out(folder: Path) -> tuple[dict[Parts, Path], dict[Parts, Path]]:
    """The images by their path without suffix, and whatever pictures lie in masks/."""
    images: dict[Parts, Path] = {}
    masks: dict[Parts, Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() not in IMAGES:
            continue
        inside = path.relative_to(folder)
        parts = inside.with_suffix("").parts
        if MASKS in lowered(parts[:-1]):
            masks[mask_key(parts if path.suffix.lower() == ".png" else inside.parts)] = path
        elif parts in images:
            raise SriError(
                f"{folder} has two images called {shown(parts)}: {images[parts].name} and"
                f" {path.name}",
                "keep one of them, or rename it",
            )
        elif not is_sheet(path):
            images[parts] = path
    return images, masks


def mask_key(parts: Parts) -> Parts:
    """The same path, masks/ in lower case."""
    where = lowered(parts).index(MASKS)
    return (*parts[:where], MASKS, *parts[where + 1 :])


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, links followed, without what is hidden; SriError for a folder that is closed."""
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(n for n in folders if n[0] != "." and not leads_up(here, n))
        for name in sorted(names):
            path = Path(here, name)
            # A link to nothing is an image that cannot be read; a pipe would be waited for.
            if name[0] != "." and (path.is_file() or path.is_symlink()):
                yield path


def refuse(error: OSError) -> NoReturn:
    """For os.walk, which would leave the folder out."""
    raise SriError(f"{error.filename} cannot be read: {error.strerror}", "make it readable")


def leads_up(here: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in: walking there would never end."""
    path = os.path.join(here, name)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    return os.path.commonpath([os.path.realpath(here), target]) == target


def is_sheet(path: Path) -> bool:
    """Whether this is the contact sheet that `sri prepare show` puts beside a data file."""
    return path.suffix == ".png" and path.with_suffix(".h5").exists()


def mask_of(parts: Parts, masks: dict[Parts, Path]) -> Path | None:
    """The mask of an image: the path without masks/ is the image's, images/ aside."""
    if not masks:
        return None
    low = lowered(parts[:-1])
    short = low.index("images") if "images" in low else None
    for start in range(len(parts)):
        wanted = [parts[start:]]
        if short is not None and short >= start:
            wanted.append(parts[start:short] + parts[short + 1 :])
        for rest in wanted:
            if (key := (*parts[:start], MASKS, *rest)) in masks:
                return masks[key]
    return None


def split_of(parts: Parts) -> str | None:
    """The split that the folder of an image names."""
    folders = lowered(parts[:-1])
    inside = folders[1:] if folders[:1] == ("images",) else folders
    return SPLIT_FOLDERS.get(inside[0]) if inside else None


def has_splits(folder: Path, named: set[str | None]) -> bool:
    """Whether the folder is split already; SriError when by half, as test images could then be
    mixed with those to train on."""
    there = [split for split in SPLITS if split in named]
    if "train" in there and len(there) == 2:
        absent = next(split for split in SPLITS if split not in named)
        raise SriError(
            f"{folder} has {there[0]}/ and {there[1]}/ but no {absent}/",
            f"put images into {absent}/, or rename the folders and all are split anew",
        )
    return len(there) == len(SPLITS)


def lowered(parts: Parts) -> Parts:
    """In lower case."""
    return tuple(part.lower() for part in parts)


def shown(parts: Parts) -> str:
    """A path as text that can be printed and stored, whatever bytes are in it."""
    text = os.fsencode("/".join(parts)).decode(errors="replace")
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
