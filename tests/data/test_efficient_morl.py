"""EfficientMORL's files: its groups are the splits, crop and filter as published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources import hdf5 as hdf5_rows
from sri_cli.data.sources.efficient_morl import as_labels, efficient_morl_job
from sri_cli.data.sources.mirror import is_mirror
from sri_cli.data.sources.records import SETS
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError
from tests.foreign_hdf5 import LAYOUTS, made, numbers_in, stopped_at, write_flat, write_groups

# How many entities each image shows, the background counted: seven pass.
SHOWN = {"train": [3, 8, 7, 11, 4, 5], "val": [9, 2, 7], "test": [7, 8, 6]}
KEPT = {"train": [0, 2, 4, 5], "val": [101, 102], "test": [200, 202]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.h5"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block_bytes", [2**26, 2**20])
def test_clevr6_is_filtered_cropped_and_resized(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, layout: str, block_bytes: int
) -> None:
    monkeypatch.setattr(hdf5_rows, "BLOCK_BYTES", block_bytes)
    write_groups(source, SHOWN, layout=layout)
    data = made(efficient_morl_job(SETS["clevr6"], source, Options(96)), tmp_path)
    assert {split: numbers_in(data, split) for split in SPLITS} == KEPT
    assert (data.source, data.background_labels) == ("original", 1)
    assert "crop rows 29 to 221, columns 64 to 256" in data.attrs["preprocessing"]
    resizing = Resizing(96, "bicubic", box=(29, 64, 192, 192))
    with h5py.File(source) as file:
        image = file["train"]["imgs"][2]
    assert np.array_equal(data.split("train").images[1], resizing.picture(image))
    masks = data.split("train").masks
    assert masks is not None
    assert [set(np.unique(mask)) for mask in masks] == [
        set(range(SHOWN["train"][k])) for k in KEPT["train"]
    ]
    # Entity 2's block covers rows 60 to 67 and columns 122 to 129 of the picture, 31 to 38 and 58
    # to 65 of the crop; the nearest to pixel i of half the size is pixel 2i + 1.
    rows, columns = np.nonzero(masks[0] == 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 18, 29, 32)


@pytest.mark.parametrize("copies", [1, 3])
def test_rooms_stay_as_they_are(tmp_path: Path, source: Path, copies: int) -> None:
    shown = {"train": [4, 5, 6, 5], "val": [5], "test": [6, 5]}
    write_groups(source, shown, 64, 64, entities=7, copies=copies, layout="automatic")
    data = made(efficient_morl_job(SETS["objects-room"], source, Options(64)), tmp_path)
    assert data.counts == {"train": 4, "val": 1, "test": 2} and data.background_labels == 4
    with h5py.File(source) as file:
        assert np.array_equal(data.split("train").images, file["train"]["imgs"][:])
        expected = file["train"]["masks"][..., 0].argmax(axis=1)
    assert np.array_equal(data.split("train").masks, expected)
    assert list(data.split("test").factors["scenario"]) == [b"test-0", b"test-1"]


def test_labels_by_hand() -> None:
    masks = np.zeros((1, 3, 1, 4, 1), np.uint8)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = masks[0, 2, 0, 2] = masks[0, 2, 0, 1] = 255
    assert as_labels(masks).tolist() == [[[0, 1, 2, 0]]]
    assert as_labels(masks.repeat(3, axis=4)).tolist() == [[[0, 1, 2, 0]]]


def test_numbers_limit_each_group(tmp_path: Path, source: Path) -> None:
    write_groups(source, SHOWN)
    data = made(efficient_morl_job(SETS["clevr6"], source, Options(96, 3, 1, 2)), tmp_path)
    assert {split: numbers_in(data, split) for split in SPLITS} == {
        split: rows[:n] for (split, rows), n in zip(KEPT.items(), (3, 1, 2), strict=True)
    }
    assert data.attrs["parameters"]["val"] == 1
    with pytest.raises(SriError, match=r"--scenes 5: .* 6 images in train, 4 of them") as caught:
        made(efficient_morl_job(SETS["clevr6"], source, Options(96, scenes=5)), tmp_path, "more.h5")
    assert (caught.value.hint or "").startswith("--scenes 4")


def test_byte_for_byte_the_same_at_one_and_four_workers(tmp_path: Path, source: Path) -> None:
    write_groups(source, SHOWN, layout="automatic")
    job = efficient_morl_job(SETS["clevr6"], source, Options(32))
    one, four = (made(job, tmp_path, f"{n}.h5", n).path.read_bytes() for n in (1, 4))
    assert one == four


def test_a_stopped_preparation_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 2)
    write_groups(source, SHOWN)
    job = efficient_morl_job(SETS["clevr6"], source, Options(96))
    path = tmp_path / "out.h5"
    with pytest.raises(Interrupted, match="after 5 of 8 images"):
        prepare(stopped_at(job, 5), path, workers=1)
    done = prepare(job, path, workers=1)
    assert (done.resumed_from, done.made) == (5, 3)
    assert {split: numbers_in(done.data, split) for split in SPLITS} == KEPT


def change(name: str, values: Any) -> Callable[[h5py.File], None]:
    """Put other values in place of a data set, or of nothing at all."""

    def do(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return do


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("val", None), "has no group `val`; there is test, train"),
        (change("val/imgs", None), "no data set `imgs` in its group val; there is masks"),
        (change("test/masks", None), "no data set `masks` in its group test"),
        (change("train/imgs", np.zeros((6, 64, 64, 3), np.uint8)), r"uint8 \[N, 240, 320, 3\]"),
        (change("train/imgs", np.zeros((6, 240, 320, 3))), "`train/imgs` is float64"),
        (change("val/masks", np.zeros((2, 11, 240, 320, 1), np.uint8)), r"uint8 \[3, entities"),
        (change("val/masks", np.zeros((3, 240, 320, 1), np.uint8)), "`val/masks` is uint8"),
        (change("val/masks", np.zeros((3, 11, 240, 320, 1), np.uint8)), "masks of val are all"),
    ],
)
def test_what_is_no_such_file_is_refused(
    tmp_path: Path, source: Path, spoil: Callable[[h5py.File], None], message: str
) -> None:
    write_groups(source, SHOWN, layout="gzip")
    with h5py.File(source, "a") as file:
        spoil(file)
    with pytest.raises(SriError, match=message) as caught:
        made(efficient_morl_job(SETS["clevr6"], source, Options(96)), tmp_path)
    assert caught.value.exit_code == 2 and caught.value.hint


def test_which_layout_a_file_has(tmp_path: Path, source: Path) -> None:
    write_groups(source, {"train": [3]})
    assert not is_mirror(source)
    write_flat(source, 3, 64, 64)
    assert is_mirror(source)
    source.write_bytes(b"no HDF5 at all")
    assert not is_mirror(source) and not is_mirror(tmp_path)
