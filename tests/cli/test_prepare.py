"""`sri prepare` on the command line."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from sri_cli.data.dataset import DataFile
from tests.small_cli import finish, sri, start

SMALL = ("--scenes", "3", "--views", "2", "--size", "16", "--workers", "1")
towers = partial(sri, "prepare", "shapestacks", *SMALL)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shapestacks", ["shapestacks"]),
        ("demo-towers", ["shapestacks", "--preset", "demo"]),
        ("objects-room", ["objects-room"]),
        ("clevr6", ["clevr6"]),
    ],
)
def test_simulate_list_and_show(here: Path, name: str, words: list[str]) -> None:
    assert "no data files" in sri("prepare", "--list").stdout
    sri("prepare", *words, *SMALL, "--seed", "5", code=0)
    data = DataFile(here / "data" / f"{name}-16.h5")
    assert (data.name, data.source, data.size) == (name, "simulated", 16)
    assert data.counts == {"train": 6, "val": 4, "test": 4}
    numbers = {"train": 3, "val": 2, "test": 2, "views": 2, "seed": 5}
    assert numbers.items() <= data.attrs["parameters"].items()
    assert data.split("train").masks.max() >= data.background_labels
    assert sri("prepare", "--list").stdout.splitlines()[1].split()[1:3] == [name, "simulated"]
    assert "intact" in sri("prepare", "show", name, code=0).stdout
    assert data.path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_another_folder_and_another_file(here: Path) -> None:
    assert sri("--data-root", "elsewhere", "prepare", "shapestacks", *SMALL).exit_code == 0
    assert (here / "elsewhere" / "shapestacks-16.h5").exists()
    assert towers("--out", "mine.h5").exit_code == 0
    assert "up to date" in towers("--out", "mine.h5").stderr


def test_a_data_file_is_no_published_one(here: Path) -> None:
    assert towers().exit_code == 0
    refused = sri("prepare", "shapestacks", "--from", "data/shapestacks-16.h5", "--size", "32")
    assert refused.exit_code == 2 and "sri prepare shapestacks --size 32" in refused.stderr
    assert os.listdir("data") == ["shapestacks-16.h5"]


def test_a_folder_called_mirror_does_not_hide_the_mirror(here: Path) -> None:
    (here / "mirror").mkdir()
    words = ("prepare", "shapestacks", "--offline", "--from")
    assert "shapestacks-full.hdf5" in sri(*words, "mirror").stderr
    assert "splits/" in sri(*words, "./mirror").stderr


def test_a_folder_instead_of_a_data_set(here: Path) -> None:
    (here / "mypics").mkdir()
    refused = sri("prepare", "mypics", "--size", "32", code=2)
    assert refused.stderr.splitlines()[-1] == "sri prepare folder mypics"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_saves_what_was_made_and_the_same_command_resumes(
    here: Path, number: signal.Signals
) -> None:
    """Ctrl-C and a closed terminal reach the workers too: only the parent may handle them."""
    words = ["prepare", "shapestacks", "--scenes", "400", "--size", "32", "--workers", "2"]
    code = (
        "import signal; from sri_cli.cli.main import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has the tests ignore it\n"
        "main()\n"
    )
    running = start(*words, code=code, start_new_session=True)
    running.stderr.readline()  # the workers start after this line
    time.sleep(1.5)
    os.killpg(running.pid, number)
    message = finish(running, 75, 60)[1].strip()
    assert "Error" not in message
    assert message.endswith(f": sri {' '.join(words)}")
    images = int(message.split()[2])
    assert images > 0 and images % 16 == 0
    assert os.listdir(here / "data") == ["shapestacks-32.h5.partial"]
    assert "unfinished" in sri("prepare", "--list").stdout
    other = sri(*words[:3], "3", *words[4:])  # other numbers
    assert other.exit_code == 0 and "starting over" in other.stderr
    assert os.listdir(here / "data") == ["shapestacks-32.h5"]
