"""TFRecords, Objects Room and CLEVR6: known records, read, split, and every damage reported."""

from __future__ import annotations

import gzip
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.published import SETS, PositionSplit, PublishedSet
from sri_cli.data.sources.tfrecord import (
    BadRecord,
    RecordSource,
    bytes_of,
    num_bytes_of,
    parse_example,
    read_records,
)
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests import small_cli
from tests.foreign_hdf5 import stopped_at, write_towers
from tests.foreign_records import (
    example,
    field,
    floats,
    framed,
    one_string,
    single_bytes,
    varint,
    write,
)
from tests.small_server import serving

RECORDS = [b"first", b"", b"third record" * 1000]
WHOLE = b"".join(map(framed, RECORDS))
sri = partial(small_cli.sri, "prepare")


@pytest.fixture
def path(here: Path) -> Path:
    return here / "objects_room_train.tfrecords"


def error_of(path: Path) -> SriError:
    with pytest.raises(SriError) as caught:
        list(read_records(path))
    assert caught.value.hint and str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_records_come_as_they_were_written(path: Path, compress: Callable) -> None:
    read: list[int] = []
    assert list(read_records(write(path, RECORDS, compress), read.append)) == RECORDS
    assert read[-1] == path.stat().st_size


def test_memory_is_constant(path: Path) -> None:
    """400 MB of zeros in a file of 400 kB; closing it early ends the reading thread."""
    record = framed(bytes(200_000))
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(2000):
            file.write(record)
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    before = threading.active_count()
    records = read_records(path)
    next(records)
    assert threading.active_count() == before + 1
    records.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("cut", "good"), [(3, 0), (14, 0), (19, 0), (25, 1), (41, 2), (600, 2)])
@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_a_truncated_file(path: Path, cut: int, good: int, compress: Callable) -> None:
    path.write_bytes(compress(WHOLE[:cut]))
    assert f"record {good + 1}: {good} records" in error_of(path).message


def test_a_truncated_file_of_a_known_length_says_what_is_missing(path: Path) -> None:
    path.write_bytes(WHOLE[:-1])
    with pytest.raises(SriError, match="2 records were read, 8 of 10 are missing"):
        list(read_records(path, total=10))


