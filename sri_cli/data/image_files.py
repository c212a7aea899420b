"""Image and label files of any kind: which a folder holds, and decoded upright.

All commands that take images of yours read them through this module, and so does CLEVRTex.
An image is turned as its EXIF orientation says, so that all of them see what a viewer shows.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from sri_cli.data.dataset import is_data_file
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError

# Formats that Pillow only identifies, or draws with another program.
NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Pillow's names of formats, and of compressions of TIFF, that lose detail.
LOSSY = {"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF", "JXL", "DDS"}
LOSSY_TIFF = {"jpeg", "tiff_jpeg", "webp"}
PLUGINS = ("pillow_heif", "pillow_avif", "pillow_jxl")  # used where they are installed
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
LAYERS = {"MPO", "PSD"}  # whose further images are views or layers of the first
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
TURNS = {  # EXIF orientation -> what makes an image upright; 1: it is
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Pixels = NDArray[np.uint8]


class Unreadable(Exception):
    """Why a file is not an image, or not a mask."""


class Frame(NamedTuple):
    """Width and height of an upright image in pixels, and the EXIF orientation (1 to 8) by which
    it was turned."""

    width: int
    height: int
    orientation: int = 1


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings of files that Pillow and its installed plugins read: .png, .jpg, ..."""
    for name in PLUGINS:
        with suppress(Exception):  # not installed, or unusable
            plugin = importlib.import_module(name)
            getattr(plugin, "register_heif_opener", lambda: None)()
    Image.init()
    known = (Image.OPEN.keys() | {"MPO"}) - NOT_IMAGES  # MPO is opened as JPEG
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in known)


def image_files(folder: Path, more: tuple[str, ...] = ()) -> tuple[list[Path], Counter[str]]:
    """The images below `folder`, sorted by folder, and how many other files there are by ending.

    Links are followed. Hidden files (macOS writes `._x.png`), folders called x.png and contact
    sheets beside data files are no images; `more` names further endings to list.

    Raises:
        SriError: A folder cannot be read.
    """
    endings = image_endings() | set(more)
    images: list[Path] = []
    others: Counter[str] = Counter()
    seen = set()
    for here, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link into a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        there = set(names)
        for name in sorted(names):
            path = Path(here, name)
            # A broken link is an image that cannot be read; a pipe would block.
            if name.startswith(".") or not (path.is_file() or path.is_symlink()):
                continue
            if path.suffix.lower() not in endings:
                others[path.suffix.lower()] += 1
            elif not (f"{path.stem}.h5" in there and _is_sheet(path)):
                images.append(path)
    return images, others


def _is_sheet(path: Path) -> bool:
    """Whether this is the contact sheet that `sri prepare show` draws beside a data file; features
    or copies of an image may be HDF5, too."""
    return path.suffix == ".png" and is_data_file(path.with_suffix(".h5"))


def _refuse(error: OSError) -> NoReturn:
    """For os.walk, which would skip the folder."""
    raise SriError(f"{error.filename} cannot be read: {error.strerror}", "make it readable")


def decode_image(path: Path, resizing: Resizing) -> tuple[Pixels, Frame]:
    """An image file of any kind as uint8 [S,S,3], and its size.

    It is turned as its EXIF says; transparency is black, 16 bits become 8. Raises Unreadable.
    """
    with unreadable():
        image, frame = read_upright(path)
        return resizing.image(np.asarray(to_rgb(image))), frame


def read_upright(path: Path) -> tuple[Image.Image, Frame]:
    """The whole image (the first of several), turned as its EXIF says.

    Mode and values are the file's, `image.format` is Pillow's name of the file's format. Raises
    Unreadable.
    """
    with unreadable():
        image_endings()  # loads the plugins
        with open(path, "rb") as file:
            image = Image.open(file)
            is_tiff = image.format == "TIFF"  # turned by Pillow while it loads, which drops the tag
            orientation = _orientation(image) if is_tiff else 1
            image.load()
        if not is_tiff:  # the tag may stand after the pixels
            orientation = _orientation(image)
        if orientation not in TURNS:
            return image, Frame(*image.size)
        turned = image if is_tiff else image.transpose(TURNS[orientation])
        turned.format = image.format
        return turned, Frame(*turned.size, orientation)


def _orientation(image: Image.Image) -> int:
    """By EXIF, as far as it is read; 1 without."""
    with suppress(Exception):  # damaged EXIF means nothing
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def is_lossy(path: Path) -> bool:
    """Whether the file's compression loses detail, by its content; False for an unreadable one.

    AVIF, HEIF, JPEG 2000 and JPEG XL have lossless modes, which are rare and not told apart.
    """
    with suppress(Exception):
        image_endings()  # loads the plugins
        with Image.open(path) as image:
            if image.format == "WEBP":
                return not _is_lossless_webp(path)
            return image.format in LOSSY or image.info.get("compression") in LOSSY_TIFF
    return False


def depth_and_frames(path: Path) -> tuple[bool, int]:
    """Whether an image is grey of more than 8 bits, and how many images its file holds.

    By the heads in the file, no pixel is decoded; (False, 1) for an unreadable one.
    """
    with suppress(Exception):
        image_endings()  # loads the plugins
        with Image.open(path) as image:
            frames = 1 if image.format in LAYERS else getattr(image, "n_frames", 1)
            return image.mode in DEEP_GREY, frames
    return False, 1


