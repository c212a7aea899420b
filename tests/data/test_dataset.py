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
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.data.dataset import SPLITS, DataFile, prepare_arguments
from sri_cli.data.writer import DataFileWriter
from sri_cli.errors import SriError
from tests.foreign_hdf5 import write_flat, write_groups
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
    with pytest.raises(SriError, match="16 px, .* 64 px"):
        DataFile(path).check_size(64)


def test_unknown_split(path: Path) -> None:
    with pytest.raises(SriError, match=r"no split tset \(did you mean test\?\)"):
        DataFile(path).split("tset")


def test_files_of_version_0_1_open(path: Path) -> None:
    change(path, lambda file: file.attrs.update(tool_version="0.1.0"))
    assert DataFile(path).is_intact()


def test_missing_and_not_hdf5(tmp_path: Path) -> None:
    hint = refusal(tmp_path / "shapestacks-64.h5").hint
    assert hint is not None and hint.endswith("sri prepare shapestacks --size 64")
    other = tmp_path / "towers-16.h5"
    for content in (b"", b"no data"):
        other.write_bytes(content)
        assert "HDF5" in refusal(other).message
    refusal(tmp_path)


def test_a_file_that_may_not_be_read_is_not_to_be_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    assert refusal(path).hint == f"chmod u+r {path}"


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.6, 0.99])
def test_truncated(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))
    assert "--force" in (refusal(path).hint or "")


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
    ("how", "named"),
    [
        (lambda file: file.attrs.pop("schema"), "no schema"),
        (lambda file: file.attrs.update(parameters="{"), "attributes"),
        (lambda file: file.attrs.update(schema=7), "7"),
        (lambda file: file.attrs.update(complete=False), "never finished"),
        (lambda file: file.attrs.pop("sha256"), "never finished"),
        (drop("test"), "test images"),
        (drop("test/images"), "test images"),
        (replace_images((0, 16, 16, 3)), "val images"),
        (replace_images((4, 8, 8, 3)), r"val images of uint8 \[4, 8, 8, 3\]"),
        (replace_images((4, 16, 16, 3), "float32"), "val images of float32"),
        (replace_images((40, 16, 16, 3), chunks=True), "val images .* not contiguous"),
        (replace_images((40, 16, 16, 3)), "val images .* not written"),
        (replace_images((4, 16, 16, 3)), r"val masks of uint8 \[40, 16, 16\]"),
    ],
)
def test_other_schemas_and_empty_groups(path: Path, how: Callable, named: str) -> None:
    change(path, how)
    assert re.search(named, refusal(path).message)


def test_damaged_images_are_found_when_looked_for(path: Path) -> None:
    data = DataFile(path)
    with open(path, "r+b") as file:
        file.seek(data._offsets["val"] + 1000)
        file.write(b"\0\1\2\3")
    assert not DataFile(path).is_intact()


def test_an_unfinished_file_does_not_pass_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "towers-16.h5"
    scene = random_scenario(8, 16, 0, 0)
    with DataFileWriter(path, header("towers", 16, dict.fromkeys(SPLITS, 8))) as writer:
        writer.append("train", scene.images, scene.masks, scene.factors)
    partial = tmp_path / "towers-16.h5.partial"
    assert list(tmp_path.iterdir()) == [partial]
    assert "unfinished" in refusal(partial).message
    shutil.copy(partial, path)
    refusal(path)


FEW = "--val-scenes 3 --test-scenes 2"


def run(line: str) -> Result:
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
def test_the_hint_for_a_damaged_file_makes_it_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: Callable[[], None] | None,
    made: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if sources is not None:
        sources()
    assert run(f"prepare {made} --workers 1").exit_code == 0
    path = next(tmp_path.rglob("*.h5"))
    whole, data = path.read_bytes(), DataFile(path)
    with open(path, "r+b") as file:
        file.seek(data._offsets["val"])
        file.write(b"\xab" * 50)
    told = run(f"prepare show {path.relative_to(tmp_path)}")
    assert told.exit_code == 2 and told.stderr.rstrip().endswith(f": sri {hint}")
    if "--from mirror" not in hint:
        assert run(f"{hint} --workers 1").exit_code == 0
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"name": "mine", "size": 64, "source": "simulated", "parameters": {"seed": 0}},
        {"name": "clevr6", "size": 64, "source": "elsewhere", "parameters": {"seed": 0}},
    ],
)
def test_where_no_command_is_known_none_is_made_up(attrs: dict[str, object]) -> None:
    assert prepare_arguments(attrs) is None