def test_a_truncated_gzip_stream(path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = gzip.compress(b"".join(framed(rng.bytes(100_000)) for _ in range(10)))
    path.write_bytes(whole[: len(whole) // 2])
    assert "record 5: 4 records" in error_of(path).message
    for damaged in (whole[:-4], whole[:-6] + b"??" + whole[-4:], whole[:9000] + whole[9001:]):
        path.write_bytes(damaged)  # gzip's own end, its checksum, and its content
        assert "record " in error_of(path).message


@pytest.mark.parametrize(("at", "record"), [(3, 1), (12, 1), (17, 1), (22, 2), (4000, 3)])
def test_a_flipped_bit(path: Path, at: int, record: int) -> None:
    """In lengths, data and checksums."""
    wrong = bytearray(WHOLE)
    wrong[at] ^= 4
    path.write_bytes(gzip.compress(bytes(wrong)))
    assert f"record {record}: " in error_of(path).message


def test_other_files(path: Path) -> None:
    for unreadable in (path, path.parent):  # by the system, not the content: rows are kept
        assert isinstance(error_of(unreadable), SriFailure)
    for content in (b"", b"no such thing as a record " * 9, gzip.compress(gzip.compress(WHOLE))):
        path.write_bytes(content)
        assert error_of(path).exit_code == 2
    assert "TFRecord" in (error_of(path).hint or "")


def test_bytes_in_both_forms() -> None:
    values = np.arange(256, dtype=np.uint8)
    for form in (single_bytes, one_string):
        features = parse_example(example({"other": floats([1]), "image": form(values)}))
        assert (bytes_of(features, "image") == values).all()
        assert num_bytes_of(features, "image") == 256
    one = parse_example(example({"image": single_bytes(np.array([7]))}))
    assert bytes_of(one, "image").tolist() == [7]
    # One string whose content could be taken for three one-byte entries.
    tricky = parse_example(example({"image": one_string(np.array([10, 1, 9, 10, 1, 9, 10]))}))
    assert bytes_of(tricky, "image").tolist() == [10, 1, 9, 10, 1, 9, 10]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no example at all",
        b"\x0a\xff\xff\xff\xff",
        b"\x0a" + varint(1000) + b"short",
        field(1, field(1, field(1, b"only a key"))),
        example({"mask": floats([1])}),
        example({"image": floats([1])}),
        example({"image": field(1, field(1, b"two") + field(1, b"strings"))}),
    ],
)
def test_what_is_not_an_example_of_images(data: bytes) -> None:
    with pytest.raises(BadRecord):
        bytes_of(parse_example(data), "image")


# Objects Room and CLEVR6

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


def room(number: int) -> bytes:
    """A 64 px image whose first pixel is its number; seven entities in strips."""
    image = np.random.default_rng(number).integers(0, 256, (64, 64, 3))
    image[0, 0] = number
    masks = np.zeros((7, 64, 64))
    for entity in range(5):  # 5 is not there
        masks[entity, 10 * entity : 10 * entity + 10] = 255
    masks[4, 40:50, :32] = 0
    masks[6, 45, 0] = 255
    return example({"mask": one_string(masks), "image": one_string(image)})


def table(number: int, entities: int) -> bytes:
    """An 8 x 12 image of one grey, 10 x its number, with so many visible entities."""
    masks = np.zeros((11, 8, 12))
    masks[0] = 255
    masks[0, 2:4, 4:6], masks[2, 2:4, 4:6] = 0, 255
    visibility = [1.0] * entities + [0.0] * (11 - entities)
    more = {"x": floats(range(11)), "visibility": floats(visibility, packed=number % 2 == 0)}
    return example(
        {
            "image": single_bytes(np.full((8, 12, 3), 10 * number)),
            "mask": single_bytes(masks),
            **more,
        }
    )


def numbers(data: DataFile, scale: int = 1) -> dict[str, list[int]]:
    """Which records are in which split."""
    return {name: (data.split(name).images[:, 0, 0, 0] // scale).tolist() for name in SPLITS}


def made(
    kind: PublishedSet, path: Path, options: Options | None = None, workers: int = 1
) -> DataFile:
    out = path.with_name(f"{kind.name}-out.h5")
    source = RecordSource(kind, path, options or Options())
    return prepare(source, out, workers=workers, force=True).data


def test_a_room_keeps_every_pixel_and_entity(path: Path) -> None:
    data = made(ROOM, write(path, map(room, range(8))))
    assert numbers(data) == {"test": [0, 1, 2], "val": [3, 4], "train": [5, 6, 7]}
    split = data.split("train")
    expected = np.random.default_rng(6).integers(0, 256, (64, 64, 3))
    assert (split.images[1, 1:] == expected[1:]).all()
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
    assert np.unique(split.masks).tolist() == [0, 2]
    few = made(TABLE, path, Options(scenes=1, val_scenes=2, test_scenes=2))
    assert numbers(few, 10) == {"test": [0, 2], "val": [3, 5], "train": [7]}


def test_a_note_says_when_training_images_may_be_test_images_of_the_usual_split(path: Path) -> None:
    write(path, [table(i, 2) for i in range(12)])  # the first three are for testing
    for options, noted in (
        (Options(), False),
        (Options(scenes=6, val_scenes=1, test_scenes=1), True),
        (Options(val_scenes=1, test_scenes=1), True),
        (Options(scenes=6, val_scenes=1, test_scenes=2), False),
        (Options(test_only=True), False),
    ):
        assert ("notes" in made(TABLE, path, options).attrs) == noted


def test_clevr10_keeps_all_scenes_and_is_clevr6_otherwise(path: Path) -> None:
    write(path, [table(i, 2 + i) for i in range(12)])
    every = made(replace(TABLE, name="clevr10", max_entities=None), path)
    assert numbers(every, 10) == {"test": [0, 1, 2], "val": [3, 4, 5], "train": [6, 7, 8, 9]}


@pytest.mark.parametrize(
    "options", [Options(), Options(scenes=8), Options(val_scenes=5, test_scenes=4)]
)
def test_a_file_with_too_few_records(path: Path, options: Options) -> None:
    write(path, [table(number, 2) for number in range(9)])  # the published split needs ten
    with pytest.raises(SriError, match=r"9 images.*\n.*--val-scenes"):
        made(TABLE, path, options)
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


def test_a_table_of_other_entities_is_reported(path: Path) -> None:
    """Their factors would be of another shape than those of the other records."""
    masks = single_bytes(np.full((8, 8, 12), 255))
    eight = example({"image": single_bytes(np.zeros((8, 12, 3))), "mask": masks})
    write(path, [table(0, 2), eight])
    with pytest.raises(SriError, match="record 2: "):
        made(replace(TABLE, name="clevr10", max_entities=None), path)


@pytest.mark.parametrize("bad", list(bad_records()))
def test_a_bad_record_is_reported_before_anything_is_written(path: Path, bad: bytes) -> None:
    write(path, [*map(room, range(3)), bad, *map(room, range(5))])
    with pytest.raises(SriError, match="record 4: "):
        made(ROOM, path)
    assert os.listdir(path.parent) == [path.name]


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


def test_from_the_bucket_then_offline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("objects-room", "--from", "bucket", *FEW)
    with serving(grey_rooms(path).read_bytes()) as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        sri(*words, code=0)
        assert numbers(DataFile("data/objects-room-64.h5")) == IN_ORDER
        assert os.listdir("data/downloads") == ["objects_room_train.tfrecords"]
        assert sri(*words, "--size", "32").exit_code == 0
        assert len(server.ranges) == 1  # fetched once
    assert sri(*words, "--size", "16", "--offline").exit_code == 0
    os.remove("data/downloads/objects_room_train.tfrecords")
    assert sri(*words, "--offline").exit_code == 0  # a finished file does not need its source
    assert "objects_room_train.tfrecords" in sri(*words, "--offline", "--force", code=2).stderr
    assert numbers(DataFile("data/objects-room-64.h5")) == IN_ORDER


def test_a_bad_file_from_the_bucket_is_to_be_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("objects-room", "--from", "bucket", *FEW)
    with serving(b"<html>Please log in</html>") as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        refused = sri(*words)
        file = Path("data/downloads", path.name)
        assert refused.exit_code == 2 and f"remove {file}" in refused.stderr
        server.data = grey_rooms(path).read_bytes()
        file.unlink()
        assert sri(*words).exit_code == 0


def test_a_published_test_set_is_a_data_set_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten entities; no split by position, and a name that training data do not have."""
    masks = np.zeros((10, 64, 64))
    masks[0], masks[9, 9:20, 9:20] = 255, 255
    masks[0, 9:20, 9:20] = 0
    record = example({"image": one_string(np.zeros((64, 64, 3))), "mask": one_string(masks)})
    file = write(Path("objects_room_test_six_objects.tfrecords"), [record] * 4)
    words = ("objects-room", "--from", str(file))
    first = sri(*words)
    assert first.exit_code == sri(*words).exit_code == 0, first.output
    data = DataFile("data/objects-room-six-objects-64.h5")
    assert (data.name, data.counts) == (
        "objects-room-six-objects",
        {"train": 0, "val": 0, "test": 4},
    )
    assert data.split("test").masks.max() == 9
    assert sri(*words, "--scenes", "2").exit_code == 2
    with serving(file.read_bytes()) as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        words = ("objects-room", "--from", "bucket", "--test-set", "six_objects", "--size", "32")
        assert sri(*words, "--test-scenes", "3").exit_code == 0
    assert DataFile("data/objects-room-six-objects-32.h5").counts["test"] == 3
    grey_rooms(Path("other.tfrecords"))
    assert sri("objects-room", "--from", "other.tfrecords", "--test-only").exit_code == 0
    assert DataFile("data/objects-room-test-64.h5").counts == {"train": 0, "val": 0, "test": 6}
    assert sri("objects-room", "--test-only").exit_code == 2  # simulated
    assert sri("objects-room", "--test-set", "six_objects").exit_code == 2


def test_another_file_of_the_same_name_is_noticed(path: Path) -> None:
    whole = grey_rooms(Path("whole/rooms.tfrecords"))
    records = list(read_records(whole))
    Path("part").mkdir()
    part = write(Path("part/rooms.tfrecords"), records[:4])
    assert sri("objects-room", "--from", str(part), *FEW).exit_code == 0
    assert sri("objects-room", "--from", str(part), *FEW).exit_code == 0
    other = sri("objects-room", "--from", str(whole), *FEW)
    sizes = f"bytes {part.stat().st_size} -> {whole.stat().st_size}"
    assert other.exit_code == 2 and sizes in other.stderr


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
        assert reported in sri(name, "--from", source, *FEW, code=2).stderr
    assert not Path("data").exists()
