"""Objects Room and CLEVR6 from TFRecords: pixels, labels, splits and filter, known by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.asked import InOrder
from sri_cli.data.sources.picture import Picture
from sri_cli.data.sources.records import SETS, RecordSet, records_job
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError
from tests.small_data import changed
from tests.tfrecord_writer import example, floats, one_string, picture_record, write

ROOM = replace(SETS["objects-room"], published=InOrder(3, 2, None, published=True))
# A table of 4 x 6 pixels, of which rows 1 and 2, columns 2 and 3 are kept and doubled.
TABLE = RecordSet(
    name="clevr6",
    file="clevr_with_masks/clevr_with_masks_train.tfrecords",
    height=8,
    width=12,
    background_labels=1,
    size_px=8,
    filter="bicubic",
    box=(0, 2, 8, 8),
    published=InOrder(3, 3, 4, published=True),
    factors=("x", "visibility"),
    most_entities=3,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects_room_train.tfrecords"


def room(number: int) -> bytes:
    """A 64 px picture whose first pixel tells its number; seven entities in strips."""
    image = np.random.default_rng(number).integers(0, 256, (64, 64, 3))
    image[0, 0] = number
    masks = np.zeros((7, 64, 64))
    for entity in range(5):  # 5 and 6 are not there
        masks[entity, 10 * entity : 10 * entity + 10] = 255
    masks[4, 40:50, :32] = 0
    masks[6, 45, 0] = 255
    return example({"mask": one_string(masks), "image": one_string(image)})


def table(number: int, entities: int) -> bytes:
    """An 8 x 12 picture of one grey that tells its number, with so many entities visible."""
    masks = np.zeros((11, 8, 12))
    masks[0] = 255
    masks[0, 2:4, 4:6], masks[2, 2:4, 4:6] = 0, 255
    visibility = [1.0] * entities + [0.0] * (11 - entities)
    more = {"x": floats(range(11)), "visibility": floats(visibility, packed=number % 2 == 0)}
    return picture_record(np.full((8, 12, 3), 10 * number), masks, **more)


def numbers(data: DataFile, scale: int = 1) -> dict[str, list[int]]:
    """Which records are in which split."""
    return {name: (data.split(name).images[:, 0, 0, 0] // scale).tolist() for name in SPLITS}


def made(kind: RecordSet, path: Path, asked: Options | None = None, workers: int = 1) -> DataFile:
    out = path.with_name(f"{kind.name}-out.h5")
    job = records_job(kind, path, asked or Options())
    return prepare(job, out, workers=workers, force=True).data


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


def test_published_settings() -> None:
    rooms, clevr = SETS["objects-room"], SETS["clevr6"]
    assert rooms.published == InOrder(10_000, 10_000, None, published=True)
    assert clevr.published == InOrder(10_000, 10_000, 50_000, published=True)
    assert (clevr.box, clevr.size_px, clevr.filter) == ((29, 64, 192, 192), 96, "bicubic")
    assert (clevr.most_entities, rooms.most_entities) == (7, None)


def test_a_real_clevr_record_is_cropped_and_halved(tmp_path: Path) -> None:
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
    path = write(tmp_path / "clevr.tfrecords", [record] * 3)
    split = made(SETS["clevr6"], path, Options(val_scenes=1, test_scenes=1)).split("train")
    assert split.images.shape == (1, 96, 96, 3)
    assert (split.images[0, [0, -1], 60:] == 200).all()  # nothing of the black shines in
    assert split.images[0, 20, 20].tolist() == [40, 200, 200]
    assert split.images[0, 70, 70].tolist() == [200, 200, 200]
    crop = Resizing(96, "bicubic").picture(image[29:221, 64:256])
    assert (split.images[0] == crop).all()
    assert split.masks is not None
    assert split.masks[0].sum() == 5 and split.masks[0, 1, 1] == 5
    assert split.factors["rotation"].tolist() == [list(range(11))]


def test_the_filter_keeps_positions_by_the_published_rule(tmp_path: Path) -> None:
    entities = [2, 4, 3, 3, 5, 1, 4, 2, 3, 2, 2, 2]
    path = write(tmp_path / "c.tfrecords", [table(i, n) for i, n in enumerate(entities)])
    published = made(TABLE, path)
    # Records 1, 4 and 6 show too much; 10 and 11 are beyond what GENESIS takes.
    assert numbers(published, 10) == {"test": [0, 2], "val": [3, 5], "train": [7, 8, 9]}
    own = made(TABLE, path, Options(val_scenes=2, test_scenes=3))
    assert numbers(own, 10) == {"test": [0, 2, 3], "val": [5, 7], "train": [8, 9, 10, 11]}
    split = own.split("train")
    assert (split.factors["visibility"].sum(1) <= 3).all()
    assert split.factors["x"].dtype == np.float32 and split.factors["x"].shape == (4, 11)
    assert split.masks is not None and np.unique(split.masks).tolist() == [0, 2]
    few = made(TABLE, path, Options(scenes=1, val_scenes=2, test_scenes=2))
    assert numbers(few, 10) == {"test": [0, 2], "val": [3, 5], "train": [7]}


def test_reading_stops_where_nothing_more_is_needed(path: Path) -> None:
    write(path, map(room, range(6)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])  # cut, but beyond what is asked for
    data = made(ROOM, path, Options(scenes=1, val_scenes=1, test_scenes=1))
    assert numbers(data) == {"test": [0], "val": [1], "train": [2]}


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        (
            Options(),
            "has 4 records; the published split takes the first 3 for test",
            "--val-scenes",
        ),
        (Options(scenes=9), "has 4 records: too few for 2 test + 2 val + 9 train", "--scenes N"),
        (Options(val_scenes=2, test_scenes=2), "too few for 2 test + 2 val + 1 train", "fewer"),
    ],
)
def test_a_file_with_too_few_records(path: Path, asked: Options, message: str, hint: str) -> None:
    write(path, map(room, range(4)))
    with pytest.raises(SriError) as caught:
        made(ROOM, path, asked)
    assert message in caught.value.message and hint in (caught.value.hint or "")
    assert os.listdir(path.parent) == [path.name]


def test_a_file_shorter_than_the_published_split_is_not_called_published(path: Path) -> None:
    write(path, [table(number, 2) for number in range(9)])  # one of ten is missing
    with pytest.raises(SriError, match="has 9 records .*and the next 4 for training"):
        made(TABLE, path)
    write(path, [table(number, 2) for number in range(10)])
    assert made(TABLE, path).counts == {"test": 3, "val": 3, "train": 4}


def bad_records() -> Iterator[tuple[list[bytes], str]]:
    """Records after three good ones, and what is said of the fourth."""
    image, masks = np.zeros((64, 64, 3)), np.full((7, 64, 64), 255)
    good = {"image": one_string(image), "mask": one_string(masks)}
    yield [b"nothing"], "record 4: it is no tf.train.Example"
    yield [example({"image": good["image"]})], "record 4: it has no feature mask, but image"
    yield [example({**good, "image": floats([1])})], "record 4: feature image is of another type"
    yield [example({**good, "image": one_string(image[:32])})], "64x64x3 and a number of 64x64 are"
    yield [example({**good, "mask": one_string(masks[:, :9])})], "no record of objects-room"
    yield [example({**good, "mask": one_string(masks[:0])})], "no record of objects-room"


@pytest.mark.parametrize(("bad", "message"), list(bad_records()))
def test_a_bad_record_is_told_before_anything_is_written(
    path: Path, bad: list[bytes], message: str
) -> None:
    write(path, [*map(room, range(3)), *bad, *map(room, range(5))])
    with pytest.raises(SriError) as caught:
        made(ROOM, path)
    assert message in caught.value.message and "3 records before it are good" in str(
        caught.value.hint
    )
    assert os.listdir(path.parent) == [path.name]


def test_a_cut_file_says_how_many_records_are_missing(path: Path) -> None:
    path.write_bytes(write(path, map(room, range(4))).read_bytes()[:-2000])
    with pytest.raises(SriError, match=r"3 records were read, 999,997 of 1,000,000 are missing"):
        made(ROOM, path)


def test_masks_that_mark_nothing_are_refused(path: Path) -> None:
    empty = example(
        {"image": one_string(np.zeros((64, 64, 3))), "mask": one_string(np.zeros((7, 64, 64)))}
    )
    write(path, [empty] * 8)
    with pytest.raises(SriError, match=r"the masks of \w+ are all zero"):
        made(ROOM, path)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("asked", [Options(), Options(size_px=16)])
def test_the_same_bytes_at_any_number_of_workers(path: Path, asked: Options) -> None:
    write(path, map(room, range(8)))
    one = made(ROOM, path, asked).path.read_bytes()
    assert made(ROOM, path, asked, workers=3).path.read_bytes() == one


def test_a_stopped_conversion_goes_on_without_counting_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 2)
    job = records_job(ROOM, write(path, map(room, range(9))), Options())
    out, whole = path.with_name("out-64.h5"), path.with_name("whole-64.h5")
    original = job.make

    def make(picture: Picture) -> object:
        if picture.name == "record-7":
            os.kill(os.getpid(), signal.SIGTERM)
        return original(picture)

    with pytest.raises(Interrupted, match="after 7 of 9 images"):
        prepare(changed(job, make=make), out, workers=1)
    surveyed = []
    again = changed(job, survey=lambda: surveyed.append(1) or job.survey())
    done = prepare(again, out, workers=1)
    assert (done.resumed_from, done.made, surveyed) == (7, 2, [])
    prepare(job, whole, workers=1)
    assert numbers(done.data) == numbers(DataFile(whole))
    assert done.data.attrs == DataFile(whole).attrs  # the hash of all images among them
