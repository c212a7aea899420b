"""Pixels of ShapeStacks' files: 224 px pictures, and maps of labels that are PNGs by another name.

A map's first channel // 32 is the label: 0 background, 1 to 6 the objects from the bottom, 7 not
assigned. The data set's own loader reads maps with matplotlib, which today gives fractions of 1
where it once gave integers, and every mask becomes zero; so integers are read here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.data.sources.shapestacks_names import SIDE_PX
from sri_cli.errors import SriError

LABEL_STEP = 32
UNASSIGNED = 7
PICTURE_MODES = ("RGB", "RGBA", "P")
MAP_MODES = (*PICTURE_MODES, "L", "LA")
FAULTS = (
    OSError,  # missing, or cut off
    SyntaxError,  # so Pillow calls a broken PNG
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def picture_in(file: Path | bytes, where: str) -> NDArray[np.uint8]:
    """uint8 [224,224,3] of a file, or of its content; SriError names `where` it is."""
    with _opened(file, where, PICTURE_MODES) as image:
        return np.asarray(image.convert("RGB"))


def labels_in(file: Path | bytes, where: str) -> NDArray[np.uint8]:
    """Labels uint8 [224,224], 0 to 6, of an instance map."""
    with _opened(file, where, MAP_MODES) as image:
        first = np.asarray(image if image.mode in ("L", "LA") else image.convert("RGB"))
    labels = (first if first.ndim == 2 else first[..., 0]) // LABEL_STEP
    return np.where(labels == UNASSIGNED, 0, labels).astype(np.uint8)


@contextmanager
def _opened(file: Path | bytes, where: str, modes: tuple[str, ...]) -> Iterator[Image.Image]:
    """The PNG, its size and kind checked before anything is decoded."""
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=("PNG",)) as image:
            if image.size != (SIDE_PX, SIDE_PX):
                width, height = image.size
                raise SriError(
                    f"{where} has {width}x{height} px, ShapeStacks has {SIDE_PX}x{SIDE_PX}",
                    "give the folder of the original files; other pictures: sri prepare folder DIR",
                )
            if image.mode not in modes:
                raise SriError(
                    f"{where} is a PNG of kind {image.mode}", f"{' or '.join(modes[:2])} is wanted"
                )
            yield image
    except FAULTS as error:
        raise SriError(
            f"{where} cannot be read: {reason(error)}",
            "the copy is damaged: unpack or download it again",
        ) from error


def reason(error: BaseException) -> str:
    """What is wrong with a picture, in one line; Pillow's own words name objects in memory."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a PNG"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return said.splitlines()[0]
