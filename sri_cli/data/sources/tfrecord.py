"""Multi-Object Datasets from their TFRecord files, local or in the bucket.

Files are read as a stream without TensorFlow: GZIP or plain, in constant memory.

A record is `u64 length | u32 crc(length) | data | u32 crc(data)`, little endian, with masked
CRC-32C; the data is a tf.train.Example. Error messages count records from 1.
Axes: H, W rows and columns of an image, E entities, background first.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from isal import igzip_threaded, isal_zlib
from numpy.typing import NDArray

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Rows, Scenario
from sri_cli.data.sources.published import ImageSource, scene_of
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, SriFailure

BUCKET = "https://storage.googleapis.com/multi-object-datasets/"
GZIP_MAGIC = b"\x1f\x8b"
# Inflated ahead by a thread. When a stream ends too early, as much as this is lost: less than a
# record of the published files.
INFLATE_BYTES = 2**16
MAX_RECORD_BYTES = 2**28
HEADER, CRC = struct.Struct("<QI"), struct.Struct("<I")


class BadRecord(Exception):
    """What is wrong with a record."""

    def located(self, path: Path, number: int) -> SriError:
        """The error of record `number` of a file."""
        hint = f"{number - 1:,} records before it are good; get the file again"
        if number == 1:
            hint = (
                "get the file again, or choose a TFRecord file of this data set (where it has"
                " variants, of this --variant): --from FILE"
            )
        return SriError(f"{path}: record {number:,}: {self}", hint)


def read_records(
    path: Path, progress: Callable[[int], None] = lambda num_bytes: None, total: int = 0
) -> Iterator[bytes]:
    """The data of each record, both checksums checked.

    `progress` is called with the bytes of the file that are read, after each record; `total` is
    the number of records, where it is known. SriError if the file is truncated, damaged or not a
    TFRecord file, SriFailure if the disk fails.
    """
    number = 1
    try:
        with open(path, "rb") as file, _inflate(file) as stream:
            while header := stream.read(HEADER.size):
                yield _read_record(stream, header)
                number += 1
                progress(file.tell())
    except EOFError as error:
        missing = f", {total - number + 1:,} of {total:,} are missing" * (total >= number)
        raise SriError(
            f"{path} is truncated in record {number:,}: {number - 1:,} records were read{missing}",
            f"remove {path} and get the whole file again; --from bucket downloads it",
        ) from error
    except (gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]
        raise BadRecord("the gzip stream is damaged here").located(path, number) from error
    except BadRecord as error:
        raise error.located(path, number) from error
    except OSError as error:
        raise SriFailure(  # the disk: the rows so far stay
            f"{path} cannot be read: {error.strerror}",
            "run the same command again, or name another file",
        ) from error
    if number == 1:
        raise SriError(f"{path} is empty", "get the file again, or name another one")


def _inflate(file: BinaryIO) -> Any:
    """A context manager of the stream of records."""
    magic = file.read(len(GZIP_MAGIC))
    file.seek(0)
    if magic != GZIP_MAGIC:
        return contextlib.nullcontext(file)
    return igzip_threaded.open(file, "rb", block_size=INFLATE_BYTES)


def _read_record(stream: BinaryIO, header: bytes) -> bytes:
    if len(header) < HEADER.size:
        raise EOFError
    length, crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise BadRecord("its length does not match its checksum")
    if length > MAX_RECORD_BYTES:
        raise BadRecord(f"its length of {length:,} bytes is too large")
    data, end = stream.read(length), stream.read(CRC.size)
    if len(data) + len(end) < length + CRC.size:
        raise EOFError
    if masked_crc(data) != CRC.unpack(end)[0]:
        raise BadRecord("its data does not match its checksum")
    return data


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


Features = dict[str, memoryview]


def parse_example(data: bytes) -> Features:
    """The features of a tf.train.Example, each as its encoded list; BadRecord if it is none."""
    features = {}
    for number, body in _fields(memoryview(data)):
        for inner, entry in _fields(body) if number == 1 else ():
            parts = dict(_fields(entry)) if inner == 1 else {}
            if 1 in parts and 2 in parts:
                features[bytes(parts[1]).decode("utf-8", "replace")] = parts[2]
    if not features:
        raise BadRecord("it is not a tf.train.Example: it has no features")
    return features


def bytes_of(features: Features, name: str) -> NDArray[np.uint8]:
    """The bytes of a BytesList: each a one-byte entry (`0a 01 xx`), or all in one long entry."""
    content = _list_of(features, name, kind=1)
    if (start := _start_of_string(content)) is not None:
        return np.frombuffer(content[start:], np.uint8)
    if len(content) % 3 == 0:
        entries = np.frombuffer(content, np.uint8).reshape(-1, 3)
        if (entries[:, 0] == 0x0A).all() and (entries[:, 1] == 1).all():
            return entries[:, 2]
    raise BadRecord(f"feature {name} has entries that are longer than one byte")


def num_bytes_of(features: Features, name: str) -> int:
    """How many bytes `bytes_of` would return, without looking at each."""
    content = _list_of(features, name, kind=1)
    start = _start_of_string(content)
    return len(content) // 3 if start is None else len(content) - start


def floats_of(features: Features, name: str) -> NDArray[np.float32]:
    """The numbers of a FloatList, packed (`0a length ...`) or one by one (`0d xx xx xx xx`)."""
    content = _list_of(features, name, kind=2)
    if content[:1] == b"\x0a":
        values = b"".join(part for number, part in _fields(content) if number == 1)
    elif len(content) % 5 == 0 and not bytes(content[::5]).strip(b"\x0d"):
        values = np.frombuffer(content, np.uint8).reshape(-1, 5)[:, 1:].tobytes()
    else:
        raise BadRecord(f"feature {name} is not a list of floats")
    if len(values) % 4:
        raise BadRecord(f"feature {name} is not a list of floats")
    return np.frombuffer(values, "<f4").astype(np.float32)


def _list_of(features: Features, name: str, kind: int) -> memoryview:
    """The list of a feature; kind 1: bytes, 2: floats."""
    if name not in features:
        raise BadRecord(f"it has no feature {name}, but {', '.join(sorted(features))}")
    parts = dict(_fields(features[name]))
    if kind not in parts:
        raise BadRecord(f"feature {name} has another type")
    return parts[kind]


def _start_of_string(content: memoryview) -> int | None:
    """Where the string begins in a BytesList of one entry; None for other lists."""
    if content[:1] != b"\x0a":
        return None
    length, at = _varint(content, 1)
    return at if at + length == len(content) else None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of a protobuf message's length-delimited fields; an Example has no
    others."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != 2:
            raise BadRecord("it is not a tf.train.Example")
        length, at = _varint(message, at)
        if at + length > len(message):
            raise BadRecord("it is not a tf.train.Example: a field is longer than its record")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise BadRecord("it is not a tf.train.Example: a number does not end")


class RecordSource(ImageSource):
    """A TFRecord file of Multi-Object Datasets, local or in the bucket."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.kind.split is not None
        self.split = self.kind.split.changed_by(self.options)
        self.header = Header(
            name=self.name,
            size=self.resizing.size,
            source="original",
            background_labels=self.kind.background_labels,
            parameters={
                "file": self.path.name,
                "kept": self.kind.kept,
                **self.base,
                **self.split.parameters(),
            },
            preprocessing=self.resizing.describe(),
            notes=self.split.notes,
        )

    def survey(self, workers: int) -> tuple[Header, None]:
        """Read the file as far as needed, check every record, and count the splits."""
        folder = self.kind.record_file.partition("/")[0]
        self.download(os.environ.get("SRI_BUCKET", BUCKET), f"{folder}/{self.path.name}")
        counts, number = dict.fromkeys(SPLITS, 0), 0
        megabytes = self.path.stat().st_size // 10**6
        try:
            with Progress(megabytes, 0, f"check {self.path.name}", "MB") as progress:
                records = self._records(lambda num_bytes: progress.update(num_bytes // 10**6))
                for split, record in self.split.assign(records):
                    number = record[0]
                    if split is not None:
                        counts[split] += 1
        except SriError as error:
            if not self.remote or isinstance(error, SriFailure):  # the disk, not the file
                raise
            hint = f"remove {self.path} and run the same command again to download it"
            raise SriError(error.message, hint) from error
        self.split.check(self.path, number, counts)
        return replace(self.header, counts=counts), None

    def items(self, plan: None, rows: Rows) -> Iterator[tuple[str, Scenario]]:
        seen = dict.fromkeys(SPLITS, 0)
        for split, (number, features) in self.split.assign(self._records()):
            if split is None:
                continue
            seen[split] += 1
            if seen[split] > rows[split]:
                try:
                    yield split, self._scene(number, features)
                except BadRecord as error:
                    raise error.located(self.path, number) from error

    def _records(
        self, progress: Callable[[int], None] = lambda num_bytes: None
    ) -> Iterator[tuple[tuple[int, Features], bool]]:
        """((number, features), whether the filter keeps it) of each record."""
        whole = self.path.name == Path(self.kind.record_file).name
        records = read_records(self.path, progress, self.kind.records * whole)
        for number, data in enumerate(records, start=1):
            keep = True
            try:
                features = parse_example(data)
                self._check_shape(features)
                if self.kind.max_entities is not None:
                    visible = floats_of(features, "visibility").sum()
                    keep = bool(visible <= self.kind.max_entities)
            except BadRecord as error:
                raise error.located(self.path, number) from error
            yield (number, features), keep

    def _check_shape(self, features: Features) -> None:
        """BadRecord for a record of another data set."""
        kind, area = self.kind, self.kind.height * self.kind.width
        image, masks = (num_bytes_of(features, name) for name in ("image", "mask"))
        entities = masks // area if kind.entities is None else kind.entities
        if image != kind.channels * area or masks != entities * area or not 1 <= entities <= 255:
            shape = f"{kind.height}x{kind.width}"
            number = "a multiple of " if kind.entities is None else f"{kind.entities}x"
            raise BadRecord(
                f"it is not of {kind.name}: it has an image of {image:,} and masks of {masks:,}"
                f" bytes, not of {shape}x{kind.channels} and {number}{shape}"
            )

    def _scene(self, number: int, features: Features) -> Scenario:
        """Image and labels: the first entity whose mask is set, 0 where none is."""
        kind, shape = self.kind, (self.kind.height, self.kind.width)
        image = bytes_of(features, "image").reshape(*shape, kind.channels)
        masks = bytes_of(features, "mask")
        if kind.entities_third:
            masks = np.moveaxis(masks.reshape(*shape, -1), -1, 0)
        masks = masks.reshape(-1, *shape)
        labels = (masks > 127).argmax(axis=0).astype(np.uint8)
        factors: dict[str, Any] = {name: floats_of(features, name) for name in kind.factors}
        for name, values in factors.items():
            if len(values) % len(masks):
                raise BadRecord(f"feature {name} has {len(values)} numbers, not of {len(masks)}")
            if len(values) > len(masks):
                factors[name] = values.reshape(len(masks), -1)
        image = np.broadcast_to(image, (*shape, 3))  # of grey images
        return scene_of(f"record-{number}", image, labels, factors, self.resizing)
