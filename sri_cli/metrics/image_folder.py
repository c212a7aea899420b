"""Generated images of any tool: a folder of image files, or of one .npz or .h5 with `images`.

All formats of `sri sample` are read. Nothing is ever written into the folder.

Axis legend: N images, S side in pixels. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.errors import SriError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
ARRAYS = (".npz", ".h5")
MODES = ("1", "L", "P", "RGB", "LA", "RGBA", "PA", "CMYK", "YCbCr")  # of at most 8 bits a channel
BLOCK = 512  # images in memory at once
HINT = (
    "--images takes a folder of image files (png, jpg, webp, bmp), or with a .npz or .h5 that has"
    " `images` uint8 [N,S,S,3]"
)

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageFolder:
    """`count` images of `size` px; `read(start, stop)` returns those, in order of file name."""

    folder: Path
    count: int
    size: int
    read: Callable[[int, int], Images]

    def blocks(self, count: int) -> Iterator[Images]:
        """The first `count` images in blocks."""
        for start in range(0, count, BLOCK):
            yield self.read(start, min(start + BLOCK, count))

    def subject(self, count: int) -> dict[str, Any]:
        """The subject of measurements of the first `count` images."""
        digest = hashlib.sha256()
        for block in self.blocks(count):
            digest.update(block.data)
        facts = {"kind": "images", "images": str(self.folder), "count": count}
        return {**facts, "sha256": digest.hexdigest()}


def open_folder(folder: Path) -> ImageFolder:
    """The images in `folder`.

    Raises:
        SriError: for a folder without images, or whose first is unusable; `read` raises it for
            the others.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"--images {folder} {what}", HINT)
    if (folder / "sample.json").is_file() and (folder / "images").is_dir():
        return _of_files(folder, folder / "images")  # beside sri sample's own grid.png
    arrays = sorted(path for path in folder.iterdir() if path.suffix in ARRAYS)
    if len(arrays) > 1:
        names = ", ".join(path.name for path in arrays)
        raise SriError(f"{folder} has several arrays: {names}", "give each a folder of its own")
    return _of_array(folder, arrays[0]) if arrays else _of_files(folder, folder)


def _of_files(named: Path, folder: Path) -> ImageFolder:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not files:
        raise SriError(f"--images {named} has no images", HINT)
    size = _read_file(files[0]).shape[0]

    def read(start: int, stop: int) -> Images:
        images = [_read_file(path) for path in files[start:stop]]
        for path, image in zip(files[start:stop], images, strict=True):
            if image.shape[0] != size:
                sides = f"{path.name} is {image.shape[0]} px, {files[0].name} {size} px"
                raise SriError(f"{named} mixes sizes: {sides}", "give images of one size")
        return np.stack(images)

    return ImageFolder(named, len(files), size, read)


def _read_file(path: Path) -> Images:
    """uint8 [S,S,3]; SriError for anything but a square 8-bit image without transparency."""
    try:
        with Image.open(path) as image:
            image.load()
            mode, colours, extrema = image.mode, image.convert("RGB"), image.getextrema()
            # A palette may have transparency without a channel for it.
            transparent = "transparency" in image.info or (
                mode in ("LA", "RGBA", "PA") and extrema[-1] != (255, 255)
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SriError(f"{path} is not a readable image", "remove it from the folder") from error
    if mode not in MODES:
        raise SriError(f"{path} has more than 8 bits a channel", "give 8-bit images")
    if transparent:
        raise SriError(f"{path} has transparent pixels", "flatten it onto its background")
    if colours.width != colours.height:
        sides = f"{colours.width}x{colours.height}"
        raise SriError(f"{path} is {sides} pixels", "give square images")
    return np.asarray(colours, np.uint8)


def _of_array(folder: Path, path: Path) -> ImageFolder:
    try:
        if path.suffix == ".h5":
            images: Any = h5py.File(path, "r")["images"]  # read slice by slice
        else:
            with np.load(path, allow_pickle=False) as file:
                images = file["images"]
    except (OSError, KeyError, ValueError) as error:
        raise SriError(f"{path} has no `images`", HINT) from error
    shape = tuple(images.shape)
    if images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise SriError(
            f"{path}: `images` is {images.dtype} {list(shape)}", "it must be uint8 [N,S,S,3]"
        )
    if shape[0] == 0:
        raise SriError(f"{path} has no images", HINT)
    return ImageFolder(folder, shape[0], shape[1], lambda start, stop: images[start:stop])
