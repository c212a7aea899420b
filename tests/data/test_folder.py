"""Your own images: decoded, cropped and resized, split once; unusable files are reported."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import DataFile
from sri_cli.data.image_files import Frame, Unreadable, decode_image, decode_labels
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Scenario
from sri_cli.data.sources.folder import Entry, FolderOptions, FolderSource
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(path: str | Path, values: object, dtype: type = np.uint8, **options: Any) -> Path:
    """An image of these values; grey or colours by their shape."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path, **options)
    return path


def greys(count: int, masks: bool = False, folder: str = "mine") -> None:
    """Images of one grey, their number; masks whose right half is object 2."""
    for number in range(count):
        save(f"{folder}/{number:02}.png", np.full((8, 8), number))
        if masks:
            save(f"{folder}/masks/{number:02}.png", [[0] * 4 + [2] * 4] * 8)


def made(folder: str = "mine", workers: int = 1, **options: Any) -> DataFile:
    source = FolderSource(Path(folder), FolderOptions(size_px=8, **options), workers)
    path = Path("data", f"{source.header.name}-8.h5")
    return prepare(source, path, workers=workers, force=True).data


def contents(data: DataFile) -> dict[str, list[int]]:
    return {name: data.split(name).images[:, 0, 0, 0].tolist() for name in data.counts}


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, ["prepare", "folder", *words])


def test_every_image_is_in_one_split(tmp_path: Path) -> None:
    greys(20, masks=True)
    data = made()
    parts = contents(data)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(sum(parts.values(), [])) == list(range(20))
    assert (data.name, data.source) == ("mine", "folder")
    masks = data.split("train").masks
    assert masks is not None and (masks[:, :, :4] == 0).all() and (masks[:, :, 4:] == 2).all()
    names = data.split("val").factors["scenario"]
    assert [int(name) for name in names] == parts["val"]
    assert contents(made(seed=1)) != parts
    assert made(scenes=6, val_scenes=3).counts == {"train": 6, "val": 3, "test": 2}
    greys(3, folder="three")
    assert made("three").counts == {"train": 1, "val": 1, "test": 1}
    assert made("three").split("train").masks is None


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("mine/{}", "mine/masks/{}"),
        ("mine/{}", "mine/{}/masks"),
        ("mine/{}/Images", "mine/{}/Masks"),
        ("mine/images/{}", "mine/masks/{}"),
    ],
)
def test_a_folder_with_splits_of_its_own(images: str, masks: str) -> None:
    for tens, split in enumerate(("train", "valid", "test")):
        for number in range(2):
            grey = 10 * tens + number
            save(f"{images.format(split)}/a b/{number}.png", np.full((8, 8), grey))
            save(f"{masks.format(split)}/a b/{number}.PNG", np.full((8, 8), grey + 1))
    data = made()
    assert contents(data) == {"train": [0, 1], "val": [10, 11], "test": [20, 21]}
    for name in data.counts:
        own = data.split(name).masks
        assert own is not None and (own == data.split(name).images[..., 0] + 1).all()
    assert contents(made(scenes=1, seed=1))["val"] == [10, 11]  # a sixth, 2 at least
    assert made(scenes=1, test_scenes=1).counts == {"train": 1, "val": 2, "test": 1}
    with pytest.raises(SriError, match="3 val images"):
        made(val_scenes=3)


def test_own_splits_are_never_mixed() -> None:
    for grey, split in enumerate(("train", "val")):
        for number in range(5):
            save(f"mine/{split}/{number}.png", np.full((8, 8), 10 * grey + number))
    save("mine/stray.png", np.zeros((8, 8)))
    with pytest.raises(SriError, match="test/"):
        made()
    save("mine/test/bad.png", np.zeros((8, 8))).write_bytes(b"")
    with pytest.raises(SriError, match="test"):
        made()
    save("mine/test/good.png", np.full((8, 8), 20))
    assert contents(made()) == {"train": [0, 1, 2, 3, 4], "val": [10, 11, 12, 13, 14], "test": [20]}
    greys(10, folder="other/test")  # a folder called test alone is no split
    assert sum(made("other").counts.values()) == 10