def _is_lossless_webp(path: Path) -> bool:
    """Whether all pixels are in chunks VP8L; those of an animation are inside chunks ANMF."""
    data, at, kinds = path.read_bytes(), 12, set()
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        kinds.add(kind)
        at += 24 if kind == b"ANMF" else 8 + size + size % 2
    return b"VP8 " not in kinds


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image in 8-bit RGB: transparency over black, 16 bits scaled; Unreadable for fractions."""
    if image.mode in DEEP_GREY:
        deep = np.asarray(image)
        if int(deep.min()) < 0 or int(deep.max()) > 65535:
            raise Unreadable("has values outside of 16 bits")
        image = Image.fromarray(((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("holds fractions, not 8 or 16 bits a value")
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image.getchannel("A"))
        return black
    return image.convert("RGB")


def decode_labels(
    path: Path, frame: Frame, resizing: Resizing, reserved: Collection[int] = ()
) -> tuple[Pixels, bool]:
    """The integer labels of the image of `frame`, from an image file or an .npy, as uint8 [S,S];
    and whether they were turned as the image's EXIF says. Labels above 255 are renumbered, and take
    none of the `reserved` numbers.

    A mask without a tag of its own is turned if its size fits the stored image alone. Unreadable if
    it has another size, or if both sizes are equal: the mask may be drawn on either.
    """
    labels: NDArray[Any]
    with unreadable("its mask "):
        if path.suffix.lower() == ".npy":
            labels, own = _load_labels(path), 1
        else:
            if is_lossy(path):
                raise Unreadable("has lossy compression, which changes labels: save it as PNG")
            mask, (*_, own) = read_upright(path)
            labels = np.asarray(mask)
            if labels.ndim == 3:
                colours = labels[..., :-1] if mask.mode in WITH_ALPHA else labels
                labels = colours[..., 0]
                if not (colours == labels[..., None]).all():
                    raise Unreadable("is coloured, not integer labels")
        if labels.dtype.kind == "f" or int(labels.min()) < 0 or int(labels.max()) >= 2**31:
            raise Unreadable("has labels that are no whole numbers from 0")
        labels = labels.astype(np.int32) // _grey_step(path)
        turned = own == 1 and _is_stored(labels.shape[::-1], frame)
        if turned:
            labels = np.asarray(Image.fromarray(labels).transpose(TURNS[frame.orientation]))
        height, width = labels.shape
        if (width, height) != frame[:2]:
            raise Unreadable(f"has {width}x{height} px, the image {frame.width}x{frame.height}")
        return _in_a_byte(resizing.labels(labels), reserved), turned


def _in_a_byte(labels: NDArray[np.int32], reserved: Collection[int]) -> Pixels:
    """Labels above 255, as masks of 16 bits have, by numbers that are free in this image.

    These are from 254 down: low ones may be background, and 255 is often void.
    """
    large = np.unique(labels[labels > 255])
    taken = {*np.unique(labels).tolist(), *reserved}
    free = [number for number in range(254, 0, -1) if number not in taken]
    if len(large) > len(free):
        raise Unreadable("has more objects in the crop than free labels up to 254")
    numbered = labels.astype(np.uint8)
    for label, number in zip(large, free, strict=False):
        numbered[labels == label] = number
    return numbered


def _load_labels(path: Path) -> NDArray[Any]:
    """The array of an .npy file, integers or truth values [H,W] or [H,W,1]."""
    try:
        labels: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Unreadable("is no .npy array of numbers") from error
    if labels.ndim == 3 and labels.shape[2] == 1:
        labels = labels[..., 0]
    if labels.ndim != 2 or labels.dtype.kind not in "iub" or not labels.size:
        raise Unreadable(f"is {labels.dtype} {list(labels.shape)}, not integers [H,W]")
    return labels


def _is_stored(size: tuple[int, ...], frame: Frame) -> bool:
    """Whether a mask of this width and height fits the stored pixels of a turned image alone."""
    if frame.orientation == 1:
        return False
    upright = frame[:2]
    stored = upright[::-1] if frame.orientation >= 5 else upright
    if size == stored == upright:
        raise Unreadable(
            "fits the image both as it is stored and as its EXIF tag turns it: save the image"
            " upright and without the tag"
        )
    return size == stored


def _grey_step(path: Path) -> int:
    """By how much Pillow multiplies the grey values of a PNG of 2 or 4 bits."""
    with open(path, "rb") as file:
        head = file.read(26)  # byte 24: bits a value; 25: kind, 0 is grey
    is_grey_png = head.startswith(b"\x89PNG") and head[25] == 0
    return {2: 85, 4: 17}.get(head[24], 1) if is_grey_png else 1


@contextmanager
def unreadable(subject: str = "") -> Iterator[None]:
    """Turn whatever a damaged file causes into Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF and the like
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"{subject}has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except (Unreadable, ValueError) as error:  # ValueError: smaller than the crop
        raise Unreadable(f"{subject}{error}") from error.__cause__ or error
    except Exception as error:  # Pillow's decoders raise all kinds
        reason = getattr(error, "strerror", None) or "damaged, or not an image"
        raise Unreadable(f"{subject}{reason}") from error
