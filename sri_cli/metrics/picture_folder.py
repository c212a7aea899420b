"""Pictures that any tool has generated: a folder of picture files, or samples.npz or samples.h5.

What `sri sample` writes is read in all of its formats. Nothing is ever written into the folder.

Axis legend: N pictures, B of a block, S side in pixels. Pictures are uint8 [N,S,S,3].
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
BLOCK = 512  # pictures in memory at once
WHAT = "picture files (png, jpg, webp, bmp), or a .npz or .h5 with `images` uint8 [N,S,S,3]"

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class PictureFolder:
    """`count` pictures of `size` px; `read(start, stop)` gives those, in order of file name."""

    folder: Path
    count: int
    size: int
    read: Callable[[int, int], Pictures]

    def blocks(self, count: int) -> Iterator[Pictures]:
        """The first `count` of them, a block at a time."""
        for start in range(0, count, BLOCK):
            yield self.read(start, min(start + BLOCK, count))

    def subject(self, count: int) -> dict[str, Any]:
        """Whose the measurements of the first `count` are."""
        digest = hashlib.sha256()
        for block in self.blocks(count):
            digest.update(block.data)
        facts = {"kind": "images", "images": str(self.folder), "count": count}
        return {**facts, "sha256": digest.hexdigest()}


def open_folder(folder: Path) -> PictureFolder:
    """SriError for a folder without pictures, or whose first is none; others are read later."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is not there"
        raise SriError(f"--images {folder} {what}", f"--images takes a folder of {WHAT}")
    if (folder / "sample.json").is_file() and (folder / "images").is_dir():
        return _of_files(folder, folder / "images")  # beside its own grid.png
    arrays = sorted(path for path in folder.iterdir() if path.suffix in ARRAYS)
    if len(arrays) > 1:
        names = ", ".join(path.name for path in arrays)
        raise SriError(f"{folder} holds several arrays: {names}", "give each a folder of its own")
    return _of_array(folder, arrays[0]) if arrays else _of_files(folder, folder)


def _of_files(named: Path, folder: Path) -> PictureFolder:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not files:
        raise SriError(f"--images {named} holds no pictures", f"--images takes a folder of {WHAT}")
    size = _read_file(files[0]).shape[0]

    def read(start: int, stop: int) -> Pictures:
        found = []
        for path in files[start:stop]:
            picture = _read_file(path)
            if picture.shape[0] != size:
                sides = f"{path.name} is {picture.shape[0]} px, {files[0].name} {size} px"
                raise SriError(f"{named} mixes sizes: {sides}", "give pictures of one size")
            found.append(picture)
        return np.stack(found)

    return PictureFolder(named, len(files), size, read)


def _read_file(path: Path) -> Pictures:
    """uint8 [S,S,3]; SriError for what is no square 8-bit picture without transparency."""
    try:
        with Image.open(path) as image:
            image.load()
            mode, colours, extrema = image.mode, image.convert("RGB"), image.getextrema()
            # A palette may hold transparency without a channel for it.
            clear = "transparency" in image.info or (
                mode in ("LA", "RGBA", "PA") and extrema[-1] != (255, 255)
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SriError(f"{path} is no picture that can be read", "take it away") from error
    if mode not in ("1", "L", "P", "RGB", "LA", "RGBA", "PA", "CMYK", "YCbCr"):
        raise SriError(f"{path} has more than 8 bits a channel", "give 8-bit pictures")
    if clear:
        raise SriError(f"{path} has transparent pixels", "put it on its background first")
    if colours.width != colours.height:
        sides = f"{colours.width}x{colours.height}"
        raise SriError(f"{path} is {sides} pixels", "give square pictures")
    return np.asarray(colours, np.uint8)


def _of_array(folder: Path, path: Path) -> PictureFolder:
    images = _images_of(path)
    shape = tuple(images.shape)
    if images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise SriError(
            f"{path}: `images` is {images.dtype} {list(shape)}", "it must be uint8 [N,S,S,3]"
        )
    if shape[0] == 0:
        raise SriError(f"{path} holds no pictures", f"--images takes a folder of {WHAT}")
    return PictureFolder(folder, shape[0], shape[1], lambda start, stop: images[start:stop])


def _images_of(path: Path) -> Any:
    """Something to slice: of a .npz all at once, of a .h5 what is asked for."""
    try:
        if path.suffix == ".h5":
            return h5py.File(path, "r")["images"]
        with np.load(path, allow_pickle=False) as file:
            return file["images"]
    except (OSError, KeyError, ValueError) as error:
        raise SriError(f"{path} holds no `images`", f"--images takes a folder of {WHAT}") from error