def test_images_beside_masks_with_a_crop() -> None:
    for number, (height, width) in enumerate([(8, 12), (20, 9), (8, 8), (11, 11)]):
        image = np.full((height, width), 100)
        image[(height - 8) // 2 : (height + 8) // 2, (width - 8) // 2 : (width + 8) // 2] = 200
        save(f"mine/images/sub dir/ö {number}.png", image)
        save(f"mine/masks/sub dir/ö {number}.png", image // 50)
    data = made(crop=6)
    assert sum(data.counts.values()) == 4
    assert all((data.split(name).images == 200).all() for name in data.counts)
    assert all((data.split(name).masks == 4).all() for name in data.counts)
    assert "ö" in data.split("train").factors["scenario"][0].decode()


def spoil(kind: str) -> None:
    """Eight good images and one that is bad in some way."""
    greys(8, masks="mask" in kind)
    bad, good = Path("mine/bad.png"), Path("mine/00.png").read_bytes()
    save(bad, np.zeros((8, 8)))
    if kind == "empty":
        bad.write_bytes(b"")
    elif kind == "truncated":
        bad.write_bytes(good[: len(good) * 2 // 3])
    elif kind == "text":
        bad.write_text("not an image")
    elif kind == "small":
        save(bad, np.zeros((4, 9)))
    elif kind == "large":
        save(bad, np.zeros((3, 3000)))
    elif kind == "large mask":
        save("mine/masks/bad.png", np.ones((9, 9)))
    elif kind == "link":
        bad.unlink()
        bad.symlink_to("nothing")


@pytest.mark.parametrize(
    "kind", ["empty", "truncated", "text", "small", "large", "large mask", "no mask", "link"]
)
def test_unusable_files_are_left_out_or_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    spoil(kind)
    words = ["mine", "--size", "8", "--workers", "1"] + ["--crop", "6"] * (kind == "small")
    strict = sri(*words, "--strict")
    assert strict.exit_code == 2 and "1 of 9 images cannot be used: bad: " in strict.stderr
    assert not Path("data").exists() or os.listdir("data") == []
    result = sri(*words)
    assert result.exit_code == 0 and "bad: " in result.stderr, result.output
    data = DataFile(Path("data/mine-8.h5"))
    assert sum(data.counts.values()) == 8
    assert (data.attrs["skipped"], data.attrs["skipped_files"]) == (1, '["bad"]')


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["none"], "none"),
        (["mine/00.png"], "mine/00.png"),
        (["empty"], "empty"),
        (["mine", "--name", "clevr6"], "clevr6"),
        (["mine", "--name", "a/b"], "a/b"),
        (["图片"], "图片"),
        (["twice"], "twice/00.jpg"),
        (["others"], "1 mask"),
        (["bad"], "3 of 3 images"),
        (["few"], "too few images (2)"),
        (["mine", "--scenes", "4"], "4 train"),
    ],
)
def test_errors_leave_nothing(words: list[str], reported: str) -> None:
    greys(4)
    Path("empty").mkdir()
    save("twice/00.png", [[1]])
    save("twice/00.jpg", [[1]])
    greys(2, folder="few")
    greys(4, folder="图片")
    greys(4, folder="others")
    save("others/masks/00.jpg", np.zeros((8, 8)))
    Path("bad").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (Path("bad") / name).write_text("not an image")
    result = sri(*words)
    assert result.exit_code == 2 and reported in result.stderr, result.output
    assert not Path("data").exists()


def test_a_changed_folder_or_other_options_are_noticed() -> None:
    greys(6)
    words = ("mine", "--size", "8", "--workers", "1")
    assert sri(*words).exit_code == sri(*words).exit_code == 0
    assert sri(*words, "--strict").exit_code == 0  # it changes nothing that was made
    assert "background 1 -> 2" in sri(*words, "--background", "2").stderr
    assert "crop largest square -> 8" in sri(*words, "--crop", "8").stderr
    save("mine/06.png", [[1] * 8] * 8)
    changed_folder = sri(*words)
    assert changed_folder.exit_code == 2 and "files 6 -> 7" in changed_folder.stderr


def test_a_stopped_preparation_resumes_at_any_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 1)
    greys(12, masks=True)
    Path("mine/bad.png").write_bytes(b"")
    source = FolderSource(Path("mine"), FolderOptions(size_px=8))
    calls, make = itertools.count(1), source.make

    def stopping(entry: Entry) -> Scenario:
        if next(calls) == 7:
            signal.raise_signal(signal.SIGTERM)
        return make(entry)

    source.make = stopping  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        prepare(source, Path("a-8.h5"), workers=1)
    source.make = make  # type: ignore[method-assign]
    resumed = prepare(source, Path("a-8.h5"), workers=1)
    assert resumed.resumed_from == 7 and resumed.data.attrs["skipped_files"] == '["bad"]'
    one, two = made(), made(workers=2, name="two")
    for split in one.counts:
        for data in (two, resumed.data):
            parts = (one.split(split), data.split(split))
            assert np.array_equal(*(part.images for part in parts))
            assert np.array_equal(*(part.masks for part in parts))
            assert np.array_equal(*(part.factors["scenario"] for part in parts))


