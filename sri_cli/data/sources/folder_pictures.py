"""Pictures and label masks of any common kind, upright, cropped and resized.

A decoded picture takes up to 4 bytes a pixel, and its crop as much again: a large one is worked on
while no other is, in any process. All goes by Pillow: arrays would take that much once more.
"""

from __future__ import annotations

import fcntl
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.data.transforms import FILTERS, Resizing, centred

MOST_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs
LARGE_PIXELS = 16_000_000  # as much as 130 MB; a larger picture is worked on alone
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
ORIENTATION = 0x0112  # EXIF: how a picture lies
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GREY_STEPS = {2: 85, 4: 17}  # Pillow spreads grey values of so many bits over 0..255
STRIP_ROWS = 256
Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Unreadable(Exception):
    """Why a file is no picture or no mask."""


def read_pair(
    image: Path, mask: Path | None, resizing: Resizing, folder: Path
) -> tuple[Pixels, Pixels | None]:
    """uint8 [S,S,3] of an image and uint8 [S,S] of its mask, which must be as large.

    Raises Unreadable. `folder` is what processes lock that share the memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF and the like: harmless
        with faults():
            width, height = size_of(image)
            large = width * height > LARGE_PIXELS
        with alone(folder, large):
            with faults():
                picture = upright(decoded(image))
                size = picture.size
                pixels = shrunk(picture, resizing)
                del picture
            if mask is None:
                return pixels, None
            with faults("its mask "):
                return pixels, shrunk_labels(mask, size, resizing)


def shrunk(picture: Image.Image, resizing: Resizing) -> Pixels:
    """uint8 [S,S,3]: the crop in colours, resized."""
    box = crop_box(picture, resizing)
    colours = picture.crop(box) if picture.mode == "RGB" else in_strips(picture, box, to_rgb)
    return np.asarray(resized(colours, resizing.size, FILTERS[resizing.filter]))


def shrunk_labels(path: Path, size: tuple[int, int], resizing: Resizing) -> Pixels:
    """uint8 [S,S]: the crop of the labels, nearest; Unreadable unless `size` (width, height)."""
    mask = decoded(path)
    if mask.size != size:
        its, wanted = ("x".join(map(str, lengths)) for lengths in (mask.size, size))
        raise Unreadable(f"has another size: {its} px, the image {wanted}")
    change = functools.partial(to_labels, grey_step(path))
    labels = in_strips(mask, crop_box(mask, resizing), change)
    return np.asarray(resized(labels, resizing.size, Image.Resampling.NEAREST))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height by the header, before anything is decoded; Unreadable when too many."""
    with open(path, "rb") as file:
        width, height = Image.open(file).size
    if width * height > MOST_PIXELS:
        raise Unreadable(f"more than {MOST_PIXELS:,} pixels")
    return width, height


def decoded(path: Path) -> Image.Image:
    """The whole picture (the first, where there are several), its file closed."""
    size_of(path)
    with open(path, "rb") as file:
        picture = Image.open(file)
        picture.load()
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says; damaged EXIF says nothing."""
    turn = None
    with suppress(Exception):  # whatever bytes may lie there
        turn = TURNS.get(int(picture.getexif().get(ORIENTATION, 1)))
    return picture if turn is None else picture.transpose(turn)


def crop_box(picture: Image.Image, resizing: Resizing) -> Box:
    """The centred square, as `Resizing.crop` has it."""
    width, height = picture.size
    top, left, side, _ = centred(height, width, resizing.centre)
    if side > min(width, height):
        raise Unreadable(f"{width}x{height} px is smaller than the crop of {side}x{side}")
    return left, top, left + side, top + side


def in_strips(
    picture: Image.Image, box: Box, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """The crop, changed some rows at a time: what that takes besides is little."""
    left, top, right, bottom = box
    made = None
    for row in range(top, bottom, STRIP_ROWS):
        strip = change(picture.crop((left, row, right, min(row + STRIP_ROWS, bottom))))
        made = made or Image.new(strip.mode, (right - left, bottom - top))
        made.paste(strip, (0, row - top))
    assert made is not None
    return made


def resized(picture: Image.Image, size: int, how: Image.Resampling) -> Image.Image:
    """To size x size px."""
    return picture if picture.size == (size, size) else picture.resize((size, size), how)


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture in any mode: grey thrice, transparency over black, 16 bits to 8."""
    if picture.mode in DEEP_GREY:
        picture = eight_bits(picture)
    if picture.mode == "F":
        raise Unreadable("holds fractions; 8 or 16 bits a value are wanted")
    if picture.mode in WITH_ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGB", picture.size)
        black.paste(picture, mask=picture.getchannel("A"))
        return black
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits, 0..65535, as the nearest of 0..255."""
    deep = np.asarray(picture)
    if int(deep.min()) < 0 or int(deep.max()) > 65535:
        raise Unreadable("has values outside of 16 bits")
    return Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))


def to_labels(step: int, mask: Image.Image) -> Image.Image:
    """Labels as grey: values that lie `step` apart, or the indices of a palette."""
    labels = np.asarray(mask)
    if labels.ndim == 3:
        colours = labels[..., :-1] if mask.mode in WITH_ALPHA else labels
        if not (colours == colours[..., :1]).all():
            raise Unreadable("is coloured; integer labels are wanted")
        labels = colours[..., 0]
    if labels.dtype.kind == "f" or int(labels.max()) > 255 or int(labels.min()) < 0:
        raise Unreadable("has labels outside 0..255")
    return Image.fromarray(labels.astype(np.uint8) // np.uint8(step))


def grey_step(path: Path) -> int:
    """How far apart Pillow puts neighbouring grey values of a PNG."""
    with open(path, "rb") as file:
        head = file.read(26)  # byte 24: bits a value; 25: kind, 0 is grey
    return GREY_STEPS.get(head[24], 1) if head[25] == 0 else 1


@contextmanager
def faults(whose: str = "") -> Iterator[None]:
    """Whatever a damaged file brings about as Unreadable, but not the want of memory."""
    try:
        yield
    except MemoryError:
        raise
    except Unreadable as error:
        raise Unreadable(f"{whose}{error}") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"{whose}more than {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise all kinds
        reason = getattr(error, "strerror", None) or "damaged, or no picture"
        raise Unreadable(f"{whose}{reason}") from error


@contextmanager
def alone(folder: Path, large: bool) -> Iterator[None]:
    """Small pictures share the folder's lock, a large one has it for itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            fcntl.flock(descriptor, fcntl.LOCK_EX if large else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
