"""Archives give their files, and what nobody would pack for a data set is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sri_cli.data.archives import Member, members
from sri_cli.errors import SriError
from tests.small_archives import END, header, patched, read, refusal, tar_of, zip_of

RANDOM = random.Random(0)
FILES = {
    "towers/a.png": RANDOM.randbytes(3000),
    "towers/empty.png": b"",
    "towers/" + "long/" * 60 + "b.png": RANDOM.randbytes(512),
    "towers/\u00fc.txt": b"text",
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}
OTHER_VOLUME = b"M"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers.bin"  # its name says nothing


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(path: Path, kind: str, style: int) -> None:
    assert read(path, PACKERS[kind](tar_of(FILES, style))) == FILES
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_zip(path: Path) -> None:
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert read(path, zip_of(FILES, how)) == FILES


def test_a_zip_with_more_members_than_its_old_form_counts(path: Path) -> None:
    files = {f"{index}.png": b"" for index in range(66_000)}
    assert read(path, zip_of(files)) == files


@pytest.mark.parametrize("pack", [lambda files: gzip.compress(tar_of(files)), zip_of])
def test_only_what_is_wanted(path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    path.write_bytes(pack({"huge.bin": bytes(100_000), "./towers//a.png": b"picture"}))
    heard: list[int] = []
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return name.endswith(".png")

    found = list(members(path, wanted, most_bytes=10, tell=heard.append))
    assert found == [(Member("towers/a.png", 7), b"picture")]
    assert asked == ["huge.bin", "towers/a.png"]
    assert heard == sorted(heard) and 0 < heard[-1] <= path.stat().st_size


def test_headers_of_many_makers(path: Path) -> None:
    posix = header(b"a.png", magic=b"ustar\x0000", prefix=b"deep/er", size=b"0000003\0    ")
    large = header(b"b.png", size=b"\x80" + bytes(10) + b"\x03")
    folder = header(b"old/", kind=b"\0")
    latin = header(b"\xfc.png")
    comment = header(b"pax_global_header", kind=b"g", size=b"00000000024\0")
    data = [posix, b"abc".ljust(512, b"\0"), large, b"def".ljust(512, b"\0"), folder, latin]
    data += [comment, b"20 comment=by hand!\n".ljust(512, b"\0")]
    found = read(path, b"".join(data) + END)
    assert found == {"deep/er/a.png": b"abc", "b.png": b"def", "\u00fc.png": b""}
    assert read(path, header(b"./", kind=b"5") + tar_of({"./a": b"1"}) + bytes(10_240)) == {
        "a": b"1"
    }


def test_streams_one_after_the_other(path: Path) -> None:
    plain = tar_of(FILES)
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        two = pack(plain[:1000]) + pack(b"") + pack(plain[1000:])
        assert read(path, two) == FILES
        assert read(path, two + bytes(300_000)) == FILES
        assert "something else" in refusal(path, two + b"garbage")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a", "a/../../b", "a/..", "a\\b", "C:/a", "./c:a", "x" * 5000, "/", ".."],
)
@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None])
def test_names_that_lead_elsewhere(path: Path, name: str, style: int | None) -> None:
    files = {"good.png": b"1", name: b"2"}
    data = zip_of(files) if style is None else gzip.compress(tar_of(files, style))
    path.write_bytes(data)
    found = members(path, lambda name: name == "good.png", most_bytes=10)  # though not wanted
    with pytest.raises(SriError, match="member .* has a name that") as caught:
        list(found)
    assert repr(name[:200]) in caught.value.message


def test_names_with_nul_or_none_at_all(path: Path) -> None:
    pax = b"21 path=a.png\0/b.png\n"
    size = b"%011o\0" % len(pax)
    data = header(kind=b"x", size=size) + pax.ljust(512, b"\0") + header() + END
    assert "no file can have" in refusal(path, data)
    long = header(kind=b"L", size=b"00000000006\0") + b"a\0b.g\0".ljust(512, b"\0") + header()
    assert "no file can have" in refusal(path, long + END)
    zipped = zip_of({"a_b.png": b"1"}).replace(b"a_b.png", b"a\0b.png")
    assert "no file can have" in refusal(path, zipped)
    assert "has no name" in refusal(path, header(b"") + END)
    assert "has no name" in refusal(path, tar_of({"./.": b"1"}))


@pytest.mark.parametrize(
    "kind, told",
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (OTHER_VOLUME, "another volume"),
        (b"V", "unknown kind"),
        (b"D", "unknown kind"),
        (b"\xff", "unknown kind"),
    ],
)
def test_members_that_are_no_files(path: Path, kind: bytes, told: str) -> None:
    data = tar_of({"good": b""}, linkname="")[:512] + header(b"link", kind=kind) + END
    assert told in refusal(path, data) and "'link'" in refusal(path, data)


def test_sparse_members_of_pax(path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 12}
    assert "is sparse" in refusal(
        path, tar_of({"a": b"1"}, tarfile.PAX_FORMAT, pax_headers=headers)
    )


def pax_then_file(records: bytes, kind: bytes = b"x") -> bytes:
    size = b"%011o\0" % len(records)
    padding = bytes(-len(records) % 512)
    return header(kind=kind, size=size) + records + padding + header() + END


@pytest.mark.parametrize(
    "data",
    [
        header(size=b"\xff" * 12),  # -1
        header(size=b"-0000000001\0"),
        header(size=b"00000000009\0"),  # no octal digit
        header(size=b"\x80" + b"\xff" * 11),
        header(size=b"\x81" + b"\x00" * 11),
        header(kind=b"x", size=b"77777777777\0"),  # a pax header of 8 GiB
        header(kind=b"L", size=b"\x80" + b"\x7f" * 11),
        pax_then_file(b"11 size=-5\n"),
        pax_then_file(b"19 size=9999999999\n"),
        pax_then_file(b"11 size=1.5\n"),
        pax_then_file(b"11 path=abc"),
        pax_then_file(b"999 path=abc\n"),
        pax_then_file(b"0 path=abc\n"),
        pax_then_file(b"-5 path=abc\n"),
        pax_then_file(b"9 nothing\n"),
        pax_then_file(b"9999999999999999999999 path=a\n"),
        pax_then_file(b"10 path=a\n", kind=b"g"),
        pax_then_file(b"9 size=5\n", kind=b"g"),
    ],
    ids=range(18),
)
def test_headers_of_nonsense(path: Path, data: bytes) -> None:
    began = time.monotonic()
    refusal(path, header(b"good") + data + END)
    assert time.monotonic() - began < 1


def test_cut_anywhere(path: Path) -> None:
    plain = tar_of(FILES)
    stop = plain.rindex(b"text") + 512
    for pack in PACKERS.values():
        packed = pack(plain)
        last = stop if packed == plain else len(packed) - 1  # tar's padding may be missing
        for length in [1, 300, 511, 513, 700, 2000, last // 2, last - 20, last]:
            if length > last:
                continue
            told = refusal(path, packed[:length])
            assert "ends before its contents do" in told or "no archive" in told, length
        assert "ends before" in told
    zipped = zip_of(FILES)
    for length in (5, 100, len(zipped) // 2, len(zipped) - 1):
        assert "ends before its contents do" in refusal(path, zipped[:length])


def test_cut_before_it_was_packed(path: Path) -> None:
    plain = tar_of({"a": b"1", "b": b"2"})
    for length in (600, 1024, 1500, 2048):  # in a member, between two, in a header, before the end
        assert "ends before" in refusal(path, gzip.compress(plain[:length]))


@pytest.mark.parametrize("kind", [*PACKERS, "zip"])
def test_a_flipped_bit_anywhere(path: Path, kind: str) -> None:
    good = zip_of(FILES) if kind == "zip" else PACKERS[kind](tar_of(FILES))
    where = random.Random(1).sample(range(len(good)), 150)
    for place in where:
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        try:
            found = read(path, bytes(data))
        except SriError:
            continue
        # Plain tar has checksums for its headers only.
        assert found == FILES or (kind == "tar" and len(found) == len(FILES)), place


def test_wrong_checksums(path: Path) -> None:
    plain = tar_of(FILES)
    packed = bytearray(gzip.compress(plain))
    packed[-6] ^= 1  # CRC; the length comes last
    assert "is damaged" in refusal(path, bytes(packed))
    spoilt = bytearray(plain)
    spoilt[plain.index(b"towers/empty")] ^= 1  # tarfile would take it for the end
    assert "is damaged (a header's checksum)" in refusal(path, bytes(spoilt))
    zipped = bytearray(zip_of(FILES, zipfile.ZIP_STORED))
    zipped[zipped.index(b"text")] ^= 1
    assert "is damaged" in refusal(path, bytes(zipped))


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "is empty"),
        (b"<html>not found</html>" * 100, "no archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(600), "no archive"),
        (b"Rar!\x1a\x07\x00" + bytes(600), "no archive"),
        (b"x", "no archive"),
        (bytes(10_240), "holds nothing"),
        (gzip.compress(b"no tar at all"), "no archive"),
        (gzip.compress(b""), "no archive"),
        (b"\x1f\x8b", "ends before"),
        (b"\x1f\x8b" + b"\xff" * 600, "damaged"),
        (b"BZh9" + b"\xff" * 600, "damaged"),
        (b"\xfd7zXZ\x00" + b"\xff" * 600, "damaged"),
        (b"PK\x03\x04" + b"\xff" * 600, "ends before"),
        (b"PK\x05\x06" + bytes(18), "holds nothing"),
    ],
    ids=range(14),
)
def test_no_archive(path: Path, data: bytes, told: str) -> None:
    assert told in refusal(path, data)


def test_no_file(path: Path) -> None:
    for place, told in ((path, "does not exist"), (path.parent, "is no file")):
        with pytest.raises(SriError, match=told):
            list(members(place, bool, most_bytes=1))


def test_limits(path: Path) -> None:
    for data in (gzip.compress(tar_of(FILES)), zip_of(FILES)):
        assert "'towers/a.png' has 3,000 bytes, more than 2,999" in refusal(
            path, data, most_bytes=2999
        )
        assert "more than 3 members" in refusal(path, data, most_members=3)
    again = [("a/b", b"1"), ("a//./b", b"2")]
    assert "'a/b' is there twice" in refusal(path, tar_of(again))
    assert "'a/b' is there twice" in refusal(path, zip_of(dict(again)))


def test_zip_members_that_lie(path: Path) -> None:
    good = zip_of({"a.png": bytes(5000), "b.png": b"1"})
    assert "is encrypted" in refusal(path, patched(good, b"a.png", 6, 8, "<H", 1))
    for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99):
        told = refusal(path, patched(good, b"a.png", 8, 10, "<H", packing))
        assert "packed in an unusual way" in told
    for size in (4999, 5001, 9999):  # more or less comes out than is said
        told = refusal(path, patched(good, b"a.png", 22, 24, "<I", size))
        assert "'a.png' " in told and ("damaged" in told or "bytes" in told)
    for size in (100, 2**31):  # the next one is inside of it
        assert "lies over" in refusal(path, patched(good, b"a.png", 18, 20, "<I", size))
    listed = good.rindex(b"b.png") - 46
    for place in (0, 3, 2**31):  # both at one place: ten bytes for any number of members
        out = bytearray(good)
        struct.pack_into("<I", out, listed + 42, place)
        assert "'" in refusal(path, bytes(out))


def test_zip_links(path: Path) -> None:
    for mode in (0o120777, 0o020600, 0o010600, 0o060600):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            info = zipfile.ZipInfo("link")
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, "/etc/passwd")
        assert "'link' is a link or a device" in refusal(path, out.getvalue())