def test_names_of_any_kind_stay_different() -> None:
    greys(3)
    for number, name in enumerate(["ä" * 40 + "1", "ä" * 40 + "2", "a\nb", "IMG.2020.01"]):
        save(f"mine/{name}.png", np.full((8, 8), 3 + number))
    with open(b"mine/\xff\xfe.png", "wb") as file:
        file.write(Path("mine/00.png").read_bytes())
    data = made()
    names = [n.decode() for split in data.counts for n in data.split(split).factors["scenario"]]
    assert len(set(names)) == 8 and {"IMG.2020.01", "a\ufffdb", "\ufffd\ufffd"} < set(names)
    for folder, name in (("Bilder für mich", "Bilder-fur-mich"), ("-x.y-", "x-y")):
        greys(5, folder=folder)
        assert made(folder).name == name


def test_what_is_no_image() -> None:
    """Folders and pipes with such names, hidden files, contact sheets, circles of links."""
    greys(5)
    os.mkdir("mine/folder.png")
    os.mkfifo("mine/pipe.png")
    for name in (".hidden.png", ".cache/a.png", "sheet-8.png"):
        save(f"mine/{name}", np.zeros((8, 8)))
    Path("mine/sheet-8.h5").touch()
    os.symlink("..", "mine/folder.png/up")
    save("elsewhere/linked.JPG", np.zeros((8, 8)))
    os.symlink(Path("elsewhere").resolve(), "mine/link")
    assert sum(made().counts.values()) == 6


# Decoding: images of 2x2 pixels


def red(path: Path, side: int = 2) -> list[list[int]]:
    """Red of an image, cropped from the centre, not resized."""
    return decode_image(path, Resizing(side))[0][..., 0].tolist()


def labels(path: Path) -> list[list[int]]:
    return decode_labels(path, Frame(2, 2), Resizing(2)).tolist()


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
        save("h.png", [[0, 300], [0, 0]], np.uint16),
        save("i.png", [[0] * 3] * 2),
        png("j.png", 8, 0, [b"\0\0", b"\0\0"], side=60_000),
    ):
        with pytest.raises(Unreadable, match="its mask"):
            labels(path)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_range(dtype: type) -> None:
    with pytest.raises(Unreadable):
        red(save("a.tif", [[0, 70000], [1, 2]], dtype))


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_turn(turn: int) -> None:
    """By the EXIF standard: what is where when row 0 and column 0 are at these sides."""
    a = np.array([[1, 2], [3, 4]])
    upright = [a, a[:, ::-1], a[::-1, ::-1], a[::-1], a.T, np.rot90(a, -1), a[::-1, ::-1].T]
    upright.append(np.rot90(a))
    assert red(save("a.png", a, exif=exif(turn))) == upright[turn - 1].tolist()
    frame = decode_image(save("b.png", np.zeros((16, 32)), exif=exif(turn)), Resizing(16))[1]
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


def test_masks_take_the_nearest_and_stay_labels() -> None:
    mask = np.array([[0, 9, 0, 2], [3, 5, 0, 7], [0, 0, 0, 0], [1, 4, 0, 6]], np.uint8)
    assert Resizing(2).labels(mask).tolist() == [[5, 7], [4, 6]]


def test_centre_crop_drops_as_much_on_every_side() -> None:
    mask = np.arange(25, dtype=np.uint8).reshape(5, 5)
    assert Resizing(3, centre=3).labels(mask).tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
    wide = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert Resizing(2).labels(wide).tolist() == [[1, 2], [5, 6]]


def test_box_is_rows_then_columns() -> None:
    mask = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert Resizing(2, box=(1, 3, 2, 2)).labels(mask).tolist() == [[8, 9], [13, 14]]


@pytest.mark.parametrize("how", [Resizing(2, centre=6), Resizing(2, box=(3, 0, 3, 3))])
def test_an_image_smaller_than_the_crop(how: Resizing) -> None:
    with pytest.raises(ValueError, match="5x5 px is smaller than the crop"):
        how.crop(np.zeros((5, 5), np.uint8))
