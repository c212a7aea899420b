"""`sri prepare objects-room` and `clevr6` from the places that a user may name, by the command."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.data.dataset import DataFile
from tests.foreign_hdf5 import write_towers
from tests.small_server import says, serving
from tests.tfrecord_writer import example, one_string, write

FEW = ("--val-scenes", "2", "--test-scenes", "1")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, ["prepare", *words])


def records(path: Path, count: int = 6) -> Path:
    """Rooms that are all of one grey, their number."""
    masks = np.zeros((7, 64, 64))
    masks[0], masks[4, 9:20, 9:20] = 255, 255
    masks[0, 9:20, 9:20] = 0
    pictures = [np.full((64, 64, 3), number) for number in range(count)]
    made = [{"image": one_string(image), "mask": one_string(masks)} for image in pictures]
    path.parent.mkdir(exist_ok=True)
    return write(path, map(example, made))


def greys(path: str) -> dict[str, list[int]]:
    data = DataFile(Path(path))
    return {name: data.split(name).images[:, 0, 0, 0].tolist() for name in data.counts}


IN_ORDER = {"train": [3, 4, 5], "val": [1, 2], "test": [0]}


@pytest.mark.parametrize("given", ["mine.tfrecords", "folder"])
def test_from_a_file_or_the_folder_that_holds_it(given: str) -> None:
    records(Path("folder/objects_room_train.tfrecords"))
    Path("mine.tfrecords").symlink_to("folder/objects_room_train.tfrecords")
    result = sri("objects-room", "--from", given, *FEW)
    assert result.exit_code == 0, result.output
    assert greys("data/objects-room-64.h5") == IN_ORDER
    assert "objects-room, 3 train, 2 val, 1 test images of 64 px" in result.stdout


def test_from_the_bucket_then_offline(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = records(place / "made").read_bytes()
    words = ("objects-room", "--from", "bucket", *FEW)
    with serving(content) as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        first = sri(*words)
        assert first.exit_code == 0, first.output
        assert greys("data/objects-room-64.h5") == IN_ORDER
        assert os.listdir("data/downloads") == ["objects_room_train.tfrecords"]
        assert sri(*words, "--size", "32").exit_code == 0
        assert len(server.ranges) == 1  # fetched once
    assert sri(*words, "--size", "16", "--offline").exit_code == 0
    os.remove("data/downloads/objects_room_train.tfrecords")
    again = sri(*words, "--offline")  # a finished file does not need its source any more
    assert again.exit_code == 0 and "up to date" in again.stderr
    gone = sri(*words, "--offline", "--force")
    assert gone.exit_code == 2 and "objects_room_train.tfrecords" in gone.stderr
    assert "--from simulate" in gone.stderr and greys("data/objects-room-64.h5") == IN_ORDER


def test_a_dead_bucket_names_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(b"") as server:
        server.otherwise = says(404)
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        result = sri("clevr6", "--from", "bucket")
    error, hint = result.stderr.splitlines()[-2:]
    assert result.exit_code == 1 and "404" in error and "--from simulate" in hint
    assert list(Path("data").rglob("*.h5*")) == []


def test_a_file_of_another_data_set(place: Path) -> None:
    records(place / "rooms.tfrecords")
    result = sri("clevr6", "--from", "rooms.tfrecords")
    assert result.exit_code == 2 and "record 1: no record of clevr6" in result.stderr
    assert result.stderr.endswith("name a file of clevr6: --from FILE\n")
    (place / "text.tfrecords").write_text("no such thing")
    assert "record 1: this is no TFRecord file" in sri("clevr6", "--from", "text.tfrecords").stderr
    (place / "empty").mkdir()
    assert "empty holds no clevr_with_masks_train" in sri("clevr6", "--from", "empty").stderr


def test_the_mirrors_towers_do_not_pass_for_rooms(place: Path) -> None:
    write_towers(place / "shapestacks-full.hdf5", scenes=2)  # as large as rooms
    result = sri("objects-room", "--from", "shapestacks-full.hdf5", *FEW)
    assert result.exit_code == 2, result.output
    error, hint = result.stderr.splitlines()
    assert "the mirror's file of shapestacks, not of objects-room" in error
    assert hint == "sri prepare shapestacks --from shapestacks-full.hdf5"
    os.rename("shapestacks-full.hdf5", "rooms.hdf5")
    renamed = sri("objects-room", "--from", "rooms.hdf5", *FEW)
    assert "rooms.hdf5 is of shapestacks, not of objects-room" in renamed.stderr
    assert renamed.exit_code == 2 and hint.replace("shapestacks-full", "rooms") in renamed.stderr
    assert not (place / "data").exists()


def test_records_are_no_towers(place: Path) -> None:
    records(place / "rooms.tfrecords")
    error, hint = sri("shapestacks", "--from", "rooms.tfrecords").stderr.splitlines()
    assert error.endswith("--from rooms.tfrecords is not an HDF5 file, as the mirror's is")
    assert "a folder with the original's files" in hint and not (place / "data").exists()


def test_a_seed_that_changes_nothing_is_refused(place: Path) -> None:
    records(place / "rooms.tfrecords")
    result = sri("objects-room", "--from", "rooms.tfrecords", *FEW, "--seed", "3")
    assert result.exit_code == 2 and "--seed 3" in result.stderr
    assert sri("objects-room", "--from", "rooms.tfrecords", *FEW, "--seed", "0").exit_code == 0
    header, row = sri("--list").stdout.splitlines()
    assert header.split()[-2:] == ["SEED", "MB"] and row.split()[-2] == "-"


def test_of_another_source_only_that_is_told(place: Path) -> None:
    assert sri("objects-room", "--scenes", "1", "--workers", "1").exit_code == 0
    records(place / "rooms.tfrecords")
    error, _ = sri("objects-room", "--from", "rooms.tfrecords", *FEW).stderr.splitlines()
    assert error.endswith("source simulated -> original")


def test_a_copy_of_the_mirrors_file(place: Path) -> None:
    with h5py.File(place / "rooms.hdf5", "w") as file:
        file["image"] = np.stack([np.full((64, 64, 3), number, np.uint8) for number in range(6)])
        file["mask"] = np.random.default_rng(0).integers(0, 7, (6, 64, 64, 1)).astype(np.uint8)
    result = sri("objects-room", "--from", "rooms.hdf5", *FEW)
    assert result.exit_code == 0, result.output
    assert greys("data/objects-room-64.h5") == IN_ORDER
    assert DataFile(Path("data/objects-room-64.h5")).caption == "objects-room, mirror"


def test_efficient_morls_file(place: Path) -> None:
    with h5py.File(place / "rooms.h5", "w") as file:
        for split, grey in (("train", 3), ("val", 1), ("test", 0)):
            file[f"{split}/imgs"] = np.full((2, 64, 64, 3), grey, np.uint8)
            masks = np.zeros((2, 7, 64, 64, 1), np.uint8)
            masks[:, 4] = 255
            file[f"{split}/masks"] = masks
    result = sri("objects-room", "--from", "rooms.h5")
    assert result.exit_code == 0, result.output
    assert greys("data/objects-room-64.h5") == {"train": [3, 3], "val": [1, 1], "test": [0, 0]}


@pytest.mark.parametrize("name", ["objects-room", "clevr6"])
def test_simulated(name: str) -> None:
    result = sri(name, "--scenes", "3", "--views", "2", "--seed", "5", "--workers", "1")
    assert result.exit_code == 0, result.output
    data = DataFile(next(Path("data").glob("*.h5")))
    assert (data.name, data.source) == (name, "simulated")
    assert data.counts == {"train": 6, "val": 4, "test": 4}
    assert data.attrs["parameters"] == {"train": 3, "val": 2, "test": 2, "views": 2, "seed": 5}
    masks = data.split("train").masks
    assert masks is not None and masks.max() >= data.background_labels
