"""Compressed files as streams: forwards, at constant memory, bombs refused."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

BLOCK_BYTES = 2**18
XZ_MEMORY_BYTES = 2**28  # xz -9 takes 65 MiB; a file may ask for 4 GiB
# Pictures hardly shrink; what grows like this was made to fill a memory or a disk.
BOMB_BYTES, BOMB_RATIO = 2**28, 500
CUT = "ends before its contents do"
GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"


class Refused(Exception):
    """Why an archive is not read on; `member` where it is about one."""

    def __init__(self, reason: str, member: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.member = reason, member


class Unpacker(Protocol):
    """One compressed stream, as bz2 and lzma have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class Gunzip:
    """zlib in the same form; it checks CRC and length itself."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)
        self._full = False  # all input may be swallowed with output still to come

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        came = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self._full = len(came) == max_length
        return came


class Source(io.RawIOBase):
    """The bytes of a file as they lie there; tells how far it was read."""

    def __init__(self, path: Path, tell: Callable[[int], None] | None) -> None:
        self._file = io.FileIO(path)
        self._tell = tell
        self.position = 0  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            count = self._file.readinto(buffer) or 0
        except OSError as error:
            raise Refused(f"cannot be read ({error.strerror})") from error
        self.position += count
        if self._tell is not None and count:
            self._tell(self.position)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class Unpacked(io.RawIOBase):
    """What a gzip, bzip2 or xz file holds: all of its streams, one after the other."""

    def __init__(self, source: Source, magic: bytes) -> None:
        self._source, self._magic = source, magic
        self._unpacker: Unpacker | None = unpacker_for(magic)
        self._held = b""  # read, but not yet given to the unpacker
        self._came = 0  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Raises Refused for damage, a sudden end and a bomb."""
        while self._unpacker is not None:
            data = self._more() if self._unpacker.needs_input else b""
            if self._unpacker.needs_input and not data:
                raise Refused(CUT)
            try:
                block = self._unpacker.decompress(data, len(buffer))
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
                raise Refused(f"is damaged ({error})") from error
            if self._unpacker.eof:
                self._unpacker = self._following(self._unpacker.unused_data)
            if block:
                self._came += len(block)
                if self._came > max(BOMB_BYTES, BOMB_RATIO * self._source.position):
                    raise Refused(f"unpacks to more than {BOMB_RATIO} times its size")
                buffer[: len(block)] = block
                return len(block)
        return 0

    def _more(self) -> bytes:
        held, self._held = self._held, b""
        return held or self._source.read(BLOCK_BYTES) or b""

    def _following(self, rest: bytes) -> Unpacker | None:
        """The next stream of the file, if there is one; zeros may stand before it or the end."""
        while not (rest := rest.lstrip(b"\0")):
            rest = self._more()
            if not rest:
                return None
        while len(rest) < len(self._magic) and (more := self._more()):
            rest += more
        if not rest.startswith(self._magic):
            raise Refused("goes on with something else after its end")
        self._held = rest
        return unpacker_for(self._magic)


def unpacker_for(magic: bytes) -> Unpacker:
    """For the streams that begin like this."""
    if magic == GZIP:
        return Gunzip()
    if magic == BZIP2:
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
