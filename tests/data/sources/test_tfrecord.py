"""TFRecord files: every good form is read, every bad one is reported with the record's number."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sri_cli.data.sources.tfrecord import (
    BadRecord,
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
    one_string,
    single_bytes,
    varint,
    write,
)

RECORDS = [b"first", b"", b"third record" * 1000]
WHOLE = b"".join(map(framed, RECORDS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.tfrecords"


def error_of(path: Path, expected: int | None = None) -> SriError:
    with pytest.raises(SriError) as caught:
        list(read_records(path, expected=expected))
    assert caught.value.hint and str(path) in caught.value.message
    return caught.value


def test_the_writer_knows_the_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the standard's check value
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_records_come_as_they_were_written(path: Path, compress: Callable) -> None:
    read: list[int] = []
    assert list(read_records(write(path, RECORDS, compress), read.append)) == RECORDS
    assert read[-1] == path.stat().st_size


def test_gzip_of_several_members(path: Path) -> None:
    path.write_bytes(gzip.compress(WHOLE[:7]) + gzip.compress(b"") + gzip.compress(WHOLE[7:]))
    assert list(read_records(path)) == RECORDS


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
    records = read_records(path)
    next(records)
    records.close()


@pytest.mark.parametrize(("cut", "good"), [(3, 0), (14, 0), (19, 0), (25, 1), (41, 2), (600, 2)])
@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_a_truncated_file(path: Path, cut: int, good: int, compress: Callable) -> None:
    path.write_bytes(compress(WHOLE[:cut]))
    message = error_of(path, expected=1000).message
    assert f"record {good + 1}: {good} records" in message and f"{1000 - good:,} of" in message


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
    error_of(path)
    error_of(path.parent)
    for content in (b"", b"no such thing as a record " * 9, gzip.compress(gzip.compress(WHOLE))):
        path.write_bytes(content)
        error_of(path)
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


@pytest.mark.parametrize("packed", [True, False])
def test_floats_in_both_forms(packed: bool) -> None:
    features = parse_example(example({"x": floats([0.5, -2, 1e9], packed)}))
    assert floats_of(features, "x").tolist() == [0.5, -2, 1e9]
    assert floats_of(parse_example(example({"x": field(2, b"")})), "x").tolist() == []


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
