"""Small archives that would fill a disk or a memory: refused at once, at little memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sri_cli.data.archives import members
from sri_cli.errors import SriError
from tests.small_archives import END, header, patched, refusal, tar_of, zip_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.bin"


def gigabytes_of_zeros(pack: Callable[[bytes], bytes]) -> bytes:
    """4 GiB as many streams, a few MB or less."""
    return pack(bytes(2**26)) * 64


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bombs(path: Path, pack: Callable[[bytes], bytes]) -> None:
    zeros = gigabytes_of_zeros(pack)
    size = b"\x80" + (2**32).to_bytes(11, "big")
    unwanted = header(b"big.bin", size=size)
    name = header(kind=b"L", size=size)
    wanted = header(b"a.png", size=size)
    for head, told in (
        (unwanted, "more than 500 times its size"),
        (name, "has a header of 4,294,967,296 bytes"),
        (wanted, "has 4,294,967,296 bytes, more than 1,000"),
        (tar_of({"a.png": b"1"}), "more than 500 times its size"),  # after the end
        (b"", "holds nothing"),
    ):
        path.write_bytes(pack(head) + zeros)
        began = time.monotonic()
        with pytest.raises(SriError, match=told):
            list(members(path, lambda name: name == "a.png", most_bytes=1000))
        assert time.monotonic() - began < 5  # unpacking it all takes far longer


def test_a_zip_bomb(path: Path) -> None:
    good = zip_of({"a.png": bytes(2**26)})
    assert "67,108,864 bytes, more than 1,000" in refusal(path, good, most_bytes=1000)
    lying = patched(good, b"a.png", 22, 24, "<I", 900)
    tracemalloc.start()
    assert "'a.png' is damaged" in refusal(path, lying, most_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


def test_a_bomb_for_memory(path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    packed = lzma.compress(tar_of({"a": b"1"}), filters=filters)
    assert "is damaged (Memory usage limit exceeded)" in refusal(path, packed)


def many(count: int, size: int) -> Iterator[bytes]:
    """A tar archive, piece by piece."""
    for index in range(count):
        yield header(b"towers/%06d.png" % index, size=b"%011o\0" % size)
        yield os.urandom(size).ljust(-(-size // 512) * 512, b"\0")
    yield END


@pytest.mark.parametrize("count, size", [(20_000, 0), (64, 2**20)])
def test_memory_is_one_file(path: Path, count: int, size: int) -> None:
    with gzip.open(path, "wb", compresslevel=0) as file:
        for piece in many(count, size):
            file.write(piece)
    tracemalloc.start()
    total = sum(1 for _ in members(path, lambda name: name.endswith("7.png"), most_bytes=2**20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == count // 10 and peak < 7e6
