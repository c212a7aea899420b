"""Archives of ShapeStacks, never unpacked: the very file that the unpacked folder gives, whatever
the order of their members and whatever came between; what is no such archive leaves nothing."""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import signal
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sri_cli.atomic import lock_file
from sri_cli.data.dataset import DataFile
from sri_cli.data.sources import shapestacks_reader as reading
from sri_cli.data.sources.shapestacks import AskedTowers
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.small_shapestacks import (
    CAMERAS,
    EVERYONE,
    add_member,
    label_map,
    picture,
    png,
    prepare_from,
    write_archives,
    write_files,
)

FIRST = EVERYONE[0]
FILES = len(EVERYONE) * len(CAMERAS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "files")


@pytest.fixture
def place(tmp_path: Path, root: Path) -> Path:
    return write_archives(root, tmp_path / "archives")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "towers-64.h5"


def left(out: Path) -> list[str]:
    """What lies where the data file belongs."""
    return sorted(os.listdir(out.parent)) if out.parent.exists() else []


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (4, 1), (1, 2)])
def test_the_file_that_the_unpacked_folder_gives(
    tmp_path: Path, root: Path, out: Path, workers: int, seed: int
) -> None:
    place = write_archives(root, tmp_path / "archives", seed)
    unpacked = prepare_from(root, tmp_path / "unpacked-64.h5").data
    packed = prepare_from(place, out, workers=workers).data
    assert packed.path.read_bytes() == unpacked.path.read_bytes()
    assert left(out) == [out.name]
    assert prepare_from(place, out).made == 0
    assert prepare_from(root, out).made == 0  # and is the same to `prepare`


def test_limits_views_and_another_size(tmp_path: Path, root: Path, place: Path, out: Path) -> None:
    asked = AskedTowers(size_px=32, scenes=2, views=2)
    unpacked = prepare_from(root, tmp_path / "unpacked-32.h5", asked).data
    assert prepare_from(place, out, asked).data.path.read_bytes() == unpacked.path.read_bytes()
    other = AskedTowers(size_px=32, scenes=2)
    with pytest.raises(SriError, match="was made otherwise: views 2 -> not given"):
        prepare_from(place, out, other)
    assert prepare_from(place, out, other, force=True).made == 5 * 3


def test_a_list_that_is_not_there_names_those_that_are(root: Path, place: Path, out: Path) -> None:
    for source in (root, place):
        with pytest.raises(
            SriError, match=r"no split list .*defualt/.*did you mean default\?"
        ) as no:
            prepare_from(source, out, AskedTowers(split="defualt"))
        assert no.value.hint == "there is default"
    assert left(out) == []


def test_without_the_maps_archive(
    root: Path, place: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "shapestacks-iseg.tar.gz").unlink()
    assert prepare_from(place, out).data.split("test").masks is None
    assert "ARI cannot be measured" in capsys.readouterr().err


def stopping_after(number: int) -> Callable[..., Any]:
    """`picture_in` that sends itself SIGTERM at a file."""
    read, count = reading.picture_in, 0

    def picture_in(data: bytes, where: str) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(data, where)

    return picture_in


def test_a_stopped_reading_goes_on_where_it_was(
    tmp_path: Path, root: Path, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "picture_in", stopping_after(7))
        with pytest.raises(Interrupted, match="stopped by SIGTERM after 7 files") as caught:
            prepare_from(place, out, command="sri prepare shapestacks --from archives")
    assert caught.value.hint == "go on: sri prepare shapestacks --from archives"
    assert left(out) == [f"{out.name}.staging"]

    decoded: list[str] = []
    read = reading.picture_in

    def told(data: bytes, where: str) -> Any:
        decoded.append(where)
        return read(data, where)

    def no_map(data: bytes, where: str) -> Any:
        raise AssertionError("all maps were staged")

    monkeypatch.setattr(reading, "picture_in", told)
    monkeypatch.setattr(reading, "labels_in", no_map)
    prepare_from(place, out)
    assert len(decoded) == len(set(decoded)) == FILES - 7
    unpacked = prepare_from(root, tmp_path / "unpacked-64.h5").data
    assert out.read_bytes() == unpacked.path.read_bytes()
    assert left(out) == [out.name]


def test_a_staging_folder_of_something_else_is_started_anew(
    tmp_path: Path,
    root: Path,
    place: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "picture_in", stopping_after(7))
        with pytest.raises(Interrupted):
            prepare_from(place, out)
    for name in EVERYONE:  # other pictures in an archive of the same name
        for camera in CAMERAS:
            file = f"rgb-w=5-f=2-l=1-c=unique-cam_{camera}-mono-0.png"
            picture(camera + 100).save(root / "recordings" / name / file)
    write_archives(root, place)
    prepare_from(place, out)
    assert "starting anew" in capsys.readouterr().err
    unpacked = prepare_from(root, tmp_path / "unpacked-64.h5").data
    assert out.read_bytes() == unpacked.path.read_bytes()


