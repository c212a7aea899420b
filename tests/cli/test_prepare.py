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
    assert "cut-16.h5: unusable" in listed[2]
    assert listed[1].split()[1:10] == [
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
    assert shown.exit_code == 0 and "no data files" in shown.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "data set"),
        ("--list shapestacks", "--list"),
        ("show data/a-8.h5 --size 8", "data/a-8.h5"),
        ("show shapestacks", "shapestacks"),
        ("shapestack", "did you mean shapestacks?"),
        ("clevr", "did you mean clevr6?"),
        ("demo-towers", "--preset demo"),
        ("shapestacks --from bucket", "bucket"),
        ("shapestacks --from /no/such", "/no/such"),
        ("shapestacks --from mirror --offline", "shapestacks-full.hdf5"),
        ("objects-room --from bucket --offline", "objects_room_train.tfrecords"),
        ("clevr6 --from mirror --offline", "clevr_10-full.hdf5"),
        ("objects-room --from /no/such", "/no/such"),
        ("objects-room --from bucket --views 2", "--views"),
        ("clevr6 --size 5", "--size 5"),
        ("folder", "DIR"),
        ("folder /no/such", "/no/such"),
        ("shapestacks --scenes 0", "--scenes"),
        ("shapestacks --views 0", "--views"),
        ("shapestacks --views 17", "--views 17"),
        ("shapestacks --size -64", "--size -64"),
        ("shapestacks --workers 0", "--workers"),
        ("shapestacks --seed -1", "--seed"),
        ("shapestacks --preset demos", "--preset"),
        ("shapestacks --split ccs_all", "--split ccs_all"),
        ("shapestacks --from mirror --split ccs_all --offline", "--split ccs_all"),
        ("shapestacks --out towers.txt", "towers.txt"),
    ],
)
def test_mistakes_name_the_value_and_leave_nothing(place: Path, words: str, named: str) -> None:
    result = sri("prepare", *words.split())
    assert result.exit_code == 2 and named in result.stderr, result.output
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
