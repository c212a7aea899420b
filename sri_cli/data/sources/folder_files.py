"""Which files of a folder are images, which mask and which split belongs to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sri_cli.data.resizing import Resizing
from sri_cli.data.sources.folder_pictures import Unreadable, read_mask, read_picture
from sri_cli.errors import SriError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
MASKS = "masks"
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Entry:
    """An image by its path below the folder without suffix, its mask and its split if known."""

    stem: str
    image: Path
    mask: Path | None
    split: str | None


def find_images(folder: Path) -> list[Entry]:
    """Every image below `folder`, sorted; each with a mask, or none of them.

    Raises SriError when there is no folder, no image, two of one stem, or a mask for only some.
    """
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"{folder} {wrong}", "name the folder that holds your images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in IMAGES or MASKS in inside.parts[:-1] or is_hidden(inside):
            continue
        stem = inside.with_suffix("").as_posix()
        if stem in found:
            raise SriError(
                f"{folder} has two images called {stem}: {found[stem].name} and {path.name}",
                "keep one of them, or rename it",
            )
        found[stem] = path
    if not found:
        raise SriError(
            f"{folder} holds no images", f"known are {', '.join(sorted(IMAGES))}, in any folder"
        )
    return with_masks(folder, found)


def is_hidden(inside: Path) -> bool:
    """Whether a part of the path begins with a dot."""
    return any(part.startswith(".") for part in inside.parts)


def with_masks(folder: Path, found: dict[str, Path]) -> list[Entry]:
    """The entries of these images."""
    masks = {stem: mask_of(folder, stem) for stem in found}
    without = [stem for stem, mask in masks.items() if mask is None]
    if without and len(without) < len(found):
        raise SriError(
            f"{len(without):,} of {len(found):,} images have no mask, {without[0]} for one",
            f"give each image a PNG of the same stem in {folder / MASKS}, or none",
        )
    return [Entry(stem, path, masks[stem], split_of(stem)) for stem, path in sorted(found.items())]


def mask_of(folder: Path, stem: str) -> Path | None:
    """Where the mask of an image lies."""
    inside = PurePosixPath(stem)
    first, rest = inside.parts[0], PurePosixPath(*inside.parts[1:])
    places = [folder / MASKS / f"{stem}.png"]
    if inside.parent.parts and first == "images":
        places.append(folder / MASKS / f"{rest}.png")
    if inside.parent.parts and first in SPLIT_FOLDERS:
        places.append(folder / first / MASKS / f"{rest}.png")
    return next((place for place in places if place.is_file()), None)


def split_of(stem: str) -> str | None:
    """The split that the folder of an image names."""
    parts = PurePosixPath(stem).parts
    inside = parts[1:] if parts[0] == "images" else parts
    return SPLIT_FOLDERS.get(inside[0]) if len(inside) > 1 else None


def unreadable(resizing: Resizing, entry: Entry) -> str | None:
    """In a worker: why an image or its mask cannot be used; None when they can."""
    try:
        picture = resizing.crop(read_picture(entry.image))
        if entry.mask is not None:
            mask = resizing.crop(read_mask(entry.mask))
            if mask.shape != picture.shape[:2]:
                return "its mask has another size"
    except (Unreadable, ValueError) as error:
        return str(error)
    return None
