"""Tar archives, read forwards and strictly: ustar, GNU long names, pax.

Python's tarfile takes a damaged header for the end, believes the size of a pax header, and keeps
every member it has seen; an archive of 33 GB from elsewhere asks for the opposite.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sri_cli.data.unpacking import CUT, Refused

BLOCK = 512
NO_TAR = "is no archive: neither tar (plain, gzip, bzip2, xz) nor zip"
HEADER_BYTES_MOST = 2**20  # of a long name or a pax header
SIZE_MOST = 2**50  # bytes; more is nonsense
SKIP_BYTES = 2**20
FILES, FOLDER = (b"0", b"\0", b"7"), b"5"
UNWANTED = {
    b"1": "is a hard link",
    b"2": "is a symbolic link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a fifo",
    b"S": "is sparse",
    b"M": "is the rest of another volume",
}
SPARSE = b"GNU.sparse"  # keys of pax headers
NUMBER = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
RECORD = re.compile(rb"([0-9]{1,7}) ")
DECIMAL = re.compile(rb"[0-9]{1,20}")


@dataclass
class Entry:
    """A file or folder of the archive; what it holds comes next in the stream."""

    name: str
    num_bytes: int
    is_file: bool


@dataclass
class Ahead:
    """What extended headers say of the entry after them; no more than is of use."""

    long_name: bytes | None = None  # GNU
    path: bytes | None = None  # pax
    size: bytes | None = None
    sparse: bool = False


class TarReader:
    """Entries one after the other; `read` gives the contents of the last one, `entries` skips it.

    Raises Refused for what is damaged, cut off, or no plain file or folder.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._left = 0  # bytes up to the next header
        self.headers = 0

    def entries(self) -> Iterator[Entry]:
        """All of them, up to the end marker; then the stream is read to its end, for its CRC."""
        ahead = Ahead()
        block = self._stream.read(BLOCK)
        if not is_header(block):
            raise Refused("holds nothing" if len(block) == BLOCK and not any(block) else NO_TAR)
        while any(block):
            self.headers += 1
            if not is_header(block):
                raise Refused("is damaged (a header's checksum)")
            kind, size = block[156:157], number(block[124:136], "size")
            if kind in (b"x", b"g", b"L", b"K"):
                self._extend(ahead, kind, self._small(size))
            else:
                yield self._entry(block, kind, size, ahead)
                ahead = Ahead()
                self._skip(self._left)
            block = self._exactly(BLOCK)
        if ahead != Ahead():
            raise Refused(CUT)
        while self._stream.read(SKIP_BYTES):
            pass

    def read(self, entry: Entry) -> bytes:
        """What it holds."""
        content = self._exactly(entry.num_bytes, entry.name)
        self._left -= len(content)
        return content

    def _entry(self, block: bytes, kind: bytes, size: int, ahead: Ahead) -> Entry:
        name = text(full_name(block, ahead))
        if ahead.sparse:
            raise Refused("is sparse", name)
        if kind in UNWANTED:
            raise Refused(UNWANTED[kind], name)
        if kind not in (*FILES, FOLDER):
            raise Refused(f"is of an unknown kind {kind!r}", name)
        if ahead.size is not None:
            size = decimal(ahead.size)
        if size > SIZE_MOST:
            raise Refused(f"is said to have {size} bytes", name)
        # Before POSIX a folder was a file whose name ends in a slash.
        is_file = kind != FOLDER and not (kind == b"\0" and not size and name.endswith("/"))
        self._left = padded(size) if is_file else 0
        return Entry(name, size, is_file)

    def _extend(self, ahead: Ahead, kind: bytes, content: bytes) -> None:
        if kind == b"L":
            ahead.long_name = content.rstrip(b"\0")
        elif kind == b"x":
            found = records(content)
            ahead.path = found.get(b"path", ahead.path)
            ahead.size = found.get(b"size", ahead.size)
            ahead.sparse |= any(key.startswith(SPARSE) for key in found)
        elif kind == b"g":
            for key in records(content):
                if key in (b"path", b"size") or key.startswith(SPARSE):
                    raise Refused(f"gives one {text(key)} to all its members")

    def _small(self, size: int) -> bytes:
        if size > HEADER_BYTES_MOST:
            raise Refused(f"has a header of {size:,} bytes")
        return self._exactly(padded(size))[:size]

    def _exactly(self, num_bytes: int, name: str | None = None) -> bytes:
        content = self._stream.read(num_bytes)
        if len(content) < num_bytes:
            raise Refused(CUT, name)
        return content

    def _skip(self, num_bytes: int) -> None:
        self._left = 0
        while num_bytes:
            num_bytes -= len(self._exactly(min(num_bytes, SKIP_BYTES)))


def is_header(block: bytes) -> bool:
    """Whether 512 bytes carry their own checksum."""
    if len(block) < BLOCK:
        return False
    said = NUMBER.fullmatch(block[148:156])
    if said is None or not said[1]:
        return False
    return int(said[1], 8) == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def number(digits: bytes, what: str) -> int:
    """An octal number, or a large one in binary as GNU writes it; Refused when it is neither."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    match = NUMBER.fullmatch(digits)
    if match is None:
        raise Refused(f"has a header whose {what} is no number or negative")
    return int(match[1] or b"0", 8)


def decimal(digits: bytes) -> int:
    """A number of a pax header."""
    if not DECIMAL.fullmatch(digits):
        raise Refused(f"has a header whose size is {text(digits[:40])!r}")
    return int(digits)


def records(content: bytes) -> dict[bytes, bytes]:
    """The keys and values of a pax header: `LENGTH KEY=VALUE\\n`, one after the other."""
    found: dict[bytes, bytes] = {}
    start = 0
    while start < len(content):
        match = RECORD.match(content, start)
        stop = start + int(match[1]) if match else 0
        if match is None or not match.end() < stop <= len(content):
            raise Refused("has a pax header that cannot be read")
        key, equals, value = content[match.end() : stop].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise Refused("has a pax header that cannot be read")
        found[key] = value[:-1]
        start = stop
    return found


def full_name(block: bytes, ahead: Ahead) -> bytes:
    """The name of an entry, wherever it is written."""
    if ahead.path is not None:
        return ahead.path
    if ahead.long_name is not None:
        return ahead.long_name
    name, prefix = (part.split(b"\0", 1)[0] for part in (block[:100], block[345:500]))
    is_posix = block[257:263] == b"ustar\0"  # GNU keeps other things where the prefix is
    return prefix + b"/" + name if is_posix and prefix else name


def text(name: bytes) -> str:
    """A name as it is meant; old archives are in latin-1."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")


def padded(num_bytes: int) -> int:
    """Up to the next block."""
    return -(-num_bytes // BLOCK) * BLOCK
