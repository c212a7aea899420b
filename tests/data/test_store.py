"""A data file is whole or refused: whatever a disk, a crash or another program may have left."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.writer import StoreWriter
from sri_cli.errors import SriError
from tests.small_data import header, random_scenario, write_small_data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "towers-16.h5", images=40, size=16)


def refusal(path: Path) -> SriError:
    with pytest.raises(SriError) as caught:
        DataFile(path)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"data file {path} ")
    assert caught.value.hint is not None and "\n" not in caught.value.message
    return caught.value


def change(path: Path, how: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        how(file)


def test_what_was_written_is_read(path: Path) -> None:
    data = DataFile(path)
    assert (data.name, data.size, data.source) == ("towers", 16, "simulated")
    assert data.caption == "towers, simulated"
    assert data.counts == {"train": 40, "val": 40, "test": 40}
    assert data.attrs["parameters"] == {"seed": 0}
    for number, name in enumerate(SPLITS):
        scene, split = random_scenario(40, 16, 0, number), data.split(name)
        assert isinstance(split.images, np.memmap)
        assert (split.images == scene.images).all()
        assert (split.masks == scene.masks).all()
        assert split.factors.keys() == scene.factors.keys()
        assert all((split.factors[key] == scene.factors[key]).all() for key in scene.factors)
    assert data.is_intact()


def test_layout_can_be_mapped(path: Path) -> None:
    with h5py.File(path) as file:
        images, masks = file["train/images"], file["train/masks"]
        assert images.chunks is None and images.compression is None
        assert masks.compression == "gzip" and masks.chunks == (40, 16, 16)
    assert not path.with_name(path.name + ".partial").exists()


def test_a_pick_comes_from_all_over_the_split(path: Path) -> None:
    split = DataFile(path).split("train")
    picked = split.pick(8)
    assert len(set(picked)) == 8 and picked.min() < 20 <= picked.max()
    assert (picked == split.pick(8)).all() and len(split.pick(1000)) == 40


def test_images_of_another_size(path: Path) -> None:
    DataFile(path).check_size(16)
    with pytest.raises(SriError, match="holds images of 16 px, 64 px are wanted") as caught:
        DataFile(path).check_size(64)
    assert caught.value.hint == "name another file: --data FILE"


def test_unknown_split(path: Path) -> None:
    with pytest.raises(SriError, match=r"no split tset \(did you mean test\?\)"):
        DataFile(path).split("tset")


def test_missing_and_not_hdf5(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "shapestacks-64.h5")
    assert missing.message.endswith("does not exist")
    assert missing.hint == "make it: sri prepare shapestacks --size 64"
    text = tmp_path / "towers-16.h5"
    text.write_text("no data")
    assert refusal(text).message.endswith("is not an HDF5 file")
    text.write_bytes(b"")
    assert refusal(text).message.endswith("is not an HDF5 file")
    assert refusal(tmp_path).message.endswith("is a folder")


def test_a_file_that_may_not_be_read_is_not_to_be_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    error = refusal(path)
    assert error.message.endswith("cannot be read: no permission")
    assert error.hint == f"chmod u+r {path}"


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.6, 0.99])
def test_truncated(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))
    error = refusal(path)
    assert "cut off" in error.message or "damaged" in error.message
    assert error.hint == "make it again with the command that made it, and --force"


def drop(name: str) -> Callable[[h5py.File], None]:
    def how(file: h5py.File) -> None:
        del file[name]

    return how


def replace_images(shape: tuple[int, ...], dtype: str = "uint8", **how: object) -> Callable:
    def change_file(file: h5py.File) -> None:
        del file["val/images"]
        file["val"].create_dataset("images", shape, dtype, **how)

    return change_file


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda file: file.attrs.pop("schema"), "no schema version"),
        (lambda file: file.attrs.update(parameters="{"), "what it is cannot be read"),
        (lambda file: file.attrs.update(schema=7), "has schema version 7, this sri reads 1"),
        (lambda file: file.attrs.update(complete=False), "was never finished"),
        (lambda file: file.attrs.pop("sha256"), "was never finished"),
        (drop("test"), "has no test images"),
        (drop("test/images"), "has no test images"),
        (replace_images((0, 16, 16, 3)), "has no images in val"),
        (replace_images((4, 8, 8, 3)), r"val images of uint8 \[4, 8, 8, 3\]"),
        (replace_images((4, 16, 16, 3), "float32"), "val images of float32"),
        (replace_images((40, 16, 16, 3), chunks=True), "val images that are not contiguous"),
        (replace_images((40, 16, 16, 3)), "val images that were never written"),
        (replace_images((4, 16, 16, 3)), r"val masks of uint8 \[40, 16, 16\]"),
        (drop("train/factors/height"), None),
    ],
)
def test_other_schemas_and_empty_groups(path: Path, how: Callable, message: str | None) -> None:
    change(path, how)
    if message is None:
        DataFile(path)
    else:
        assert re.search(message, refusal(path).message)


def test_damaged_images_are_found_when_looked_for(path: Path) -> None:
    data = DataFile(path)
    with open(path, "r+b") as file:
        file.seek(data._offsets["val"] + 1000)
        file.write(b"\0\1\2\3")
    assert not DataFile(path).is_intact()


def test_an_unfinished_file_does_not_pass_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "towers-16.h5"
    scene = random_scenario(8, 16, 0, 0)
    with StoreWriter(path, header("towers", 16, dict.fromkeys(SPLITS, 8))) as writer:
        writer.append("train", scene.images, scene.masks, scene.factors)
    partial = tmp_path / "towers-16.h5.partial"
    assert list(tmp_path.iterdir()) == [partial]
    assert "unfinished" in refusal(partial).message
    # Any other command would begin anew.
    assert refusal(partial).hint == "finish it: the command that began it goes on with it"
    shutil.copy(partial, path)
    assert "no val images" in refusal(path).message or "never finished" in refusal(path).message
