"""The hint of a damaged file, typed as it stands, makes the same file again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.data.dataset import DataFile
from sri_cli.data.mending import UNKNOWN, make_again
from tests.foreign_hdf5 import write_flat, write_groups

FEW = "--val-scenes 3 --test-scenes 2"


def sri(line: str) -> Result:
    return CliRunner().invoke(cli, line.split())


def rooms() -> None:
    write_flat(Path("rooms.hdf5"), 12, 64, 64)


def groups() -> None:
    write_groups(Path("FILE"), {"train": [3, 4], "val": [3], "test": [4]})


def pictures() -> None:
    Path("DIR").mkdir()
    for number in range(12):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(f"DIR/{number}.png")


@pytest.mark.parametrize(
    ("sources", "made", "hint"),
    [
        (
            None,
            f"shapestacks --scenes 3 {FEW} --views 2 --size 16 --seed 7",
            "prepare shapestacks --size 16 --scenes 3 --val-scenes 3 --test-scenes 2 --views 2"
            " --seed 7 --force",
        ),
        (
            None,
            f"shapestacks --preset demo --scenes 2 {FEW} --out towers.h5",
            "prepare shapestacks --preset demo --size 32 --scenes 2 --val-scenes 3 --test-scenes 2"
            " --views 4 --out towers.h5 --force",
        ),
        (
            None,
            f"shapestacks --scenes 2 {FEW} --views 1 --seed 7 --raw DIR",
            "prepare shapestacks --from DIR --size 64 --scenes 2 --val-scenes 3 --test-scenes 2"
            " --views 1 --force",
        ),
        (
            rooms,
            f"objects-room --from rooms.hdf5 {FEW}",
            "prepare objects-room --from mirror --size 64 --val-scenes 3 --test-scenes 2 --force",
        ),
        (groups, "clevr6 --from FILE", "prepare clevr6 --from FILE --size 96 --force"),
        (
            pictures,
            f"folder DIR --name mine --crop 12 --size 8 {FEW}",
            "prepare folder DIR --name mine --size 8 --val-scenes 3 --test-scenes 2 --crop 12"
            " --force",
        ),
    ],
)
def test_the_command_that_makes_a_file_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: Callable[[], None] | None,
    made: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if sources is not None:
        sources()
    assert sri(f"prepare {made} --workers 1").exit_code == 0
    path = next(tmp_path.rglob("*.h5"))
    whole, data = path.read_bytes(), DataFile(path)
    with open(path, "r+b") as file:
        file.seek(data._offsets["val"])
        file.write(b"\xab" * 50)
    told = sri(f"prepare show {path.relative_to(tmp_path)}")
    assert told.exit_code == 2 and told.stderr.rstrip().endswith(f": sri {hint}")
    if "--from mirror" not in hint:
        assert sri(f"{hint} --workers 1").exit_code == 0
        assert path.read_bytes() == whole


def test_where_no_command_is_known_none_is_made_up() -> None:
    path = Path("data/mine-64.h5")
    assert make_again(path, {}) == UNKNOWN
    known = {"name": "mine", "size": 64, "source": "simulated", "parameters": {"seed": 0}}
    assert make_again(path, known) == UNKNOWN
    assert make_again(path, known | {"name": "clevr6", "source": "elsewhere"}) == UNKNOWN
