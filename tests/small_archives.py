"""Small archives, good and hostile, written in memory, and what is said of them."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from sri_cli.data.archives import members
from sri_cli.errors import SriError

END = bytes(1024)  # of a tar archive


def tar_of(
    files: dict[str, bytes] | list[tuple[str, bytes]],
    style: int = tarfile.GNU_FORMAT,
    **fields: object,
) -> bytes:
    """A tar archive; `fields` of every member are set otherwise."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def header(name: bytes = b"a.png", **fields: bytes) -> bytes:
    """512 bytes of a tar header, byte by byte, with a right checksum."""
    places = {"size": 124, "kind": 156, "magic": 257, "prefix": 345}
    block = bytearray(512)
    block[: len(name)] = name
    for field, value in {"size": b"00000000000\0", "kind": b"0", **fields}.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zip_of(files: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        archive.writestr("towers/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def read(path: Path, data: bytes, **limits: object) -> dict[str, bytes]:
    """All that `data` holds as an archive, 10 kB a file at most."""
    path.write_bytes(data)
    found = members(path, lambda _: True, **{"most_bytes": 10_000, **limits})  # type: ignore[arg-type]
    return {member.name: content for member, content in found}


def refusal(path: Path, data: bytes, **limits: object) -> str:
    """What is said of an archive that is not read."""
    with pytest.raises(SriError) as caught:
        read(path, data, **limits)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


def patched(data: bytes, name: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """A zip archive with one field changed in both headers of a member."""
    out = bytearray(data)
    first = data.index(name) - 30
    listed = data.rindex(name) - 46
    struct.pack_into(form, out, first + local, value)
    struct.pack_into(form, out, listed + central, value)
    return bytes(out)
