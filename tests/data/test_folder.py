"""A user's own images: read as they are meant, split once, and what is unreadable is told."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Scenario
from sri_cli.data.sources import folder_pictures
from sri_cli.data.sources.folder import FolderSettings, folder_job, prepare_folder
from sri_cli.data.sources.folder_files import Entry
from sri_cli.errors import Interrupted, SriError
from sri_cli.run import Workspace
from tests.small_data import changed


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: str | Path, values: object) -> Path:
    """A picture of these values; grey or colours by their shape."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
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
    with pytest.raises(
        SriError, match="17 train, 2 val and 2 test images are asked for, there are 20"
    ):
        made(scenes=17, val_scenes=2, test_scenes=2)
    greys(2, folder="few")
    with pytest.raises(SriError, match=r"too few images \(2\)"):
        made("few")
    greys(3, folder="three")
    assert made("three").counts == {"train": 1, "val": 1, "test": 1}


def test_numbers_are_those_of_the_readable_ones(place: Path) -> None:
    greys(10)
    Path("mine/bad.png").write_bytes(b"")
    with pytest.raises(SriError, match="9 train, 1 val and 1 test .* there are 10 readable"):
        made(scenes=9, val_scenes=1, test_scenes=1)


def test_images_without_a_mask_are_left_out_where_others_have_one(place: Path) -> None:
    greys(10, masks=True)
    os.remove("mine/masks/03.png")
    data = made()
    assert sum(data.counts.values()) == 9 and data.attrs["skipped_files"] == '["03"]'


def test_without_masks_none_are_known(place: Path) -> None:
    greys(5)
    assert made().split("train").masks is None


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("mine/{}", "mine/masks/{}"),
        ("mine/{}", "mine/{}/masks"),
        ("mine/{}/Images", "mine/{}/Masks"),
        ("mine/images/{}", "mine/masks/{}"),
    ],
)
def test_a_folder_with_splits_of_its_own(place: Path, images: str, masks: str) -> None:
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
    with pytest.raises(SriError, match="3 val images are asked for, there are 2"):
        made(val_scenes=3)


def test_own_splits_are_never_mixed(place: Path) -> None:
    for grey, split in enumerate(("train", "val")):
        for number in range(5):
            save(f"mine/{split}/{number}.png", np.full((8, 8), 10 * grey + number))
    save("mine/stray.png", np.zeros((8, 8)))
    with pytest.raises(SriError, match="has train/ and val/ but no test/"):
        made()
    save("mine/test/bad.png", np.zeros((8, 8))).write_bytes(b"")
    with pytest.raises(SriError, match="no images for test"):
        made()
    save("mine/test/good.png", np.full((8, 8), 20))
    result = sri("mine", "--size", "8", "--force")
    assert result.exit_code == 0 and "1 image outside of train/" in result.stderr, result.output
    data = DataFile("data/mine-8.h5")
    assert contents(data) == {"train": [0, 1, 2, 3, 4], "val": [10, 11, 12, 13, 14], "test": [20]}


def test_a_folder_called_test_alone_is_no_split(place: Path) -> None:
    greys(10, folder="mine/test")
    assert sum(made().counts.values()) == 10


