"""TFRecord files: every good form is read, every bad one is told with the record's number."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data.sources import tfrecord
from sri_cli.data.sources.tfrecord import (
    Faulty,
    bytes_of,
    floats_of,
    num_bytes_of,
    parse_example,
    read_records,
)
from sri_cli.errors import SriError
from tests.tfrecord_writer import (
    crc32c,
    example,
    field,
    floats,
    framed,
    masked,
    one_string,
    single_bytes,
    varint,
    write,
)

RECORDS = [b"first", b"", b"third record" * 1000]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.tfrecords"


def error_of(path: Path, expected: int | None = None) -> SriError:
    with pytest.raises(SriError) as caught:
        list(read_records(path, expected=expected))
    assert caught.value.exit_code == 2 and caught.value.hint
    assert str(path) in caught.value.message and "\n" not in caught.value.message
    return caught.value


def test_the_writer_knows_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the standard's check value
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_records_come_as_they_were_written(path: Path, compress: Callable) -> None:
    assert list(read_records(write(path, RECORDS, compress))) == RECORDS


def test_gzip_of_several_members(path: Path) -> None:
    whole = b"".join(map(framed, RECORDS))
    path.write_bytes(gzip.compress(whole[:7]) + gzip.compress(b"") + gzip.compress(whole[7:]))
    assert list(read_records(path)) == RECORDS


def test_small_reads_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "READ_BYTES", 16)
    monkeypatch.setattr(tfrecord, "INFLATE_BYTES", 5)
    assert list(read_records(write(path, RECORDS))) == RECORDS


def test_without_the_fast_inflate(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "zlib", zlib)
    assert list(read_records(write(path, RECORDS))) == RECORDS
    path.write_bytes(path.read_bytes()[:-9])
    assert "cut off" in error_of(path).message


def test_memory_is_constant(path: Path) -> None:
    """400 MB of zeros in a file of 400 kB: never unpacked whole."""
    record = framed(bytes(200_000))
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(2000):
            file.write(record)
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_leaving_early_ends_the_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "INFLATE_BYTES", 1000)  # far more pieces than may wait
    records = read_records(write(path, [bytes(100_000)] * 2))
    assert len(next(records)) == 100_000
    records.close()  # hangs if the thread is not let go


def test_progress_tells_bytes_of_the_file(path: Path) -> None:
    told: list[int] = []
    list(read_records(write(path, RECORDS), told.append))
    assert told and told[-1] == path.stat().st_size


WHOLE = b"".join(map(framed, RECORDS))


@pytest.mark.parametrize(
    ("cut", "record", "good"),
    [(3, 1, 0), (14, 1, 0), (19, 1, 0), (25, 2, 1), (600, 3, 2), (37 + 4, 3, 2)],
)
@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_a_file_cut_within_a_record(
    path: Path, cut: int, record: int, good: int, compress: Callable
) -> None:
    path.write_bytes(compress(WHOLE[:cut]))
    error = error_of(path, expected=1000)
    assert f"is cut off in record {record}: {good} records were read" in error.message
    assert f"{1000 - good:,} of 1,000 are missing" in error.message


def test_a_gzip_stream_cut_short(path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [rng.bytes(1000) for _ in range(10)]
    whole = gzip.compress(b"".join(map(framed, records)))
    path.write_bytes(whole[: len(whole) // 2])
    assert "is cut off in record 5: 4 records were read" in error_of(path).message
    path.write_bytes(whole[:-4])  # all records are there, gzip's own end is not
    assert "is cut off" in error_of(path).message


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (22, "record 2: its length does not fit its checksum"),
        (17, "record 1: its data does not fit its checksum"),
        (12, "record 1: its data does not fit its checksum"),
        (4000, "record 3: its data does not fit its checksum"),
    ],
)
def test_a_flipped_bit(path: Path, at: int, message: str) -> None:
    wrong = bytearray(WHOLE)
    wrong[at] ^= 4
    path.write_bytes(gzip.compress(bytes(wrong)))
    error = error_of(path)
    assert message in error.message and "records before it are good" in (error.hint or "")


def test_damage_within_the_gzip_stream(path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = bytearray(gzip.compress(b"".join(framed(rng.bytes(50_000)) for _ in range(20))))
    whole[len(whole) // 2] ^= 255
    path.write_bytes(bytes(whole))
    assert ": record " in error_of(path).message


def test_wrong_checksum_of_gzip_itself(path: Path) -> None:
    whole = bytearray(gzip.compress(WHOLE))
    whole[-6] ^= 1
    path.write_bytes(bytes(whole))
    assert "gzip stream is damaged" in error_of(path).message


def test_garbage_after_the_end(path: Path) -> None:
    write(path, RECORDS)
    path.write_bytes(path.read_bytes() + b"garbage")
    assert "record 4: something that is not gzip follows" in error_of(path).message


def test_an_absurd_length_with_a_right_checksum(path: Path) -> None:
    length = struct.pack("<Q", 2**40)
    path.write_bytes(gzip.compress(length + masked(length) + bytes(100)))
    assert "record 1: its length 1,099,511,627,776 is absurd" in error_of(path).message


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", WHOLE)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = 1


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_bytes(bz2.compress(WHOLE)), "compressed with bzip2"),
        (lambda path: path.write_bytes(lzma.compress(WHOLE)), "compressed with xz"),
        (lambda path: path.write_bytes(zlib.compress(WHOLE)), "compressed with zlib"),
        (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + WHOLE), "compressed with zstd"),
        (zipped, "a zip archive"),
        (hdf5, "an HDF5 file"),
        (lambda path: path.write_text("no such thing as a record " * 9), "no TFRecord file"),
        (lambda path: path.write_bytes(gzip.compress(b"text " * 99)), "no TFRecord file"),
        (lambda path: path.write_bytes(gzip.compress(gzip.compress(WHOLE))), "no TFRecord file"),
    ],
)
def test_foreign_files(path: Path, make: Callable[[Path], object], what: str) -> None:
    make(path)
    error = error_of(path)
    assert f"record 1: this is {what}" in error.message and "gzip" in (error.hint or "")


def test_nothing_to_read(path: Path) -> None:
    assert "cannot be read: No such file" in error_of(path).message
    path.write_bytes(b"")
    assert "is empty" in error_of(path).message
    assert "cannot be read" in error_of(path.parent).message


def test_bytes_in_both_forms() -> None:
    values = np.arange(256, dtype=np.uint8)
    for form in (single_bytes, one_string):
        features = parse_example(example({"other": floats([1]), "image": form(values)}))
        assert (bytes_of(features, "image") == values).all()
        assert num_bytes_of(features, "image") == 256
    one = parse_example(example({"image": single_bytes(np.array([7]))}))
    assert bytes_of(one, "image").tolist() == [7]
    # Three entries whose bytes could be taken for one string: `0a 07 ...` of nine bytes in all.
    tricky = parse_example(example({"image": one_string(np.array([10, 1, 9, 10, 1, 9, 10]))}))
    assert bytes_of(tricky, "image").tolist() == [10, 1, 9, 10, 1, 9, 10]


@pytest.mark.parametrize("packed", [True, False])
def test_floats_in_both_forms(packed: bool) -> None:
    features = parse_example(example({"x": floats([0.5, -2, 1e9], packed)}))
    assert floats_of(features, "x").tolist() == [0.5, -2, 1e9]
    assert floats_of(parse_example(example({"x": field(2, b"")})), "x").tolist() == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has no features"),
        (b"no example at all", "no tf.train.Example"),
        (b"\x0a\xff\xff\xff\xff", "a number does not end"),
        (b"\x0a" + varint(1000) + b"short", "longer than its record"),
        (field(1, field(1, field(1, b"only a key"))), "it has no features"),
        (example({"mask": floats([1])}), "it has no feature image, but mask"),
        (example({"image": floats([1])}), "feature image is of another type"),
        (
            example({"image": field(1, field(1, b"two") + field(1, b"strings"))}),
            "feature image is neither one string nor single bytes",
        ),
    ],
)
def test_what_is_no_example(data: bytes, message: str) -> None:
    with pytest.raises(Faulty, match=message):
        bytes_of(parse_example(data), "image")
