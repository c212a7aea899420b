"""A data file as torch data sets: items, processes of a DataLoader, pickling."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import sri_cli
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.torch_dataset import ImageDataset, OpenedData
from sri_cli.errors import SriError
from sri_cli.run import Workspace
from tests.small_data import write_data, write_small_data, write_splits


@pytest.fixture
def opened(tmp_path: Path) -> OpenedData:
    return sri_cli.open_data(write_small_data(tmp_path / "data" / "noise-32.h5"))


def test_an_item_is_what_the_file_holds(opened: OpenedData) -> None:
    assert list(opened) == list(SPLITS) and "tests" not in opened
    split, dataset = opened.file.split("val"), opened["val"]
    assert opened["val"] is dataset and split.masks is not None
    item = dataset[-1]
    assert item["image"].dtype == torch.float32
    levels = (item["image"] * 255).round().to(torch.uint8).permute(1, 2, 0)
    np.testing.assert_array_equal(levels, split.images[15])
    np.testing.assert_array_equal(item["mask"], split.masks[15])
    assert item["mask"].dtype == torch.int64
    np.testing.assert_array_equal(item["factors"]["pose"], split.factors["pose"][15])
    with pytest.raises(IndexError):
        dataset[16]
    assert len(list(dataset)) == 16


def test_the_masks_stay_open(opened: OpenedData) -> None:
    """HDF5 drops what was decompressed with them."""
    dataset = opened["train"]
    dataset[0]
    assert dataset._masks() is dataset._masks()


@pytest.mark.parametrize("first_here", [False, True])
def test_loaders_with_several_processes(opened: OpenedData, first_here: bool) -> None:
    dataset = opened["train"]
    if first_here:  # the file is open in the parent when it forks
        dataset[0]
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="fork")
    batches = list(loader)
    assert [len(batch["image"]) for batch in batches] == [5, 5, 5, 1]
    masks = torch.cat([batch["mask"] for batch in batches])
    np.testing.assert_array_equal(masks, opened.file.split("train").masks)
    assert batches[0]["factors"]["pose"].shape == (5, 6, 7)


class Shifted(ImageDataset):
    shift = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index + self.shift)


def test_a_subclass_and_all_splits_reach_a_spawned_process(opened: OpenedData) -> None:
    shifted = Shifted(opened.file, "val")
    shifted.shift = 2
    again = pickle.loads(pickle.dumps(shifted))
    assert torch.equal(again[1]["image"], opened["val"][3]["image"])
    list(opened["val"])  # whose images and masks are open now
    packed = pickle.dumps(opened)
    assert len(packed) < 3000
    spawned = pickle.loads(packed)
    assert list(spawned) == list(opened) and spawned.file.attrs == opened.file.attrs
    assert torch.equal(spawned["val"][3]["mask"], opened["val"][3]["mask"])


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    write_data(tmp_path / "plain-32.h5", with_masks=False)
    item = sri_cli.open_data(tmp_path / "plain-32.h5")["test"][0]
    assert set(item) == {"image", "factors"} and item["factors"] == {}


def test_text_and_numbers_are_factors(tmp_path: Path) -> None:
    factors = {"shape": np.array(["cube", "ball"]), "flag": np.array([True, False])}
    factors["parts"] = np.array([["lid", "base"], ["rim", ""]])
    split = np.zeros((2, 32, 32, 3), np.uint8), None, factors
    path = write_splits(tmp_path / "text-32.h5", "text", dict.fromkeys(SPLITS, split))
    (batch,) = DataLoader(OpenedData(DataFile(path))["val"], batch_size=2)
    assert batch["factors"]["shape"] == ["cube", "ball"]
    assert batch["factors"]["flag"].tolist() == [True, False]
    items = OpenedData(DataFile(path))["train"]
    assert [items[i]["factors"]["parts"] for i in range(2)] == [["lid", "base"], ["rim", ""]]


def test_a_name_in_several_sizes_needs_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    for size in (32, 64):
        write_small_data(workspace.data_path("noise", size), 2, size)
    with pytest.raises(SriError):
        sri_cli.open_data("noise", data_root=tmp_path)
    assert sri_cli.open_data("noise", size=64, data_root=tmp_path).file.size == 64
    assert sri_cli.open_data("noise-32", data_root=tmp_path).file.size == 32