def test_images_beside_masks(place: Path) -> None:
    for number in range(4):
        save(f"mine/images/sub dir/ö {number}.png", np.full((8, 8), number))
        save(f"mine/masks/sub dir/ö {number}.png", np.full((8, 8), 3))
    data = made()
    assert sum(data.counts.values()) == 4 and data.split("train").masks is not None
    assert "ö" in data.split("train").factors["scenario"][0].decode()


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
        return "its mask has another size: 9x9 px, the image 8x8"
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
    assert reason in result.stderr and "could not be read: 1 file\n" in result.stdout
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
        (["some", "--strict"], "1 of 4 images cannot be used: 01: it has no mask, others have"),
        (["others"], "others has 1 mask, but none has the name of an image"),
        (["bad"], "3 of 3 images cannot be used: a: damaged, or no picture; b: "),
        (["few"], "too few images (2): train, val and test need one each"),
        (["mine", "--scenes", "4"], "4 train, 2 val and 2 test images are asked for, there are 4"),
        (["mine", "--crop", "0"], "--crop"),
        (["mine", "--background", "256"], "--background"),
        (["mine", "--name", "Shapestacks"], "Shapestacks is a data set of its own"),
        (["图片"], "图片 is no name for a data set"),
        (["mine", "--size", "5"], "--size 5 is out of range"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(place: Path, words: list[str], message: str) -> None:
    greys(4)
    Path("empty").mkdir()
    save("twice/00.png", [[1]])
    save("twice/00.jpg", [[1]])
    greys(2, folder="few")
    greys(4, folder="图片")
    greys(4, masks=True, folder="some")
    os.remove("some/masks/01.png")
    greys(4, folder="others")
    save("others/masks/00.jpg", np.zeros((8, 8)))
    Path("bad").mkdir()
    for name in ("a.png", "b.png", "c.png"):
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


def test_other_words_of_the_same_folder_are_told(place: Path) -> None:
    greys(6, masks=True)
    made()
    again = ["mine", "--size", "8"]
    assert "background 1 -> 2" in sri(*again, "--background", "2").stderr
    assert "crop largest square -> 8" in sri(*again, "--crop", "8").stderr
    assert sri(*again, "--strict").exit_code == 0  # it changes nothing that was made


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush after every image instead of after a thousand."""
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 1)


def test_a_stopped_preparation_goes_on_and_any_number_of_workers_makes_the_same(
    place: Path, often: None
) -> None:
    greys(40, masks=True)
    Path("mine/bad.png").write_bytes(b"")
    settings = FolderSettings(size_px=8)
    job = folder_job(Path("mine"), settings)
    calls = itertools.count(1)

    def stopping(entry: Entry) -> Scenario:
        if next(calls) == 7:
            signal.raise_signal(signal.SIGTERM)
        return job.make(entry)

    with pytest.raises(Interrupted, match="after 7 of 40 images"):
        prepare(changed(job, make=stopping), Path("a-8.h5"), workers=1)
    assert prepare(job, Path("a-8.h5"), workers=1).resumed_from == 7
    one = prepare(folder_job(Path("mine"), settings, 1), Path("b-8.h5"), workers=1)
    four = prepare(folder_job(Path("mine"), settings, 4), Path("c-8.h5"), workers=4)
    assert one.made == four.made == 40 and four.data.attrs["skipped_files"] == '["bad"]'
    assert Path("b-8.h5").read_bytes() == Path("c-8.h5").read_bytes()
    assert arrays(DataFile("a-8.h5")) == arrays(one.data)


def arrays(data: DataFile) -> list[bytes]:
    """All that a file holds of its images."""
    parts = [data.split(name) for name in data.counts]
    return [
        values.tobytes()
        for split in parts
        for values in (split.images, split.masks, split.factors["scenario"])
        if values is not None
    ]


def test_a_file_that_changed_since_it_was_looked_at(place: Path) -> None:
    greys(5)
    job = folder_job(Path("mine"), FolderSettings(size_px=8))
    found = job.survey()
    Path("mine/03.png").write_bytes(b"gone")
    with pytest.raises(SriError, match=r"mine/03.png has changed since it was looked at: damaged"):
        for _, entry in job.items(found, dict.fromkeys(found.counts, 0)):
            job.make(entry)


def test_names_of_any_kind(place: Path) -> None:
    """None is lost, and no two of them become one in the 64 bytes that a data file has."""
    greys(3)
    for number, name in enumerate(["ä" * 40 + "1", "ä" * 40 + "2", "a\nb", "IMG.2020.01"]):
        save(f"mine/{name}.png", np.full((8, 8), 3 + number))
    with open(b"mine/\xff\xfe.png", "wb") as file:
        file.write(Path("mine/00.png").read_bytes())
    data = made()
    names = [n.decode() for split in data.counts for n in data.split(split).factors["scenario"]]
    assert len(set(names)) == 8 and {"IMG.2020.01", "a\ufffdb", "\ufffd\ufffd"} < set(names)


def test_what_is_no_image(place: Path) -> None:
    """Folders and pipes called so, what is hidden, contact sheets, circles of links."""
    greys(5)
    os.mkdir("mine/folder.png")
    os.mkfifo("mine/pipe.png")
    os.mkdir("mine/.cache")
    for name in (".hidden.png", ".cache/a.png", "sheet-8.png"):
        save(f"mine/{name}", np.zeros((8, 8)))
    Path("mine/sheet-8.h5").touch()
    Path("mine/notes.txt").touch()
    os.symlink("..", "mine/folder.png/up")
    os.mkdir("elsewhere")
    save("elsewhere/linked.JPG", np.zeros((8, 8)))
    os.symlink(Path("elsewhere").resolve(), "mine/link")
    os.symlink("nothing", "mine/broken.png")
    result = sri("mine", "--size", "8")
    assert "1 of 7 images cannot be used: broken: No such file" in result.stderr
    assert sum(DataFile("data/mine-8.h5").counts.values()) == 6


@pytest.mark.parametrize(
    ("folder", "name"),
    [("mine-64", "mine-64"), ("Bilder für mich", "Bilder-fur-mich"), ("-x.y-", "x-y")],
)
def test_the_name_of_the_data_set(place: Path, folder: str, name: str) -> None:
    greys(5, folder=folder)
    made(folder)
    space = Workspace(Path("data"), Path("runs"))
    assert DataFile(space.find_data(name, 8)).name == name
    assert made(folder, name="other").path == Path("data/other-8.h5")


def test_only_what_is_missing_is_made_again(place: Path) -> None:
    greys(10)
    job = folder_job(Path("mine"), FolderSettings(size_px=8))
    found = job.survey()
    everything = list(job.items(found, dict.fromkeys(found.counts, 0)))
    later = list(job.items(found, {"train": 3, "val": 1, "test": 0}))
    assert later == [*everything[3:8], everything[9]]