@pytest.mark.parametrize("spoiled", ["staging.json", "done.raw"])
def test_a_damaged_staging_folder_is_started_anew(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "picture_in", stopping_after(7))
        with pytest.raises(Interrupted):
            prepare_from(place, out)
    (out.with_name(f"{out.name}.staging") / spoiled).write_bytes(b"{")
    assert prepare_from(place, out).made == FILES


def test_two_at_one_staging_folder(place: Path, out: Path) -> None:
    folder = out.with_name(f"{out.name}.staging")
    folder.mkdir(parents=True)
    held = lock_file(folder / f"{out.name}.lock")
    try:
        with pytest.raises(SriError, match=f"another sri is preparing {out.name}"):
            prepare_from(place, out)
        assert list(folder.iterdir())
    finally:
        os.close(held)


def archive(place: Path, kind: str) -> Path:
    return place / f"shapestacks-{kind}.tar.gz"


def cut_off(place: Path) -> None:
    path = archive(place, "rgb")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def no_gzip(place: Path) -> None:
    archive(place, "rgb").write_bytes(b"no archive at all" * 1000)


def bomb(place: Path) -> None:
    """Announces a picture of 4 GB."""
    info = tarfile.TarInfo(f"shapestacks/recordings/{FIRST}/rgb-cam_1-.png")
    info.size = 2**32
    archive(place, "rgb").write_bytes(gzip.compress(info.tobuf() + b"\0" * 2**20))


def member(kind: str, name: str, content: bytes = b"", how: bytes = tarfile.REGTYPE) -> Any:
    return lambda place: add_member(archive(place, kind), name, content, how)


def without(kind: str, what: str) -> Callable[[Path], None]:
    """An archive without the members whose names have `what`."""

    def rewrite(place: Path) -> None:
        root = place.parent / "less" / "shapestacks"
        shutil.copytree(place.parent / "files" / "shapestacks", root)
        for path in [path for path in root.rglob("*") if path.is_file()]:
            if what in str(path.relative_to(root)):
                path.unlink()
        write_archives(root, place, kinds=kind)

    return rewrite


ROOM = f"shapestacks/recordings/{FIRST}"
HOSTILE: list[tuple[Callable[[Path], None], str]] = [
    (cut_off, "ends before its contents do"),
    (no_gzip, r"archive .*shapestacks-rgb\.tar\.gz"),
    (bomb, "bytes, more than"),
    (member("rgb", "../../outside.png", b"x"), "leads out of the archive"),
    (member("rgb", f"{ROOM}/rgb-cam_1-.png", how=tarfile.SYMTYPE), "link"),
    (member("rgb", f"{ROOM}/rgb-cam_1-.png", png(picture(1))), "two files of one camera"),
    (member("rgb", f"{ROOM}/rgb-cam_77-.png", png(picture(1))), "is of camera 77"),
    (without("rgb", f"{FIRST}/rgb-w=5-f=2-l=1-c=unique-cam_2-"), "pictures of 2 cameras"),
    (without("rgb", f"{FIRST}/rgb"), rf"1 of 6 .* no pictures in .*rgb\.tar\.gz: .* {FIRST}"),
    (without("iseg", FIRST), rf"1 of 6 .* lack instance maps in .*iseg\.tar\.gz: .* {FIRST}"),
    (without("iseg", f"{FIRST}/iseg-w=0-f=0-l=0-c=original-cam_2-"), "lack instance maps"),
    (without("iseg", ".map"), "holds nothing|no maps of the listed scenarios|empty"),
    (without("meta", "eval.txt"), r"meta\.tar\.gz has no split list splits/default/eval\.txt"),
    (member("meta", "shapestacks/simulated.json", b"[]"), r"simulated\.json is damaged"),
]


