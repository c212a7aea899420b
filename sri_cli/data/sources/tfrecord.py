"""TFRecord files, read as a stream: no TensorFlow, no protobuf, constant memory.

A file is GZIP-compressed (or plain) records `u64 length | u32 crc(length) | data | u32 crc(data)`,
little endian, with masked CRC-32C; each data is a tf.train.Example, whose features are read here
too. Every message names the record, counted from 1.
"""

from __future__ import annotations

import queue
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from sri_cli.errors import SriError

try:  # several times faster than zlib at this
    from isal import isal_zlib as zlib
except ImportError:  # no wheel for this machine
    import zlib  # type: ignore[no-redef]

READ_BYTES = 2**18  # of the compressed file at once
INFLATE_BYTES = 2**20  # at most so much comes out at once, whatever goes in
PIECES_AHEAD = 8
LARGEST_RECORD = 2**28
NO_LENGTH = "its length does not fit its checksum"
GZIP_MAGIC = b"\x1f\x8b"
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x89HDF": "an HDF5 file",
    b"x\x01": "compressed with zlib, without the header of gzip",
    b"x\x9c": "compressed with zlib, without the header of gzip",
    b"x\xda": "compressed with zlib, without the header of gzip",
}
HEADER = struct.Struct("<QI")
CRC = struct.Struct("<I")


