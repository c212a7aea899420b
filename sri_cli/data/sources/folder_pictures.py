"""Pictures and label masks of any common kind, as arrays. Axes: H, W rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

MOST_PIXELS = 100_000_000
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L")


class Unreadable(Exception):
    """Why a file is no picture or no mask."""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 [H,W,3]: turned as EXIF says, grey thrice, transparency over black, 16 bits to 8."""
    with opened(path) as picture:
        return to_rgb(ImageOps.exif_transpose(picture))


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """uint8 [H,W,3] of a picture in any mode."""
    if picture.mode in DEEP_GREY:
        deep = np.asarray(picture).astype(np.int64)
        grey = (deep // 257 if deep.max(initial=0) > 255 else deep).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if "A" in picture.mode or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        black = Image.new("RGBA", clear.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, clear)
    return np.array(picture.convert("RGB"))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """uint8 [H,W] of labels: grey values, or the indices of a palette."""
    with opened(path) as picture:
        labels = np.asarray(picture)
    if labels.ndim == 3:
        if not (labels == labels[..., :1]).all():
            raise Unreadable("its mask is coloured; integer labels are wanted")
        labels = labels[..., 0]
    if labels.dtype.kind == "f" or int(labels.max(initial=0)) > 255 or int(labels.min()) < 0:
        raise Unreadable("its mask has labels outside 0..255")
    return labels.astype(np.uint8)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The decoded picture of a file; Unreadable when there is none."""
    try:
        picture = Image.open(path)
        if picture.width * picture.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        picture.load()
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(f"more than {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise all kinds for damaged files
        reason = getattr(error, "strerror", None) or "damaged, or no picture"
        raise Unreadable(reason) from error
    with picture:
        yield picture
