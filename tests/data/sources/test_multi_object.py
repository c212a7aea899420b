"""Objects Room and CLEVR6 from TFRecords, from the bucket and simulated; known by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.multi_object import RecordSource
from sri_cli.data.sources.published import SETS, PositionSplit, PublishedSet
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError
from tests.foreign_hdf5 import stopped_at, write_towers
from tests.small_server import says, serving
from tests.tfrecord_writer import example, floats, one_string, picture_record, write

ROOM = replace(SETS["objects-room"], split=PositionSplit(3, 2, None))
# A table of 8 x 12 pixels, of which columns 2 to 9 are kept.
TABLE = replace(
    SETS["clevr6"],
    height=8,
    width=12,
    size_px=8,
    crop=(0, 2, 8, 8),
    split=PositionSplit(3, 3, 4),
    factors=("x", "visibility"),
    max_entities=3,
)
FEW = ("--val-scenes", "2", "--test-scenes", "1")
IN_ORDER = {"train": [3, 4, 5], "val": [1, 2], "test": [0]}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "objects_room_train.tfrecords"


def room(number: int) -> bytes:
    """A 64 px image whose first pixel tells its number; seven entities in strips."""
    image = np.random.default_rng(number).integers(0, 256, (64, 64, 3))
    image[0, 0] = number
    masks = np.zeros((7, 64, 64))
    for entity in range(5):  # 5 is not there
        masks[entity, 10 * entity : 10 * entity + 10] = 255
    masks[4, 40:50, :32] = 0
    masks[6, 45, 0] = 255
    return example({"mask": one_string(masks), "image": one_string(image)})


def table(number: int, entities: int) -> bytes:
    """An 8 x 12 image of one grey that tells its number, with so many entities visible."""
    masks = np.zeros((11, 8, 12))
    masks[0] = 255
    masks[0, 2:4, 4:6], masks[2, 2:4, 4:6] = 0, 255
    visibility = [1.0] * entities + [0.0] * (11 - entities)
    more = {"x": floats(range(11)), "visibility": floats(visibility, packed=number % 2 == 0)}
    return picture_record(np.full((8, 12, 3), 10 * number), masks, **more)


def numbers(data: DataFile, scale: int = 1) -> dict[str, list[int]]:
    """Which records are in which split."""
    return {name: (data.split(name).images[:, 0, 0, 0] // scale).tolist() for name in SPLITS}


def made(
    kind: PublishedSet, path: Path, options: Options | None = None, workers: int = 1
) -> DataFile:
    out = path.with_name(f"{kind.name}-out.h5")
    source = RecordSource(kind, path, options or Options())
    return prepare(source, out, workers=workers, force=True).data


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, ["prepare", *words])


def test_a_room_keeps_every_pixel_and_entity(path: Path) -> None:
    data = made(ROOM, write(path, map(room, range(8))))
    assert numbers(data) == {"test": [0, 1, 2], "val": [3, 4], "train": [5, 6, 7]}
    split = data.split("train")
    expected = np.random.default_rng(6).integers(0, 256, (64, 64, 3))
    assert (split.images[1, 1:] == expected[1:]).all()
    assert split.masks is not None
    rows = split.masks[1, :, 63].tolist()
    assert rows == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10 + [4] * 10 + [0] * 14
    assert split.masks[1, 45, 0] == 6 and split.masks[1, 44, 0] == 0
    assert data.source == "original" and data.background_labels == 4
    assert split.factors["scenario"].tolist() == [b"record-6", b"record-7", b"record-8"]


def test_a_real_clevr_record_is_cropped_and_halved(path: Path) -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image[29:221, 64:256] = 200  # the crop is all bright, the rest is black
    image[29:125, 64:160, 0] = 40
    masks = np.zeros((11, 240, 320), np.uint8)
    masks[3, 31, 66] = 255  # row 2, column 2 of the crop: nearest takes the odd ones
    masks[5, 32, 67] = 255  # row 3, column 3: pixel (1, 1) of the half
    masks[0] = 255 * (masks.max(0) == 0)
    features = {name: floats(range(11)) for name in ("x", "y", "z", "rotation")}
    features["visibility"] = floats([1] * 7 + [0] * 4)
    record = example({"image": one_string(image), "mask": one_string(masks), **features})
    options = Options(val_scenes=1, test_scenes=1)
    split = made(SETS["clevr6"], write(path, [record] * 3), options).split("train")
    assert split.images.shape == (1, 96, 96, 3)
    assert (split.images[0, [0, -1], 60:] == 200).all()  # nothing of the black shines in
    assert split.images[0, 20, 20].tolist() == [40, 200, 200]
    crop = Resizing(96, "bicubic").image(image[29:221, 64:256])
    assert (split.images[0] == crop).all()
    assert split.masks is not None
    assert split.masks[0].sum() == 5 and split.masks[0, 1, 1] == 5
    assert split.factors["rotation"].tolist() == [list(range(11))]


def test_the_filter_keeps_positions_by_the_published_rule(path: Path) -> None:
    entities = [2, 4, 3, 3, 5, 1, 4, 2, 3, 2, 2, 2]
    write(path, [table(i, n) for i, n in enumerate(entities)])
    # Records 1, 4 and 6 show too much; 10 and 11 are beyond what GENESIS takes.
    assert numbers(made(TABLE, path), 10) == {"test": [0, 2], "val": [3, 5], "train": [7, 8, 9]}
    own = made(TABLE, path, Options(val_scenes=2, test_scenes=3))
    assert numbers(own, 10) == {"test": [0, 2, 3], "val": [5, 7], "train": [8, 9, 10, 11]}
    split = own.split("train")
    assert (split.factors["visibility"].sum(1) <= 3).all()
    assert split.factors["x"].dtype == np.float32 and split.factors["x"].shape == (4, 11)
    assert split.masks is not None and np.unique(split.masks).tolist() == [0, 2]
    few = made(TABLE, path, Options(scenes=1, val_scenes=2, test_scenes=2))
    assert numbers(few, 10) == {"test": [0, 2], "val": [3, 5], "train": [7]}


def test_reading_stops_where_nothing_more_is_needed(path: Path) -> None:
    whole = write(path, map(room, range(6))).read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])  # truncated beyond what is needed
    data = made(ROOM, path, Options(scenes=1, val_scenes=1, test_scenes=1))
    assert numbers(data) == {"test": [0], "val": [1], "train": [2]}


@pytest.mark.parametrize(
    "options", [Options(), Options(scenes=8), Options(val_scenes=5, test_scenes=4)]
)
def test_a_file_with_too_few_records(path: Path, options: Options) -> None:
    write(path, [table(number, 2) for number in range(9)])  # the published split needs ten
    with pytest.raises(SriError, match="9 images") as caught:
        made(TABLE, path, options)
    assert "--val-scenes" in (caught.value.hint or "")
    assert os.listdir(path.parent) == [path.name]


def bad_records() -> Iterator[bytes]:
    image, masks = np.zeros((64, 64, 3)), np.full((7, 64, 64), 255)
    good = {"image": one_string(image), "mask": one_string(masks)}
    yield b"nothing"
    yield example({"image": good["image"]})
    yield example({**good, "image": floats([1])})
    yield example({**good, "image": one_string(image[:32])})
    yield example({**good, "mask": one_string(masks[:, :9])})
    yield example({**good, "mask": one_string(masks[:0])})


@pytest.mark.parametrize("bad", list(bad_records()))
def test_a_bad_record_is_reported_before_anything_is_written(path: Path, bad: bytes) -> None:
    write(path, [*map(room, range(3)), bad, *map(room, range(5))])
    with pytest.raises(SriError, match="record 4: "):
        made(ROOM, path)
    assert os.listdir(path.parent) == [path.name]


def test_a_truncated_file_says_how_many_records_are_missing(path: Path) -> None:
    path.write_bytes(write(path, map(room, range(4))).read_bytes()[:-2000])
    with pytest.raises(SriError, match="999,997 of 1,000,000"):
        made(ROOM, path)


def test_the_same_bytes_at_any_number_of_workers(path: Path) -> None:
    write(path, map(room, range(8)))
    one = made(ROOM, path, Options(size_px=16)).path.read_bytes()
    assert made(ROOM, path, Options(size_px=16), workers=3).path.read_bytes() == one


def test_a_stopped_conversion_resumes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 2)
    source = RecordSource(ROOM, write(path, map(room, range(9))), Options())
    out, whole = path.with_name("out-64.h5"), path.with_name("whole-64.h5")
    with pytest.raises(Interrupted):
        prepare(stopped_at(source, 7), out, workers=1)
    done = prepare(source, out, workers=1)
    assert (done.resumed_from, done.made) == (7, 2)
    prepare(source, whole, workers=1)
    assert numbers(done.data) == numbers(DataFile(whole))
    assert done.data.attrs == DataFile(whole).attrs  # the hash of all images among them


def grey_rooms(path: Path) -> Path:
    """Six rooms of one grey each, their number."""
    masks = np.zeros((7, 64, 64))
    masks[0], masks[4, 9:20, 9:20] = 255, 255
    masks[0, 9:20, 9:20] = 0
    images = [np.full((64, 64, 3), number) for number in range(6)]
    path.parent.mkdir(exist_ok=True)
    return write(
        path, [example({"image": one_string(i), "mask": one_string(masks)}) for i in images]
    )


@pytest.mark.parametrize("given", ["mine.tfrecords", "folder"])
def test_from_a_file_or_the_folder_that_contains_it(path: Path, given: str) -> None:
    grey_rooms(Path("folder/objects_room_train.tfrecords"))
    Path("mine.tfrecords").symlink_to("folder/objects_room_train.tfrecords")
    result = sri("objects-room", "--from", given, *FEW)
    assert result.exit_code == 0, result.output
    assert numbers(DataFile("data/objects-room-64.h5")) == IN_ORDER


def test_from_the_bucket_then_offline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("objects-room", "--from", "bucket", *FEW)
    with serving(grey_rooms(path).read_bytes()) as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        first = sri(*words)
        assert first.exit_code == 0, first.output
        assert numbers(DataFile("data/objects-room-64.h5")) == IN_ORDER
        assert os.listdir("data/downloads") == ["objects_room_train.tfrecords"]
        assert sri(*words, "--size", "32").exit_code == 0
        assert len(server.ranges) == 1  # fetched once
    assert sri(*words, "--size", "16", "--offline").exit_code == 0
    os.remove("data/downloads/objects_room_train.tfrecords")
    assert sri(*words, "--offline").exit_code == 0  # a finished file does not need its source
    gone = sri(*words, "--offline", "--force")
    assert gone.exit_code == 2 and "objects_room_train.tfrecords" in gone.stderr
    assert numbers(DataFile("data/objects-room-64.h5")) == IN_ORDER


def test_a_dead_bucket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(b"") as server:
        server.otherwise = says(404)
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        result = sri("clevr6", "--from", "bucket")
    assert result.exit_code == 1 and "404" in result.stderr and "--from simulate" in result.stderr
    assert list(Path("data").rglob("*.h5*")) == []


def test_wrong_sources(path: Path) -> None:
    grey_rooms(Path("rooms.tfrecords"))
    Path("text.tfrecords").write_text("no such thing")
    Path("empty").mkdir()
    write_towers(Path("towers.hdf5"), scenes=2)  # as large as rooms
    for name, source, reported in (
        ("clevr6", "rooms.tfrecords", "record 1"),
        ("clevr6", "text.tfrecords", "record 1"),
        ("clevr6", "empty", "clevr_with_masks_train"),
        ("clevr6", "nothing.h5", "nothing.h5"),
        ("objects-room", "towers.hdf5", "shapestacks"),
    ):
        result = sri(name, "--from", source, *FEW)
        assert result.exit_code == 2 and reported in result.stderr, result.output
    for option in ("--seed", "--views"):  # of published files nothing is random
        assert sri("objects-room", "--from", "rooms.tfrecords", *FEW, option, "3").exit_code == 2
    assert not Path("data").exists()


@pytest.mark.parametrize("name", ["objects-room", "clevr6"])
def test_simulated(path: Path, name: str) -> None:
    result = sri(name, "--scenes", "3", "--views", "2", "--seed", "5", "--workers", "1")
    assert result.exit_code == 0, result.output
    data = DataFile(next(Path("data").glob("*.h5")))
    assert (data.name, data.source) == (name, "simulated")
    assert data.counts == {"train": 6, "val": 4, "test": 4}
    assert data.attrs["parameters"] == {"train": 3, "val": 2, "test": 2, "views": 2, "seed": 5}
    masks = data.split("train").masks
    assert masks is not None and masks.max() >= data.background_labels
