"""`sri prepare` as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.data.dataset import DataFile

ROOT = Path(__file__).parent.parent.parent
SMALL = ("--scenes", "3", "--views", "2", "--size", "16", "--workers", "1")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SRI_DATA", raising=False)
    return tmp_path


def sri(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def towers(*more: str) -> Result:
    return sri("prepare", "shapestacks", *SMALL, *more)


def test_prepare_list_and_show(place: Path) -> None:
    made = towers()
    assert made.exit_code == 0, made.output
    line = made.stdout.splitlines()[0]
    assert line.endswith("shapestacks, simulated, 6 train, 4 val, 4 test images of 16 px")
    assert DataFile(place / "data" / "shapestacks-16.h5").source == "simulated"
    assert "simulated" in made.stderr

    again = towers()
    assert again.exit_code == 0 and "up to date" in again.stderr

    (place / "data" / "cut-16.h5").write_bytes(b"cut")
    listed = sri("prepare", "--list").stdout.splitlines()
    assert "cut-16.h5  unusable: is not an HDF5 file" in listed[1]
    assert listed[2].split()[1:10] == [
        "shapestacks",
        "simulated",
        "16",
        "px",
        "6",
        "4",
        "4",
        "yes",
        "0",
    ]

    shown = sri("prepare", "show", "shapestacks")
    assert shown.exit_code == 0, shown.output
    assert "intact" in shown.stdout and "1 of them background" in shown.stdout
    sheet = place / "data" / "shapestacks-16.png"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_demo_preset_has_its_own_file(place: Path) -> None:
    assert towers("--preset", "demo").exit_code == 0
    data = DataFile(place / "data" / "demo-towers-16.h5")
    assert (data.name, data.caption) == ("demo-towers", "demo-towers, simulated")


def test_data_root_and_out(place: Path) -> None:
    assert sri("--data-root", "elsewhere", "prepare", "shapestacks", *SMALL).exit_code == 0
    assert (place / "elsewhere" / "shapestacks-16.h5").exists()
    assert towers("--out", "mine.h5").exit_code == 0
    assert DataFile(place / "mine.h5").size == 16


def test_nothing_prepared() -> None:
    shown = sri("prepare", "--list")
    assert shown.exit_code == 0 and "nothing prepared" in shown.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prepare",), "which data set?"),
        (("prepare", "--list", "shapestacks", *SMALL), "--list makes nothing"),
        (("prepare", "show", "data/a-8.h5", "--size", "8"), "data/a-8.h5 is one file"),
        (("prepare", "shapestack"), "no data set shapestack (did you mean shapestacks?)"),
        (("prepare", "clevr"), "no data set clevr (did you mean clevr6?)"),
        (("prepare", "demo-towers"), "demo-towers is a preset of shapestacks"),
        (("prepare", "show", "shapestacks"), "no data file of shapestacks"),
        (("prepare", "shapestacks", "--from", "bucket"), "ShapeStacks is not in that bucket"),
        (("prepare", "shapestacks", "--from", "/no/such"), "no folder /no/such"),
        (
            ("prepare", "shapestacks", "--from", "mirror", "--offline"),
            "--offline: shapestacks-full",
        ),
        (
            ("prepare", "objects-room", "--from", "bucket", "--offline"),
            "--offline: objects_room_train",
        ),
        (("prepare", "clevr6", "--from", "mirror", "--offline"), "--offline: clevr_10-full"),
        (("prepare", "objects-room", "--from", "/no/such"), "--from /no/such: no such file"),
        (
            ("prepare", "objects-room", "--from", "bucket", "--views", "2"),
            "--views is for simulation",
        ),
        (("prepare", "clevr6", "--size", "5"), "--size 5 is out of range"),
        (("prepare", "folder"), "Missing argument 'DIR'"),
        (("prepare", "folder", "/no/such"), "/no/such"),
        (("prepare", "shapestacks", "--scenes", "0"), "--scenes"),
        (("prepare", "shapestacks", "--scenes", "-3"), "--scenes"),
        (("prepare", "shapestacks", "--views", "0"), "--views"),
        (("prepare", "shapestacks", "--views", "17"), "--views 17 is out of range"),
        (("prepare", "shapestacks", "--size", "-64"), "--size -64 is out of range"),
        (("prepare", "shapestacks", "--workers", "0"), "--workers"),
        (("prepare", "shapestacks", "--seed", "-1"), "--seed"),
        (("prepare", "shapestacks", "--preset", "demos"), "--preset"),
        (("prepare", "shapestacks", "--split", "ccs_all"), "simulated towers have none"),
        (
            ("prepare", "shapestacks", "--from", "mirror", "--split", "ccs_all", "--offline"),
            "the mirror has none",
        ),
        (("prepare", "shapestacks", "--out", "towers.txt"), "towers.txt"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    place: Path, words: tuple[str, ...], message: str
) -> None:
    result = sri(*words)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert "Traceback" not in result.output and result.stdout == ""
    assert list(place.iterdir()) == []


def test_another_seed_does_not_overwrite() -> None:
    assert towers().exit_code == 0
    other = towers("--seed", "1")
    assert other.exit_code == 2 and "seed 0 -> 1" in other.stderr and "--force" in other.stderr
    assert towers("--seed", "1", "--force").exit_code == 0


def test_an_unwritable_place_is_a_failure(place: Path) -> None:
    (place / "data").write_text("no folder")
    result = towers()
    assert result.exit_code == 1 and result.stderr.splitlines()[0].startswith("Error: ")
    assert [p.name for p in place.iterdir()] == ["data"]


def test_ctrl_c_keeps_what_was_made_and_the_same_command_goes_on(place: Path) -> None:
    """Ctrl-C reaches the workers too: only the parent may answer it."""
    words = ["prepare", "shapestacks", "--scenes", "400", "--size", "32", "--workers", "2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "sri_cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    first = running.stderr.readline()  # the workers start after this line
    time.sleep(1.5)
    os.killpg(running.pid, signal.SIGINT)
    told = running.communicate(timeout=60)[1].splitlines()
    assert "simulated: 532 scenes x 16 views" in first
    assert running.returncode == 75, told
    assert told[-2].startswith("Error: stopped by SIGINT after ") and len(told) == 2
    assert told[-1] == f"resume: sri {' '.join(words)}"
    kept = int(told[-2].split()[5])
    assert kept > 0 and kept % 16 == 0
    assert os.listdir(place / "data") == ["shapestacks-32.h5.partial"]
    listed = sri("prepare", "--list").stdout
    assert "unfinished" in listed
    other = sri(*words[:3], "3", *words[4:])  # other numbers: a new beginning, and it says so
    assert other.exit_code == 0 and "starting over" in other.stderr
    assert os.listdir(place / "data") == ["shapestacks-32.h5"]
