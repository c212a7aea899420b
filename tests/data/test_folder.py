"""A user's own images: read as they are meant, split once, and what is unreadable is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli import cli
from sri_cli.data.sources import folder_pictures
from sri_cli.data.sources.folder import FolderSettings, folder_job, prepare_folder
from sri_cli.data.sources.folder_pictures import Unreadable, read_mask, read_picture
from sri_cli.data.store import DataFile
from sri_cli.errors import SriError
from sri_cli.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: str | Path, values: object, mode: str | None = None, **how: object) -> Path:
    """A picture of these values; grey or colours by their shape."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values, np.uint8))
    (picture.convert(mode) if mode else picture).save(path, **how)
    return path


def greys(count: int, masks: bool = False, folder: str = "mine") -> None:
    """Images of one grey, their number; masks whose right half is object 2."""
    for number in range(count):
        save(f"{folder}/{number:02}.png", np.full((8, 8), number))
        if masks:
            save(f"{folder}/masks/{number:02}.png", [[0] * 4 + [2] * 4] * 8)


def made(folder: str = "mine", workers: int = 1, **settings: object) -> DataFile:
    space = Workspace(Path("data"), Path("runs"))
    asked = FolderSettings(size_px=8, **settings)  # type: ignore[arg-type]
    return prepare_folder(space, Path(folder), asked, workers=workers, force=True).data


def contents(data: DataFile) -> dict[str, list[int]]:
    return {name: data.split(name).images[:, 0, 0, 0].tolist() for name in data.counts}


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, ["prepare", "folder", *words])


def test_every_image_is_in_one_split_and_none_in_two(place: Path) -> None:
    greys(20, masks=True)
    data = made()
    parts = contents(data)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(sum(parts.values(), [])) == list(range(20))
    assert (data.name, data.caption) == ("mine", "mine, folder")
    masks = data.split("train").masks
    assert masks is not None and (masks[:, :, :4] == 0).all() and (masks[:, :, 4:] == 2).all()
    names = data.split("val").factors["scenario"]
    assert [int(name) for name in names] == parts["val"]
    assert contents(made(seed=1)) != parts
    assert contents(made(workers=3)) == parts


def test_numbers_asked_for(place: Path) -> None:
    greys(20)
    counts = made(scenes=6, val_scenes=3).counts
    assert counts == {"train": 6, "val": 3, "test": 2}
    with pytest.raises(SriError, match="16 readable images are left for train, 17 are asked for"):
        made(scenes=17, val_scenes=2, test_scenes=2)
    with pytest.raises(SriError, match="nothing for|left for"):
        greys(2, folder="few")
        made("few")


def test_without_masks_none_are_known(place: Path) -> None:
    greys(5)
    assert made().split("train").masks is None


@pytest.mark.parametrize("layout", ["mine/masks/{split}", "mine/{split}/masks"])
def test_a_folder_with_splits_of_its_own(place: Path, layout: str) -> None:
    for grey, split in enumerate(("train", "valid", "test")):
        for number in range(2):
            save(f"mine/{split}/{number}.png", np.full((8, 8), 10 * grey + number))
            save(f"{layout.format(split=split)}/{number}.png", np.full((8, 8), 1))
    data = made()
    assert contents(data) == {"train": [0, 1], "val": [10, 11], "test": [20, 21]}
    assert data.split("test").masks is not None


def test_images_beside_masks(place: Path) -> None:
    for number in range(4):
        save(f"mine/images/sub dir/ö {number}.png", np.full((8, 8), number))
        save(f"mine/masks/sub dir/ö {number}.png", np.full((8, 8), 3))
    data = made()
    assert sum(data.counts.values()) == 4 and data.split("train").masks is not None
    assert "ö" in data.split("train").factors["scenario"][0].decode()