@pytest.mark.parametrize(("spoil", "message"), HOSTILE)
def test_what_is_no_such_archive_is_refused_and_leaves_nothing(
    place: Path, out: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(place)
    with pytest.raises(SriError, match=message) as caught:
        prepare_from(place, out)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert "\n" not in caught.value.message
    assert left(out) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rgb-w=5-f=2-l=1-c=unique-cam_2-mono-0.png", b"\x89PNG\r\n\x1a\n", "cannot be read"),
        ("rgb-w=5-f=2-l=1-c=unique-cam_2-mono-0.png", png(picture(2, side=225)), "225x225 px"),
        ("iseg-w=0-f=0-l=0-c=original-cam_2-mono-0.map", b"", "cannot be read"),
    ],
)
def test_a_bad_picture_in_an_archive(
    tmp_path: Path, root: Path, out: Path, file: str, content: bytes, message: str, workers: int
) -> None:
    room = "iseg" if file.endswith("map") else "recordings"
    (root / room / FIRST / file).write_bytes(content)
    place = write_archives(root, tmp_path / "spoiled")
    told = rf"tar\.gz: shapestacks/{room}/{FIRST}/{file} .*{message}"
    with pytest.raises(SriError, match=told):
        prepare_from(place, out, workers=workers)
    assert left(out) == []


def test_maps_that_mark_nothing_are_told_before_the_pictures_are_read(
    tmp_path: Path, root: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in root.rglob("*.map"):
        label_map(0).save(path, "PNG")

    def too_late(data: bytes, where: str) -> Any:
        raise AssertionError("33 GB later")

    monkeypatch.setattr(reading, "picture_in", too_late)
    with pytest.raises(SriError, match=r"mark no object: .*iseg\.tar\.gz: the map of env_"):
        prepare_from(write_archives(root, tmp_path / "zero"), out)
    assert left(out) == []


@pytest.mark.parametrize(
    ("gone", "unpacked", "message", "hint"),
    [
        ("meta", [], "it holds the split lists", "put it beside the other archives"),
        ("rgb", [], "it holds the pictures", "put it beside the other archives"),
        ("", ["splits"], "has splits/ but no recordings/", "unpack it too: tar -xzf"),
        ("meta", ["recordings"], "has recordings/ but no splits/", "comes with .*meta"),
        ("", ["splits", "recordings"], "the instance maps are not", "unpack them too: tar -xzf"),
    ],
)
def test_parts_that_are_missing_or_mixed(
    root: Path, place: Path, out: Path, gone: str, unpacked: list[str], message: str, hint: str
) -> None:
    archive(place, gone).unlink(missing_ok=True)
    if unpacked != ["splits", "recordings"]:
        archive(place, "iseg").unlink()
    for room in unpacked:
        shutil.copytree(root / room, place / "shapestacks" / room)
    if unpacked == ["splits"]:
        assert prepare_from(place, out).made == FILES  # the archives are enough
        archive(place, "meta").unlink()
        out.unlink()
    with pytest.raises(SriError, match=message) as caught:
        prepare_from(place, out)
    assert re.search(hint, caught.value.hint or "")
    assert left(out) == []


@pytest.mark.parametrize("limit", [1000, 100_000, 1_000_000])
def test_a_full_disk_leaves_nothing(
    place: Path, out: Path, limit: int, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    with largest_file(limit), pytest.raises(SriFailure, match="could not write") as caught:
        prepare_from(place, out)
    assert caught.value.exit_code == 1 and left(out) == []


def full_after(number: int) -> Callable[[int, bytes, int], int]:
    """`os.pwrite` on a disk that has room for so many blocks."""
    write, written = os.pwrite, 0

    def full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal written
        written += 1
        if written > number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    return full


def test_a_disk_that_fills_up_gets_its_room_back(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", full_after(FILES + 5))
    with pytest.raises(SriFailure, match="No space left on device"):
        prepare_from(place, out)
    assert left(out) == []


def test_a_disk_that_fills_up_takes_nothing_that_was_read_before(
    tmp_path: Path, root: Path, place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "picture_in", stopping_after(7))
        with pytest.raises(Interrupted):
            prepare_from(place, out)
    folder = out.with_name(out.name + ".staging")
    before = (folder / "done.raw").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_after(3))
        with pytest.raises(SriFailure, match="No space left on device"):
            prepare_from(place, out)
    assert (folder / "done.raw").read_bytes() == before
    unpacked = prepare_from(root, tmp_path / "unpacked-64.h5").data.path.read_bytes()
    assert prepare_from(place, out).data.path.read_bytes() == unpacked
    assert left(out) == [out.name]


def test_a_disk_without_room_is_told_before_the_work(
    place: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 1, 1, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda _: full)
    with pytest.raises(SriFailure, match="MB are needed"):
        prepare_from(place, out)
    assert left(out) == []


def test_an_up_to_date_file_needs_no_reading(place: Path, out: Path) -> None:
    prepare_from(place, out)
    archive(place, "rgb").write_bytes(b"gone")
    assert prepare_from(place, out).made == 0
    assert DataFile(out).is_intact()
