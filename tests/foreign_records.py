"""TFRecord files, written from the format's description: no code of the reader is used."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np


def masked(data: bytes) -> bytes:
    """The masked CRC-32C as it stands in the file."""
    crc = google_crc32c.value(data)
    rotated = (crc >> 15) | (crc << 17 & 0xFFFFFFFF)
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def framed(data: bytes) -> bytes:
    """One record."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number * 8 + 2) + varint(len(content)) + content


def single_bytes(values: np.ndarray) -> bytes:
    """A Feature with every byte its own entry, as the published files have it."""
    entries = b"".join(b"\x0a\x01" + bytes([value]) for value in values.astype(np.uint8).ravel())
    return field(1, entries)


def one_string(values: np.ndarray) -> bytes:
    """A Feature with one long entry."""
    return field(1, field(1, values.astype(np.uint8).tobytes()))


def floats(values: Iterable[float], packed: bool = True) -> bytes:
    """A Feature of float32."""
    parts = [struct.pack("<f", value) for value in values]
    content = field(1, b"".join(parts)) if packed else b"".join(b"\x0d" + part for part in parts)
    return field(2, content)


def example(features: Mapping[str, bytes]) -> bytes:
    """A tf.train.Example."""
    entries = [
        field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items()
    ]
    return field(1, b"".join(entries))


def write(path: Path, records: Iterable[bytes], compress: Any = gzip.compress) -> Path:
    """A file of these records."""
    path.write_bytes(compress(b"".join(framed(record) for record in records)))
    return path