def test_kinds_of_pictures(place: Path) -> None:
    assert read_picture(save("a.png", [[7, 200]])).tolist() == [[[7] * 3, [200] * 3]]
    clear = save("b.png", [[[100, 200, 50, 255], [100, 200, 50, 0], [255, 255, 255, 51]]])
    assert read_picture(clear).tolist() == [[[100, 200, 50], [0, 0, 0], [51, 51, 51]]]
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save("c.png")
    assert read_picture(Path("c.png"))[..., 0].tolist() == [[0, 1, 255]]
    palette = Image.fromarray(np.array([[1, 0]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.save("d.png")
    assert read_picture(Path("d.png")).tolist() == [[[1, 2, 3], [9, 8, 7]]]
    flat = save("e.jpg", np.full((16, 16, 3), 90), "CMYK")
    assert abs(read_picture(flat).astype(int) - 90).max() <= 3
    assert read_picture(save("f.png", [[255, 0]], "1"))[..., 0].tolist() == [[255, 0]]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    assert read_picture(save("g.png", [[1, 2]], exif=exif))[..., 0].tolist() == [[1], [2]]


def test_kinds_of_masks(place: Path) -> None:
    labels = Image.fromarray(np.array([[0, 1, 5]], np.uint8), "P")
    labels.putpalette([0, 0, 0, 90, 90, 90] + [7] * 762)
    labels.save("a.png")
    assert read_mask(Path("a.png")).tolist() == [[0, 1, 5]]  # indices, whatever the colours
    assert read_mask(save("b.png", [[[2, 2, 2], [0, 0, 0]]])).tolist() == [[2, 0]]
    with pytest.raises(Unreadable, match="coloured"):
        read_mask(save("c.png", [[[2, 1, 2]]]))
    Image.fromarray(np.array([[0, 300]], np.uint16)).save("d.png")
    with pytest.raises(Unreadable, match=r"outside 0\.\.255"):
        read_mask(Path("d.png"))


def test_crop_and_mixed_sizes(place: Path) -> None:
    for number, (height, width) in enumerate([(8, 12), (20, 9), (8, 8), (11, 11)]):
        picture = np.full((height, width), 100)
        picture[(height - 8) // 2 : (height + 8) // 2, (width - 8) // 2 : (width + 8) // 2] = 200
        save(f"mine/{number}.png", picture)
    data = made(crop=6)
    assert all((data.split(name).images == 200).all() for name in data.counts)


def spoil(number: int) -> str:
    """A folder of eight good images and one that is bad in some way; the reason told."""
    greys(8, masks=number == 5)
    bad = Path("mine/bad.png")
    good = Path("mine/00.png").read_bytes()
    if number == 0:
        bad.write_bytes(b"")
    elif number == 1:
        bad.write_bytes(good[: len(good) * 2 // 3])
    elif number == 2:
        bad.write_text("no picture at all")
    elif number == 3:
        save(bad, np.zeros((4, 9)))
        return "9x4 px is smaller than the crop of 6x6"
    elif number == 4:
        save("mine/bad.bmp", np.zeros((3, 3000)))
        return "more than 5,000 pixels"
    else:
        save(bad, np.zeros((8, 8)))
        save("mine/masks/bad.png", np.ones((9, 9)))
        return "its mask has another size"
    return "damaged, or no picture"


@pytest.mark.parametrize("number", range(6))
def test_what_is_unreadable_is_left_out_or_refused(
    place: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_pictures, "MOST_PIXELS", 5000)
    reason = spoil(number)
    words = ["mine", "--size", "8", "--workers", "1"]
    words += ["--crop", "6"] if number == 3 else []
    strict = sri(*words, "--strict")
    assert strict.exit_code == 2 and f"1 of 9 images cannot be used: bad: {reason}" in strict.stderr
    assert not Path("data").exists() or os.listdir("data") == []
    result = sri(*words)
    assert result.exit_code == 0, result.output
    assert reason in result.stderr and "1 files could not be read" in result.stdout
    data = DataFile(Path("data/mine-8.h5"))
    assert sum(data.counts.values()) == 8
    assert (data.attrs["skipped"], data.attrs["skipped_files"]) == (1, '["bad"]')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "none does not exist"),
        (["mine/00.png"], "is not a folder"),
        (["empty"], "holds no images"),
        (["mine", "--name", "clevr6"], "clevr6 is a data set of its own"),
        (["mine", "--name", "a/b"], "a/b is no name for a data set"),
        (["twice"], "has two images called 00"),
        (["some"], "1 of 2 images have no mask, 01 for one"),
        (["bad"], "2 of 2 images cannot be used"),
        (["mine", "--crop", "0"], "--crop"),
        (["mine", "--size", "5"], "--size 5 is out of range"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(place: Path, words: list[str], message: str) -> None:
    greys(4)
    Path("empty").mkdir()
    save("twice/00.png", [[1]])
    save("twice/00.jpg", [[1]])
    greys(2, masks=True, folder="some")
    os.remove("some/masks/01.png")
    Path("bad").mkdir()
    for name in ("a.png", "b.png"):
        (Path("bad") / name).write_text("no picture")
    result = sri(*words)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert "Traceback" not in result.output and not Path("data").exists()


def test_a_changed_folder_is_another_one(place: Path) -> None:
    greys(6)
    assert sri("mine", "--size", "8", "--workers", "1").exit_code == 0
    again = sri("mine", "--size", "8", "--workers", "1")
    assert again.exit_code == 0 and "up to date" in again.stderr
    save("mine/06.png", [[1] * 8] * 8)
    other = sri("mine", "--size", "8", "--workers", "1")
    assert other.exit_code == 2 and "files 6 -> 7" in other.stderr and "--force" in other.stderr


def test_only_what_is_missing_is_made_again(place: Path) -> None:
    greys(10)
    job = folder_job(Path("mine"), FolderSettings(size_px=8))
    found = job.survey()
    everything = list(job.items(found, dict.fromkeys(found.counts, 0)))
    later = list(job.items(found, {"train": 3, "val": 1, "test": 0}))
    assert later == [*everything[3:8], everything[9]]
