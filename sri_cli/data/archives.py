"""Files out of an archive, one after the other and in memory; an archive is never trusted.

Nothing is written to disk, so a name leads nowhere; what would be a trap for others is refused all
the same: an archive that holds one is not the archive that was meant.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sri_cli.data.tar import TarReader
from sri_cli.data.unpacking import BZIP2, CUT, GZIP, XZ, Refused, Source, Unpacked
from sri_cli.errors import SriError

STREAM_BYTES = 2**20
NAME_MOST = 4096  # characters
DRIVE = re.compile(r"[A-Za-z]:")
ZIP, EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
ZIP_END = struct.Struct("<10xH10x")  # the count of members, before the comment
ZIP64_END = struct.Struct("<4s28xQ16x20x")  # right before it: magic and count, then its locator
MANY = 0xFFFF  # the count stands there
ENCRYPTED = 0x1 | 0x40 | 0x2000  # bits of a zip member's flags
LOCAL_HEADER_BYTES = 30
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others without a limit
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Member:
    """A regular file of an archive."""

    name: str  # relative, with single slashes
    num_bytes: int


Contents = Iterator[tuple[Member, bytes]]
Tell = Callable[[int], None] | None
Take = Callable[[str, int, int, bool], Member | None]  # name, bytes, number, whether a file


def members(
    path: Path,
    wanted: Callable[[str], bool],
    *,
    most_bytes: int,
    most_members: int = 10_000_000,
    tell: Tell = None,
) -> Contents:
    """The wanted files of a tar (plain, gzip, bzip2, xz) or zip archive, in its order.

    `most_bytes`: of one wanted file; `most_members`: of all that the archive lists; `tell(n)`
    hears how many bytes of the archive were read. Memory: one file, and the names of the wanted
    ones. Raises SriError, once the first is asked for, when there is no such archive, it is cut
    off or damaged, or holds what no data set holds: links, devices, names that lead out of it.
    """
    try:
        yield from _members(path, wanted, most_bytes, most_members, tell)
    except Refused as refusal:
        member = "" if refusal.member is None else f" member {refusal.member[:200]!r}"
        raise SriError(
            f"archive {path}:{member} {refusal.reason}",
            "get it again from where it comes from, or choose another archive",
        ) from refusal


def _members(
    path: Path, wanted: Callable[[str], bool], most_bytes: int, most_members: int, tell: Tell
) -> Contents:
    seen: set[str] = set()

    def take(name: str, num_bytes: int, number: int, is_file: bool) -> Member | None:
        """A member if it is wanted; Refused when it is a bad one."""
        if number > most_members:
            raise Refused(f"has more than {most_members:,} members")
        good = normal(name)
        if is_file and not good:
            raise Refused("has no name", name)
        if not is_file or not wanted(good):
            return None
        if num_bytes > most_bytes:
            raise Refused(f"has {num_bytes:,} bytes, more than {most_bytes:,}", good)
        if good in seen:
            raise Refused("is there twice", good)
        seen.add(good)
        return Member(good, num_bytes)

    head = first_bytes(path)
    walk = from_zip if head.startswith((ZIP, EMPTY_ZIP)) else from_tar
    yield from walk(path, head, take, tell)


def first_bytes(path: Path) -> bytes:
    """They tell what it is; its name may be anything."""
    if not path.is_file():
        raise Refused("is no file" if path.exists() else "does not exist")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from error
    if not head:
        raise Refused("is empty")
    return head


def from_tar(path: Path, head: bytes, take: Take, tell: Tell) -> Contents:
    """The wanted members of a tar archive, packed or not, as they come."""
    magic = next((magic for magic in (GZIP, BZIP2, XZ) if head.startswith(magic)), None)
    with closing(Source(path, tell)) as source:
        raw: io.RawIOBase = source if magic is None else Unpacked(source, magic)
        reader = TarReader(io.BufferedReader(raw, STREAM_BYTES))
        for entry in reader.entries():
            member = take(entry.name, entry.num_bytes, reader.headers, entry.is_file)
            if member is not None:
                yield member, reader.read(entry)


def from_zip(path: Path, _: bytes, take: Take, tell: Tell) -> Contents:
    """The wanted members of a zip archive, as they lie; its listing is held in memory."""
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise Refused(f"{CUT}, or is damaged ({error})") from error
        except ZIP_ERRORS as error:
            raise Refused(f"is damaged ({error})") from error
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        if len(infos) != listed(file, len(archive.comment)):
            raise Refused("is damaged (its listing is not whole)")
        check_places(infos, path.stat().st_size)
        for number, info in enumerate(infos, 1):
            check_kind(info)
            name = info.orig_filename
            member = take(name, info.file_size, number, not name.endswith("/"))
            if member is not None:
                yield member, unzipped(archive, info)
            if tell is not None:
                tell(end_of(info))


def listed(file: BinaryIO, comment_bytes: int) -> int:
    """How many members a zip archive says it has; zipfile does not ask."""
    file.seek(-ZIP_END.size - comment_bytes, io.SEEK_END)
    place = file.tell()
    count: int = ZIP_END.unpack(file.read(ZIP_END.size))[0]
    if count < MANY or place < ZIP64_END.size:
        return count
    file.seek(place - ZIP64_END.size)
    magic, large = ZIP64_END.unpack(file.read(ZIP64_END.size))
    return large if magic == b"PK\x06\x06" else count


def check_places(infos: list[zipfile.ZipInfo], num_bytes: int) -> None:
    """Refused when there are none, or they overlap: small files unpack to a lot in this way."""
    if not infos:
        raise Refused("holds nothing")
    starts = [info.header_offset for info in infos[1:]] + [num_bytes]
    for info, start in zip(infos, starts, strict=True):
        if info.header_offset < 0 or end_of(info) > start:
            raise Refused("lies over another one or the end", info.orig_filename)


def check_kind(info: zipfile.ZipInfo) -> None:
    """Refused for what is no plain file or folder, encrypted, or packed in an unusual way."""
    name = info.orig_filename
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused("is a link or a device", name)
    if info.flag_bits & ENCRYPTED:
        raise Refused("is encrypted", name)
    if info.compress_type not in PACKED:
        raise Refused(f"is packed in an unusual way ({info.compress_type})", name)


def unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """What a member holds, its size and CRC checked."""
    try:
        with archive.open(info) as packed:
            content = packed.read(info.file_size + 1)
    except ZIP_ERRORS as error:
        raise Refused(f"is damaged ({error})", info.orig_filename) from error
    if len(content) != info.file_size:
        raise Refused(f"has {len(content):,} bytes, {info.file_size:,} said", info.orig_filename)
    return content


def end_of(info: zipfile.ZipInfo) -> int:
    """Where a member ends, at the earliest: in bytes of the archive."""
    return info.header_offset + LOCAL_HEADER_BYTES + info.compress_size


def normal(name: str) -> str:
    """`name` without `.` and doubled slashes; Refused when it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    good = "/".join(parts)
    outside = name.startswith("/") or ".." in parts or "\\" in name or DRIVE.match(good)
    if outside:
        raise Refused("has a name that leads out of the archive", name)
    if "\0" in name or len(name) > NAME_MOST:
        raise Refused("has a name that no file can have", name)
    return good
