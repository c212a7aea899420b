"""Image and label files of every kind, decoded upright; crop and resize."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.image_files import (
    Frame,
    Unreadable,
    decode_image,
    decode_labels,
    depth_and_frames,
    read_upright,
    to_rgb,
)
from sri_cli.data.sources.folder import FolderOptions, FolderSource
from sri_cli.data.sources.listing import MaskNames, list_images
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError
from tests.small_data import save_image as save

pytestmark = pytest.mark.usefixtures("here")


# Decoding: images of 2x2 pixels


def red(path: Path, side: int = 2) -> list[list[int]]:
    """Red of an image, cropped from the centre, not resized."""
    return decode_image(path, Resizing(side))[0][..., 0].tolist()


def labels(path: Path) -> list[list[int]]:
    return decode_labels(path, Frame(2, 2), Resizing(2))[0].tolist()


def png(
    name: str, bits: int, kind: int, rows: list[bytes], *chunks: tuple[bytes, bytes], side: int = 2
) -> Path:
    """A PNG of 2x2 pixels, byte by byte; its header may name another size."""
    head = (b"IHDR", struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0))
    data = (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    text = b"\x89PNG\r\n\x1a\n"
    for tag, body in (head, *chunks, data, (b"IEND", b"")):
        text += struct.pack(">I", len(body)) + tag + body
        text += struct.pack(">I", zlib.crc32(tag + body))
    Path(name).write_bytes(text)
    return Path(name)


def exif(turn: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = turn
    return made


def test_photographs_of_a_phone_alone_need_a_package() -> None:
    Path("mine").mkdir()
    for name, needed in (("a.txt", False), ("a.heic", True)):
        Path("mine", name).touch()
        with pytest.raises(SriError) as refused:
            list_images(Path("mine"))
        assert ("pillow-heif" in str(refused.value.hint)) == needed


def test_the_current_folder_may_be_that_of_the_masks() -> None:
    save("mine/images/a.png", [[1]])
    save("mine/masks/a.png", [[1]])
    os.chdir("mine/masks")
    (entry,), _ = list_images(Path("../images"), MaskNames(folder="."))
    assert entry.mask == Path("a.png")
    with pytest.raises(SriError, match="--masks"):  # they are not below the images
        list_images(Path("../images"), MaskNames(folder=".."))


def test_grey_colours_bits_and_alpha() -> None:
    assert red(save("a.png", [[9, 1, 2, 9], [9, 3, 4, 9]])) == [[1, 2], [3, 4]]
    colours = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert decode_image(save("b.bmp", colours), Resizing(2))[0].tolist() == colours
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).convert("1").save("c.png")
    assert red(Path("c.png")) == [[255, 0], [0, 255]] and labels(Path("c.png")) == [[1, 0], [0, 1]]
    half = [[[100, 0, 0, 255], [100, 0, 0, 0]], [[255, 0, 0, 51], [255, 0, 0, 128]]]
    assert red(save("d.png", half)) == [[100, 0], [51, 128]]
    grey = save("e.png", [[[100, 255], [100, 0]], [[255, 51], [255, 128]]])
    assert Image.open(grey).mode == "LA" and red(grey) == [[100, 0], [51, 128]]
    palette = (b"PLTE", bytes([100, 0, 0, 200, 0, 0]))
    clear = png("f.png", 8, 3, [b"\0\1", b"\1\0"], palette, (b"tRNS", bytes([255, 51])))
    assert red(clear) == [[100, 40], [40, 100]] and labels(clear) == [[0, 1], [1, 0]]
    deep = [[0, 257], [65535, 32768]]  # 16 bits are scaled, not cut
    assert red(save("g.png", deep, np.uint16)) == [[0, 1], [255, 128]]
    assert red(save("g.tif", deep, np.uint16)) == [[0, 1], [255, 128]]
    Image.new("CMYK", (16, 16), (0, 0, 0, 155)).save("h.jpg")
    assert abs(np.array(red(Path("h.jpg"), 16)) - 100).max() <= 3
    frames = [Image.new("L", (2, 2), value) for value in (10, 20)]
    frames[0].save("i.gif", save_all=True, append_images=frames[1:])
    assert red(Path("i.gif")) == [[10, 10], [10, 10]]  # the first of several


def test_labels_of_any_kind() -> None:
    assert labels(save("a.png", [[0, 1], [5, 255]])) == [[0, 1], [5, 255]]
    assert labels(save("b.png", [[0, 1], [5, 255]], np.uint16)) == [[0, 1], [5, 255]]
    for more in ([], [255]):
        colours = [[[v, v, v, *more] for v in row] for row in ([0, 1], [5, 9])]
        assert labels(save("c.png", colours)) == [[0, 1], [5, 9]]
    assert labels(png("e.png", 2, 0, [b"\x10", b"\xb0"])) == [[0, 1], [2, 3]]
    assert labels(png("f.png", 4, 0, [b"\x01", b"\x9f"])) == [[0, 1], [9, 15]]
    for path in (
        save("g.png", [[[1, 2, 1]] * 2] * 2),
        save("i.png", [[0] * 3] * 2),
        png("j.png", 8, 0, [b"\0\0", b"\0\0"], side=60_000),
    ):
        with pytest.raises(Unreadable, match="its mask"):
            labels(path)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_labels_above_255_take_free_numbers(ending: str) -> None:
    """Those of the crop alone count; others keep theirs, and 255 is given to none."""
    tile = save(f"a{ending}", [[0, 301], [312, 301]], np.uint16)
    assert labels(tile) == [[0, 254], [253, 254]]
    beside = save(f"b{ending}", [[254, 40_000], [255, 1]], np.uint16)
    assert labels(beside) == [[254, 253], [255, 1]]
    whole = save(f"c{ending}", np.arange(32 * 32).reshape(32, 32), np.uint16)
    middle, _ = decode_labels(whole, Frame(32, 32), Resizing(8, centre=8))
    assert middle.dtype == np.uint8 and len(np.unique(middle)) == 64
    halved, _ = decode_labels(whole, Frame(32, 32), Resizing(8, centre=16))
    assert len(np.unique(halved)) == 64
    with pytest.raises(Unreadable, match="its mask"):
        decode_labels(whole, Frame(32, 32), Resizing(32))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"void_label": 254}, [0, 252, 253]),
        ({"background_label": 254}, [252, 253, 254]),  # 0 is an object, and takes its number
        ({"background_labels": 254}, None),  # no number is free for the second
    ],
)
def test_no_object_takes_the_number_of_void_or_background(
    options: dict[str, int], expected: list[int] | None
) -> None:
    for number in range(3):
        save(f"mine/{number}.png", np.full((2, 2), number))
        save(f"mine/masks/{number}.png", [[0, 300], [301, 0]], np.uint16)
    source = FolderSource(Path("mine"), FolderOptions(size_px=8, **options))
    if expected is None:
        with pytest.raises(SriError, match="its mask"):
            source.survey(1)
        return
    assert np.unique(source.make(source.entries[0]).masks).tolist() == expected


def test_depth_and_number_of_images_without_decoding() -> None:
    pages = [Image.fromarray(np.full((2, 2), value, np.uint16)) for value in (1, 2, 3)]
    pages[0].save("a.tif", save_all=True, append_images=pages[1:])
    frames = [Image.new("L", (2, 2), value) for value in (10, 20)]
    frames[0].save("b.gif", save_all=True, append_images=frames[1:])
    frames[0].save("c.mpo", save_all=True, append_images=frames[1:])  # views of one scene
    Path("d.png").write_bytes(b"")
    save("e.png", [[0, 1], [2, 3]], np.uint16)
    found = [depth_and_frames(Path(name)) for name in ("a.tif", "b.gif", "c.mpo", "d.png", "e.png")]
    assert found == [(True, 3), (False, 2), (False, 1), (False, 1), (True, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_range(dtype: type) -> None:
    with pytest.raises(Unreadable):
        red(save("a.tif", [[0, 70000], [1, 2]], dtype))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("turn", range(2, 9))
def test_a_mask_in_stored_pixels_is_turned_as_its_image(turn: int, ending: str) -> None:
    """As far as its size shows it; otherwise it may be drawn on either."""
    stored = np.arange(512).reshape(16, 32) % 251
    image, tagged = f"a{ending}", f"tagged{ending}"
    save(image, stored, exif=exif(turn))
    upright = red_of(image)
    shapes = {"stored.png": stored, "upright.png": upright}
    for name, values in shapes.items():
        save(name, values)
    save(tagged, stored, exif=exif(turn))
    frame = decode_image(Path(image), Resizing(16))[1]

    def read(name: str) -> tuple[list[list[int]], bool]:
        mask, turned = decode_labels(Path(name), frame, Resizing(16))
        return mask.tolist(), turned

    expected = Resizing(16).labels(upright).tolist()
    assert read(tagged) == (expected, False)
    if turn < 5:  # both sizes are equal
        for name in shapes:
            with pytest.raises(Unreadable, match="EXIF"):
                read(name)
    else:
        assert read("stored.png") == (expected, True)
        assert read("upright.png") == (expected, False)
        square = Frame(16, 16, turn)
        save("square.png", stored[:, :16])
        with pytest.raises(Unreadable, match="EXIF"):
            decode_labels(Path("square.png"), square, Resizing(16))


def red_of(path: str) -> np.ndarray:
    """Red of the whole upright image."""
    return np.asarray(to_rgb(read_upright(Path(path))[0]))[..., 0]


def test_masks_that_are_no_labels(tmp_path: Path) -> None:
    for name, values in {
        "float.npy": np.zeros((2, 2)),
        "large.npy": np.full((2, 2), 2**31),
        "deep.npy": np.zeros((2, 2, 3), np.uint8),
        "objects.npy": np.array([{}], object),
    }.items():
        np.save(name, values, allow_pickle=True)
    Path("cut.npy").write_bytes(Path("large.npy").read_bytes()[:100])
    Path("empty.npy").touch()
    save("lossy.jpg", [[0, 1], [5, 255]])
    for path in [*tmp_path.glob("*.npy"), Path("lossy.jpg")]:
        with pytest.raises(Unreadable, match="its mask"):
            labels(path)
    np.save("good.npy", np.array([[[0], [1]], [[5], [9]]], np.int64))
    assert labels(Path("good.npy")) == [[0, 1], [5, 9]]


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_turn(turn: int, ending: str) -> None:
    """By the EXIF standard: what is where when row 0 and column 0 are at these sides."""
    a = np.array([[1, 2], [3, 4]])
    upright = [a, a[:, ::-1], a[::-1, ::-1], a[::-1], a.T, np.rot90(a, -1), a[::-1, ::-1].T]
    upright.append(np.rot90(a))
    assert red(save(f"a{ending}", a, exif=exif(turn))) == upright[turn - 1].tolist()
    wide = save(f"b{ending}", np.zeros((16, 32)), exif=exif(turn))
    frame = decode_image(wide, Resizing(16))[1]
    assert frame == (*((32, 16) if turn < 5 else (16, 32)), turn)  # as a mask must have it


def test_damaged_exif_means_nothing(recwarn: pytest.WarningsRecorder) -> None:
    junk = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 40
    assert red(save("a.jpg", np.full((16, 16), 9), exif=junk), 16) == [[9] * 16] * 16
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.gif", "a.tif"])
def test_truncated_images(name: str) -> None:
    """Wherever they end: a header alone says nothing of the rest."""
    rng = np.random.default_rng(0)
    whole = save(name, rng.integers(0, 256, (40, 40, 3))).read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        Path(name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(Unreadable):
            red(Path(name), 40)


def test_too_many_pixels() -> None:
    for side in (60_000, 10_000):  # the second is allowed by Pillow, with a warning
        with pytest.raises(Unreadable, match="pixels"):
            red(png("a.png", 8, 0, [b"\0\0", b"\0\0"], side=side))


# Crop and resize


def grey(*rows: list[int]) -> np.ndarray:
    """[H,W,3] with three equal channels."""
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


def test_bilinear_averages_over_what_it_shrinks() -> None:
    # Halving, the triangle reaches a pixel beyond: weights 3, 3, 1 of 7 at the border.
    shrunk = Resizing(2).image(grey(*[[0, 0, 70, 70]] * 4))
    assert shrunk[0, :, 0].tolist() == [10, 60]
    assert (shrunk == shrunk[0]).all()


def test_centre_crop_drops_as_much_on_every_side() -> None:
    mask = np.arange(25, dtype=np.uint8).reshape(5, 5)
    assert Resizing(3, centre=3).labels(mask).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
    wide = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert Resizing(2).labels(wide).tolist() == [[1, 2], [5, 6]]


@pytest.mark.parametrize("how", [Resizing(2, centre=6), Resizing(2, box=(3, 0, 3, 3))])
def test_an_image_smaller_than_the_crop(how: Resizing) -> None:
    with pytest.raises(ValueError, match="5x5 px is smaller than the crop"):
        how.crop(np.zeros((5, 5), np.uint8))
