"""Pictures and masks of every kind, their pixels known by hand."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.sources import folder_pictures
from sri_cli.data.sources.folder_pictures import Unreadable, read_pair
from sri_cli.data.transforms import Resizing

TURN_CLOCKWISE = 6  # EXIF


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(name: str, values: object, dtype: type = np.uint8, **how: Any) -> Path:
    Image.fromarray(np.array(values, dtype)).save(name, **how)
    return Path(name)


def look(path: Path, side: int = 2, mask: Path | None = None) -> np.ndarray:
    """Red of [2,2], cropped from the centre, not resized; the mask's labels where there is one."""
    pixels, labels = read_pair(path, mask, Resizing(side), Path())
    return pixels[..., 0] if labels is None else labels


def labels(mask: Path) -> list[list[int]]:
    """Of a mask of 2x2 pixels."""
    return look(save("image.png", [[0, 0], [0, 0]]), mask=mask).tolist()


def png(
    name: str,
    bits: int,
    kind: int,
    rows: list[bytes],
    *chunks: tuple[bytes, bytes],
    size: tuple[int, int] = (2, 2),
) -> Path:
    """A PNG of 2x2 pixels, byte by byte; its header may tell of more."""
    head = (b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0))
    data = (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    text = b"\x89PNG\r\n\x1a\n"
    for tag, body in (head, *chunks, data, (b"IEND", b"")):
        text += (
            struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
        )
    Path(name).write_bytes(text)
    return Path(name)


def exif(turn: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = turn
    return made


def test_grey_and_colours() -> None:
    assert look(save("a.png", [[9, 1, 2, 9], [9, 3, 4, 9]])).tolist() == [[1, 2], [3, 4]]
    colours = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert read_pair(save("b.bmp", colours), None, Resizing(2), Path())[0].tolist() == colours
    grey = read_pair(Path("a.png"), None, Resizing(2), Path())[0]
    assert grey.shape == (2, 2, 3) and (grey == grey[..., :1]).all()


def test_one_bit() -> None:
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).convert("1").save("a.png")
    assert look(Path("a.png")).tolist() == [[255, 0], [0, 255]]
    assert labels(Path("a.png")) == [[1, 0], [0, 1]]


def test_transparency_is_black() -> None:
    half = save("a.png", [[[100, 0, 0, 255], [100, 0, 0, 0]], [[255, 0, 0, 51], [255, 0, 0, 128]]])
    assert look(half).tolist() == [[100, 0], [51, 128]]
    grey = save("b.png", [[[100, 255], [100, 0]], [[255, 51], [255, 128]]])
    assert Image.open(grey).mode == "LA" and look(grey).tolist() == [[100, 0], [51, 128]]
    colours = (b"PLTE", bytes([100, 0, 0, 200, 0, 0]))
    palette = png("c.png", 8, 3, [b"\0\1", b"\1\0"], colours, (b"tRNS", bytes([255, 51])))
    assert look(palette).tolist() == [[100, 40], [40, 100]]


def test_palette() -> None:
    path = png("a.png", 8, 3, [b"\0\1", b"\1\0"], (b"PLTE", bytes([9, 8, 7, 1, 2, 3])))
    pixels, indices = read_pair(path, path, Resizing(2), Path())
    assert pixels[0].tolist() == [[9, 8, 7], [1, 2, 3]]
    assert indices is not None and indices.tolist() == [[0, 1], [1, 0]]


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    values = [[0, 257], [65535, 32768]]
    assert look(save("a.png", values, np.uint16)).tolist() == [[0, 1], [255, 128]]
    assert look(save("a.tif", values, np.uint16)).tolist() == [[0, 1], [255, 128]]
    dark = save("b.png", [[0, 100], [200, 255]], np.uint16)
    assert look(dark).tolist() == [[0, 0], [1, 1]]  # as dark beside the others as it was taken


@pytest.mark.parametrize(
    ("dtype", "message"),
    [(np.float32, "holds fractions"), (np.int32, "values outside of 16 bits")],
)
def test_values_without_a_known_range(dtype: type, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        look(save("a.tif", [[0, 70000], [1, 2]], dtype))


def test_cmyk() -> None:
    Image.new("CMYK", (16, 16), (0, 0, 0, 155)).save("a.jpg")
    assert abs(look(Path("a.jpg"), 16).astype(int) - 100).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_exif_turns_the_picture_and_its_mask_lies_as_it_is_seen(name: str) -> None:
    lying = np.zeros((16, 32, 3), np.uint8)
    lying[:, :16] = 200  # the left half; upright, turned clockwise, it is the upper half
    path = save(name, lying, exif=exif(TURN_CLOCKWISE), quality=100)
    mask = np.zeros((32, 16), np.uint8)
    mask[:16] = 5
    pixels, seen = read_pair(path, save("mask.png", mask), Resizing(16), Path())
    assert seen is not None
    assert (pixels[:8] > 190).all() and (pixels[8:] < 10).all()
    assert (seen[:8] == 5).all() and (seen[8:] == 0).all()
    with pytest.raises(Unreadable, match="its mask has another size: 32x16 px, the image 16x32"):
        read_pair(path, save("mask.png", mask.T), Resizing(16), Path())


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_turn(turn: int) -> None:
    """By the EXIF standard: what is where when row 0 and column 0 are at these sides."""
    a = np.array([[1, 2], [3, 4]])
    upright = [a, a[:, ::-1], a[::-1, ::-1], a[::-1], a.T, np.rot90(a, -1), a[::-1, ::-1].T]
    upright.append(np.rot90(a))
    path = save("a.png", a, exif=exif(turn))
    assert look(path).tolist() == upright[turn - 1].tolist()


def test_damaged_exif_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    junk = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + b"\xff" * 40
    assert (look(save("a.jpg", np.full((16, 16), 9), exif=junk), 16) == 9).all()
    assert not recwarn.list


def test_the_first_of_several() -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 20)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(name, save_all=True, append_images=frames[1:])
        assert look(Path(name)).tolist() == [[10, 10], [10, 10]]


def test_all_goes_as_resizing_says() -> None:
    """The crop and both filters, also where a picture is changed in strips."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (601, 547, 3), np.uint8)
    clear = np.concatenate([image, np.full((601, 547, 1), 255, np.uint8)], 2)
    mask = rng.integers(0, 9, (601, 547), np.uint8)
    for centre in (None, 300):
        how = Resizing(16, centre=centre)
        for pixels in (image, clear):
            got = read_pair(save("a.png", pixels), save("m.png", mask), how, Path())
            assert got[0].tolist() == how.picture(image).tolist()
            assert got[1] is not None and got[1].tolist() == how.labels(mask).tolist()


def test_labels_of_any_kind() -> None:
    assert labels(save("a.png", [[0, 1], [5, 255]])) == [[0, 1], [5, 255]]
    assert labels(save("b.png", [[0, 1], [5, 255]], np.uint16)) == [[0, 1], [5, 255]]
    thrice = [[[v] * 3 for v in row] for row in ([0, 1], [5, 9])]
    assert labels(save("c.png", thrice)) == [[0, 1], [5, 9]]
    with_alpha = [[[v, v, v, 255] for v in row] for row in ([0, 1], [5, 9])]
    assert labels(save("d.png", with_alpha)) == [[0, 1], [5, 9]]
    assert labels(png("e.png", 2, 0, [b"\x10", b"\xb0"])) == [[0, 1], [2, 3]]
    assert labels(png("f.png", 4, 0, [b"\x01", b"\x9f"])) == [[0, 1], [9, 15]]


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([[[1, 2, 1]] * 2] * 2, np.uint8, "its mask is coloured; integer labels are wanted"),
        ([[0, 300], [0, 0]], np.uint16, r"its mask has labels outside 0\.\.255"),
        ([[0] * 3] * 2, np.uint8, "its mask has another size: 3x2 px, the image 2x2"),
    ],
)
def test_masks_without_labels(values: object, dtype: type, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        labels(save("a.png", values, dtype))
    Path("b.png").write_text("no picture")
    with pytest.raises(Unreadable, match="its mask damaged, or no picture"):
        labels(Path("b.png"))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.gif", "a.tif"])
def test_what_is_cut_off_is_seen(name: str) -> None:
    """Wherever it is cut: a header alone says nothing of the rest."""
    rng = np.random.default_rng(0)
    whole = save(name, rng.integers(0, 256, (40, 40, 3))).read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        Path(name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(Unreadable):
            look(Path(name), 40)


def test_too_many_pixels() -> None:
    bomb = png("a.png", 8, 0, [b"\0\0", b"\0\0"], size=(60_000, 60_000))
    with pytest.raises(Unreadable, match="more than 89,478,485 pixels"):
        look(bomb)
    with pytest.raises(Unreadable, match="its mask more than 89,478,485 pixels"):
        labels(bomb)
    large = png("b.png", 8, 0, [b"\0\0", b"\0\0"], size=(10_000, 10_000))  # allowed by Pillow
    with pytest.raises(Unreadable, match="^more than 89,478,485 pixels"):
        look(large)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_file() -> None:
    save("a.png", [[1, 2], [3, 4]]).chmod(0)
    with pytest.raises(Unreadable, match="Permission denied"):
        look(Path("a.png"))


def test_a_large_picture_waits_until_no_other_is_worked_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("a.png", [[1, 2], [3, 4]])
    held = os.open(place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)  # as another process does with a small one
    assert look(Path("a.png")).tolist() == [[1, 2], [3, 4]]
    monkeypatch.setattr(folder_pictures, "LARGE_PIXELS", 3)
    waiting = threading.Thread(target=look, args=(Path("a.png"),), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    os.close(held)
    waiting.join(30)
    assert not waiting.is_alive()