class Faulty(Exception):
    """What is wrong with a record; `located` says of which. `hint`: what to do if it is the
    first, and all are like it."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


def read_records(
    path: Path, tell: Callable[[int], None] | None = None, expected: int | None = None
) -> Iterator[bytes]:
    """The data of each record, both CRCs checked.

    `tell` gets the bytes of the file read so far, now and then. Raises SriError, with the number
    of the record, for a file that is cut off, damaged, or no TFRecord; `expected` records are told
    as missing.
    """
    number = 0
    try:
        with open(path, "rb") as file, closing(ahead(inflated(file, path, tell))) as pieces:
            stream = Stream(pieces)
            while True:
                number += 1
                if stream.has_ended():
                    return
                yield next_record(stream)
    except EOFError as error:
        raise cut_off(path, number, expected) from error
    except Faulty as error:
        if number <= 1 and error.what == NO_LENGTH:
            raise foreign(path, "no TFRecord file") from error
        raise damaged(path, number, error) from error
    except OSError as error:
        raise SriError(f"{path} cannot be read: {error.strerror}", "name another file") from error


def next_record(stream: Stream) -> bytes:
    """The data of the record that begins here."""
    header = stream.take(HEADER.size)
    length, crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise Faulty(NO_LENGTH)
    if length > LARGEST_RECORD:
        raise Faulty(f"its length {length:,} is absurd")
    data = stream.take(length)
    if masked_crc(data) != CRC.unpack(stream.take(CRC.size))[0]:
        raise Faulty("its data does not fit its checksum")
    return data


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class Stream:
    """Bytes on demand out of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.piece, self.at = memoryview(b""), 0

    def has_ended(self) -> bool:
        """Whether nothing follows."""
        return self.at == len(self.piece) and not self._next()

    def take(self, count: int) -> bytes:
        """The next `count` bytes; EOFError when there are fewer."""
        parts = []
        while count:
            if self.has_ended():
                raise EOFError
            part = self.piece[self.at : self.at + count]
            parts.append(part)
            self.at += len(part)
            count -= len(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _next(self) -> bool:
        piece = next((piece for piece in self.pieces if piece), b"")
        self.piece, self.at = memoryview(piece), 0
        return bool(piece)


def ahead(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The same, made by a thread a few pieces ahead: inflating takes half of the time, and other
    threads can run meanwhile. Its errors are raised here."""
    ready: queue.Queue[bytes | Exception | None] = queue.Queue(PIECES_AHEAD)
    left = threading.Event()

    def make() -> None:
        end: Exception | None = None
        try:
            for piece in pieces:
                ready.put(piece)
                if left.is_set():
                    return
        except Exception as error:
            end = error
        ready.put(end)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (piece := ready.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        left.set()
        while thread.is_alive():  # it may wait for room
            with suppress(queue.Empty):
                ready.get(timeout=0.01)


def inflated(file, path: Path, tell: Callable[[int], None] | None) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    """The contents of a gzip file (of one member or more) or of a plain one, piece by piece."""
    start = file.read(READ_BYTES)
    if not start:
        raise SriError(f"{path} is empty", "get the file again, or name another")
    for magic, what in FOREIGN.items():
        if start.startswith(magic):
            raise foreign(path, what)
    plain = not start.startswith(GZIP_MAGIC)
    inflate = None if plain else zlib.decompressobj(wbits=31)
    while start:
        if tell is not None:
            tell(file.tell())
        if inflate is None:
            yield start
            start = file.read(READ_BYTES)
            continue
        try:
            yield inflate.decompress(start, INFLATE_BYTES)
        except zlib.error as error:  # type: ignore[misc]
            raise Faulty("the gzip stream is damaged here") from error
        if inflate.eof:
            start = inflate.unused_data or file.read(READ_BYTES)
            if not start.startswith(GZIP_MAGIC[: len(start)]):
                raise Faulty("something that is not gzip follows here")
            inflate = zlib.decompressobj(wbits=31)
        else:
            start = inflate.unconsumed_tail or file.read(READ_BYTES)
            if not start:
                raise EOFError  # gzip's own end has not come


@contextmanager
def located(path: Path, number: int) -> Iterator[None]:
    """Faulty, in the work with record `number`, as SriError."""
    try:
        yield
    except Faulty as error:
        raise damaged(path, number, error) from error


def damaged(path: Path, number: int, error: Faulty) -> SriError:
    """What is wrong with record `number`."""
    good = max(number - 1, 0)
    again = f"{good:,} records before it are good; get the file again"
    hint = again if good or error.hint is None else error.hint
    return SriError(f"{path}: record {good + 1:,}: {error.what}", hint)


def cut_off(path: Path, number: int, expected: int | None) -> SriError:
    """The file ends within record `number`, or within gzip's own end after it."""
    good = max(number - 1, 0)
    missing = f", {expected - good:,} of {expected:,} are missing" if expected else ""
    return SriError(
        f"{path} is cut off in record {max(number, 1):,}: {good:,} records were read{missing}",
        "get the rest of the file (a download goes on with the same command)",
    )


def foreign(path: Path, what: str) -> SriError:
    """A file of another kind."""
    return SriError(
        f"{path}: record 1: this is {what}",
        "a TFRecord file is wanted, compressed with gzip as published, or not at all",
    )


Features = dict[str, memoryview]


def parse_example(data: bytes) -> Features:
    """The features of a tf.train.Example, each as its undecoded list; Faulty when it is none."""
    features = {}
    for number, body in fields(memoryview(data)):
        for inner, entry in fields(body) if number == 1 else ():
            parts = dict(fields(entry)) if inner == 1 else {}
            if 1 in parts and 2 in parts:
                features[bytes(parts[1]).decode("utf-8", "replace")] = parts[2]
    if not features:
        raise Faulty("it is no tf.train.Example: it has no features")
    return features


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of a message's length-delimited fields, the only ones used here."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 != 2:
            raise Faulty("it is no tf.train.Example")
        length, at = varint(message, at)
        if at + length > len(message):
            raise Faulty("it is no tf.train.Example: a field is longer than its record")
        yield tag >> 3, message[at : at + length]
        at += length


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise Faulty("it is no tf.train.Example: a number does not end")


def bytes_of(features: Features, name: str) -> NDArray[np.uint8]:
    """The bytes of a BytesList: each its own one-byte entry (`0a 01 xx`), or one long string."""
    content = only_list(features, name, 1)
    if (start := start_of_string(content)) is not None:
        return np.frombuffer(content[start:], np.uint8)
    if len(content) % 3 == 0:
        entries = np.frombuffer(content, np.uint8).reshape(-1, 3)
        if (entries[:, 0] == 0x0A).all() and (entries[:, 1] == 1).all():
            return entries[:, 2]
    raise Faulty(f"feature {name} is neither one string nor single bytes")


def num_bytes_of(features: Features, name: str) -> int:
    """How many bytes `bytes_of` would give, without a look at each."""
    content = only_list(features, name, 1)
    start = start_of_string(content)
    return len(content) // 3 if start is None else len(content) - start


def start_of_string(content: memoryview) -> int | None:
    """Where the string begins in a BytesList that holds nothing else."""
    first, at = varint(content, 0) if len(content) else (0, 0)
    if first != 0x0A:
        return None
    length, at = varint(content, at)
    return at if at + length == len(content) else None


def floats_of(features: Features, name: str) -> NDArray[np.float32]:
    """The numbers of a FloatList, packed or one by one."""
    content = only_list(features, name, 2)
    if len(content) and content[0] == 0x0A:
        content = b"".join(part for number, part in fields(content) if number == 1)  # type: ignore[assignment]
    elif len(content) % 5 == 0 and bytes(content[::5]).count(0x0D) == len(content) // 5:
        content = np.frombuffer(content, np.uint8).reshape(-1, 5)[:, 1:].tobytes()  # type: ignore[assignment]
    if len(content) % 4:
        raise Faulty(f"feature {name} is no list of floats")
    return np.frombuffer(content, "<f4").astype(np.float32)


def only_list(features: Features, name: str, kind: int) -> memoryview:
    """The list of a feature: 1 bytes, 2 floats."""
    if name not in features:
        raise Faulty(f"it has no feature {name}, but {', '.join(sorted(features))}")
    parts = dict(fields(features[name]))
    if kind not in parts:
        raise Faulty(f"feature {name} is of another type")
    return parts[kind]
