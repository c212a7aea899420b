"""Names of output: short numbers that other settings never share."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sri_cli.atomic import new_folder, write_atomic
from sri_cli.errors import SriFailure
from sri_cli.plotting.outputs import name_for, output_path, write_folder


def write(folder: Path, seed: int) -> str:
    with output_path(None, folder, "order", ".png", {"seed": seed, "command": f"{seed}"}) as path:
        path.write_text(str(seed))
    return path.name


def test_commands_that_run_at_once_choose_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda seed: write(tmp_path, seed), [*range(8), *range(8)]))
    assert names[:8] == names[8:] and len(set(names)) == 8
    for seed, name in enumerate(names[:8]):
        assert (tmp_path / name).read_text() == str(seed)
        assert json.loads((tmp_path / name).with_suffix(".json").read_bytes())["seed"] == seed


def test_equal_process_numbers_share_no_temporary_folder(tmp_path: Path) -> None:
    """Containers count from 1, and share a folder of runs: here one process does all at once."""

    def outer(folder: Path) -> None:
        (folder / "outer").touch()
        write_folder(None, tmp_path / "samples", "record.json", {"num": 2}, inner)
        with new_folder(tmp_path / "one"):
            (folder / "again").touch()

    def inner(folder: Path) -> None:
        (folder / "inner").touch()

    first = write_folder(None, tmp_path / "samples", "record.json", {"num": 1}, outer)
    with new_folder(tmp_path / "two") as folder:
        (folder / "outer").touch()
        with new_folder(tmp_path / "two") as other:
            (other / "inner").touch()
        (tmp_path / "two" / "inner").unlink()
    assert {path.name for path in first.iterdir()} == {"outer", "again", "record.json"}
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["outer"]
    write_atomic(tmp_path / "three", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"samples", "one", "two", "three"}


def test_what_came_into_the_folder_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def write(folder: Path) -> None:
        (out / "notes.txt").write_text("precious")

    with pytest.raises(SriFailure):
        write_folder(out, tmp_path, "record.json", {}, write)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("record", [b"", b'{"seed": 0', b'{"seed": 1}', b"[]"])
def test_files_without_a_record_are_not_overwritten(tmp_path: Path, record: bytes) -> None:
    (tmp_path / "order-007.png").write_text("own")
    (tmp_path / "order-007.json").write_bytes(record)
    (tmp_path / "order.png").write_text("of version 0.1")
    (tmp_path / "reorder-999.png").write_text("another")
    assert write(tmp_path, 0) == "order-008.png"
    assert (tmp_path / "order-007.png").read_text() == "own"


def test_an_error_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError), output_path(None, tmp_path, "x", ".png", {}):
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    assert name_for(tmp_path, "", {}, "{}/sample.json") == "001"
