"""The mirror's and EfficientMORL's files: splits, crops, filters, and rows in any chunk layout."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources import hdf5
from sri_cli.data.sources.hdf5 import Hdf5Source, split_scenes
from sri_cli.data.sources.published import SETS, PositionSplit, PublishedSet
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.foreign_hdf5 import (
    LAYOUTS,
    made,
    numbered_images,
    numbers_in,
    stopped_at,
    tower_masks,
    write_flat,
    write_groups,
    write_towers,
)
from tests.small_server import serving

TOWERS, ROOMS, CLEVR6 = (SETS[name] for name in ("shapestacks", "objects-room", "clevr6"))
FACTORS = ("com", "rgba", "shape", "size")
NO_FACTORS: dict[str, Any] = dict.fromkeys(FACTORS)
IMAGES, MASKS = numbered_images(48, 64, 64), tower_masks(48)
FEW = Options(64, val_scenes=2, test_scenes=2)
# Entities that each image of EfficientMORL's shows, with the background: seven pass.
SHOWN = {"train": [3, 8, 7, 11, 4, 5], "val": [9, 2, 7], "test": [7, 8, 6]}
KEPT = {"train": [0, 2, 4, 5], "val": [101, 102], "test": [200, 202]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.hdf5"


def rows_of(data: DataFile) -> dict[str, list[int]]:
    return {split: numbers_in(data, split) for split in SPLITS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_are_split_by_scene(tmp_path: Path, path: Path, layout: str) -> None:
    scene = write_towers(path, 12, layout)
    data = made(Hdf5Source(TOWERS, path, Options(64)), tmp_path)
    assert data.counts == {"train": 8 * 16, "val": 2 * 16, "test": 2 * 16}
    assert data.attrs["scene_rule"] == "images of equal com, rgba, shape, size"
    assert (data.source, data.background_labels, data.size) == ("mirror", 1, 64)
    scenes: dict[str, set[bytes]] = {}
    with h5py.File(path) as file:
        for split, rows in rows_of(data).items():
            part = data.split(split)
            assert rows == sorted(rows), "not in the file's order"
            assert np.array_equal(part.images, file["image"][:][rows])
            masks = tower_masks(len(scene))[rows, ..., 0]
            masks[masks == 7] = 0
            assert np.array_equal(part.masks, masks)
            for name in (*FACTORS, "visibility", "num_actual_objects"):
                factor = part.factors[name]
                assert np.array_equal(factor, file[name][:][rows].astype(factor.dtype))
            assert set(Counter(scene[rows]).values()) == {16}
            assert set(Counter(part.factors["scenario"]).values()) == {16}
            scenes[split] = {row.tobytes() for row in part.factors["com"]}
    assert [len(scenes[split]) for split in SPLITS] == [8, 2, 2]
    assert len(set.union(*scenes.values())) == 12
    factors = data.split("train").factors
    assert factors["com"].dtype == factors["rgba"].dtype == np.float32
    assert factors["shape"].dtype == np.int64 and "label" not in factors


def test_the_file_is_the_same_at_any_block_size_and_number_of_workers(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_towers(path, 12, "automatic")
    source = Hdf5Source(TOWERS, path, Options(32))
    contents = {made(source, tmp_path, "workers.h5", workers=2).path.read_bytes()}
    for block, chunk_rows in ((2**26, 2**30), (2**17, 2**30), (2**17, 2**18)):
        monkeypatch.setattr(hdf5, "BLOCK_BYTES", block)
        monkeypatch.setattr(hdf5, "MAX_CHUNK_ROW_BYTES", chunk_rows)
        contents.add(made(source, tmp_path, f"{block}-{chunk_rows}.h5").path.read_bytes())
    assert len(contents) == 1


def test_scenes_are_shuffled_by_the_seed(tmp_path: Path, path: Path) -> None:
    """More training scenes leave the test scenes as they are."""
    write_towers(path)
    options = (Options(), Options(seed=1), Options(scenes=3, test_scenes=2), Options(val_scenes=1))
    sources = [Hdf5Source(TOWERS, path, chosen) for chosen in options]
    tests = [numbers_in(made(s, tmp_path, f"{n}.h5"), "test") for n, s in enumerate(sources)]
    assert tests[0] != tests[1] and tests[0] == tests[2] == tests[3]


def test_published_splits() -> None:
    assert ROOMS.split == PositionSplit(10_000, 10_000, None, published=True)
    assert CLEVR6.split == PositionSplit(10_000, 10_000, 50_000, published=True)
    assert (CLEVR6.crop, CLEVR6.filter, CLEVR6.max_entities) == ((29, 64, 192, 192), "bicubic", 7)

    def counts(options: Options, scenes: int) -> list[int]:
        return np.bincount(split_scenes(np.arange(scenes), options) + 1, minlength=4)[1:].tolist()

    assert counts(Options(), 19_450) == [13_618, 2_916, 2_916]
    assert counts(Options(), 100) == [70, 15, 15]
    assert counts(Options(scenes=600), 19_450) == [600, 100, 100]
    assert counts(Options(scenes=9, val_scenes=2, test_scenes=1), 12) == [9, 2, 1]
    for options, scenes in ((Options(scenes=10), 12), (Options(), 2), (Options(val_scenes=12), 12)):
        with pytest.raises(SriError):
            counts(options, scenes)


def test_training_scenes_are_no_test_scenes_of_a_file_of_more() -> None:
    usual, fewer = (
        split_scenes(np.arange(19_450), options) for options in (Options(), Options(scenes=6000))
    )
    assert not ((fewer == SPLITS.index("train")) & (usual == SPLITS.index("test"))).any()


def test_a_number_of_training_scenes_makes_other_settings(path: Path) -> None:
    """Unfinished files of earlier versions have other training scenes, and are not resumed."""
    write_towers(path)
    rules = [
        Hdf5Source(TOWERS, path, options).header.parameters["split"]
        for options in (Options(), Options(val_scenes=2), Options(scenes=3))
    ]
    assert rules[0] == rules[1] != rules[2]


@pytest.mark.parametrize(
    "instead",
    [
        NO_FACTORS,
        {"com": np.random.default_rng(1).random((96, 6, 3))},
        NO_FACTORS | {"size": np.zeros((96, 6))},
    ],
)
def test_images_that_cannot_be_grouped_by_scene_are_refused(
    tmp_path: Path, path: Path, instead: dict[str, Any]
) -> None:
    write_towers(path, 6, **instead)
    with pytest.raises(SriError, match="grouped by scene"):
        made(Hdf5Source(TOWERS, path, Options(64)), tmp_path)


def small(kind: PublishedSet, *split: int | None) -> PublishedSet:
    return replace(kind, split=PositionSplit(*split))


def test_rooms_are_split_by_position(tmp_path: Path, path: Path) -> None:
    write_flat(path, 30, 64, 64, "automatic")
    options = Options(64, val_scenes=3, test_scenes=5)
    data = made(Hdf5Source(ROOMS, path, options), tmp_path)
    expected = {"test": range(5), "val": range(5, 8), "train": range(8, 30)}
    assert rows_of(data) == {split: list(rows) for split, rows in expected.items()}
    assert data.background_labels == 4 and "seed" not in data.attrs["parameters"]
    assert np.array_equal(data.split("test").images, numbered_images(5, 64, 64))
    few = made(Hdf5Source(ROOMS, path, Options(64, scenes=12)), tmp_path, "few.h5")
    assert few.counts == {"train": 12, "val": 2, "test": 2}
    assert len(json.loads(few.attrs["notes"])) == 1  # the published test images include these
    published = made(Hdf5Source(small(ROOMS, 6, 4, None), path, Options(64)), tmp_path, "p.h5")
    assert published.counts == {"train": 20, "val": 4, "test": 6}
    for options in (Options(64), Options(64, val_scenes=20)):
        with pytest.raises(SriError, match=r"30 images.*\n.*--test-scenes"):
            made(Hdf5Source(ROOMS, path, options), tmp_path, "many.h5")


@pytest.mark.parametrize("by", ["visibility", "masks"])
def test_clevr6_keeps_seven_entities(tmp_path: Path, path: Path, by: str) -> None:
    visibility = (np.arange(11) < np.arange(30)[:, None] % 10 + 2)[..., None].astype(np.float32)
    write_flat(path, 30, 128, 128, visibility=visibility if by == "visibility" else None)
    data = made(Hdf5Source(small(CLEVR6, 10, 5, 13), path, Options(96)), tmp_path)
    kept = [k for k in range(28) if k % 10 + 2 <= 7]
    assert numbers_in(data, "test") == [k for k in kept if k < 10]
    assert numbers_in(data, "val") == [k for k in kept if 10 <= k < 15]
    assert numbers_in(data, "train") == [k for k in kept if k >= 15]
    assert "mirror" in data.attrs["preprocessing"]
    with h5py.File(path) as file:
        image, mask = file["image"][12], file["mask"][12, ..., 0]
    resizing = Resizing(96, "bicubic")
    assert np.array_equal(data.split("val").images[2], resizing.image(image))
    assert np.array_equal(data.split("val").masks[2], resizing.labels(mask))
    assert data.split("train").masks.max() == 6  # the background and six objects are seven


def test_factors_are_numbers_of_every_image_and_not_too_many(tmp_path: Path, path: Path) -> None:
    more = {
        "a_truth": np.arange(20) % 2 == 0,
        "angle": np.linspace(0, 1, 20).astype(">f8"),
        "big": np.zeros((20, 1025), np.float32),
        "other": np.zeros((19, 2)),
        "words": np.array([b"cube"] * 20),
    }
    write_flat(path, 20, 64, 64, **more)
    with h5py.File(path, "a") as file:
        file["gone"] = h5py.SoftLink("/nowhere")
    factors = made(Hdf5Source(ROOMS, path, FEW), tmp_path).split("val").factors
    assert set(factors) == {"a_truth", "angle", "scenario"}
    assert list(factors["a_truth"]) == [1, 0] and factors["angle"].dtype == np.float32
    assert list(factors["scenario"]) == [b"image-2", b"image-3"]


@pytest.mark.parametrize("layout", ["contiguous", "automatic"])
def test_efficient_morls_clevr6_is_filtered_cropped_and_resized(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 2**20)
    write_groups(path, SHOWN, layout=layout)
    data = made(Hdf5Source(CLEVR6, path, Options(96)), tmp_path)
    assert rows_of(data) == KEPT
    assert (data.source, data.background_labels) == ("original", 1)
    assert "crop rows 29 to 221, columns 64 to 256" in data.attrs["preprocessing"]
    resizing = Resizing(96, "bicubic", box=(29, 64, 192, 192))
    with h5py.File(path) as file:
        image = file["train"]["imgs"][2]
    assert np.array_equal(data.split("train").images[1], resizing.image(image))
    masks = data.split("train").masks
    assert [set(np.unique(mask)) for mask in masks] == [
        set(range(SHOWN["train"][k])) for k in KEPT["train"]
    ]
    # Entity 2's block covers rows 60 to 67 and columns 122 to 129 of the image, 31 to 38 and 58
    # to 65 of the crop; the nearest to pixel i of half the size is pixel 2i + 1.
    rows, columns = np.nonzero(masks[0] == 2)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 18, 29, 32)
    few = made(Hdf5Source(CLEVR6, path, Options(96, 3, 1, 2)), tmp_path, "few.h5")
    assert rows_of(few) == {"train": [0, 2, 4], "val": [101], "test": [200, 202]}
    with pytest.raises(SriError, match=r"--scenes 5: .* 6 images in train, 4 of them"):
        made(Hdf5Source(CLEVR6, path, Options(96, scenes=5)), tmp_path, "more.h5")


def test_few_training_images_of_efficient_morls_have_a_sixth_for_validation_and_test(
    tmp_path: Path, path: Path
) -> None:
    shown = {"train": [2] * 18, "val": [2] * 4, "test": [2]}  # fewer than a sixth are no error
    write_groups(path, shown, 64, 64, entities=2)
    for scenes, val in ((18, 3), (6, 2), (None, 4)):
        data = made(Hdf5Source(ROOMS, path, Options(64, scenes)), tmp_path, f"{scenes}.h5")
        assert data.counts == {"train": scenes or 18, "val": val, "test": 1}
        parameters, limit = data.attrs["parameters"], "a sixth of train" if scenes else "all"
        assert [parameters[split] for split in SPLITS] == [scenes or limit, limit, limit]


def test_efficient_morls_rooms(tmp_path: Path, path: Path) -> None:
    shown = {"train": [4, 5, 6, 5], "val": [5], "test": [6, 5]}
    write_groups(path, shown, 64, 64, entities=7, copies=3, layout="automatic")
    data = made(Hdf5Source(ROOMS, path, Options(64)), tmp_path)
    assert data.counts == {"train": 4, "val": 1, "test": 2} and data.background_labels == 4
    with h5py.File(path) as file:
        assert np.array_equal(data.split("train").images, file["train"]["imgs"][:])
        expected = file["train"]["masks"][..., 0].argmax(axis=1)  # 0 where none is set
    assert np.array_equal(data.split("train").masks, expected)
    assert list(data.split("test").factors["scenario"]) == [b"test-0", b"test-1"]


def test_only_files_named_as_those_of_objects_room_are_its_test_sets(path: Path) -> None:
    for name, test_only in (("clevr6_test_copy.h5", False), ("objects_room_test_six.h5", True)):
        file = path.with_name(name)
        write_groups(file, {"train": [2], "val": [2], "test": [2]})
        assert Hdf5Source(CLEVR6, file, Options()).test_only == test_only


@pytest.mark.parametrize("layout", ["mirror", "EfficientMORL"])
def test_a_stopped_preparation_resumes(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 2)
    if layout == "mirror":
        write_towers(path, 3, "automatic")
    else:
        write_groups(path, SHOWN)
    source = Hdf5Source(TOWERS if layout == "mirror" else CLEVR6, path, Options(64))
    with pytest.raises(Interrupted):
        prepare(stopped_at(source, 5), tmp_path / "out.h5", workers=1)
    done = prepare(source, tmp_path / "out.h5", workers=1)
    assert done.resumed_from == 5
    whole = made(source, tmp_path, "whole.h5")
    for split in SPLITS:
        a, b = done.data.split(split), whole.split(split)
        assert np.array_equal(a.images, b.images) and np.array_equal(a.masks, b.masks)
        assert all(np.array_equal(a.factors[key], b.factors[key]) for key in b.factors)


@pytest.mark.parametrize(
    "instead",
    [
        {"image": None},
        {"mask": None},
        {"image": IMAGES[:, :32]},
        {"image": IMAGES[:0], "mask": MASKS[:0]},
        {"mask": MASKS[:16]},
        {"mask": MASKS + 250},
        {"mask": MASKS * 0},
    ],
)
def test_other_data_in_a_mirrors_file(tmp_path: Path, path: Path, instead: dict[str, Any]) -> None:
    write_towers(path, 3, **instead)
    with pytest.raises(SriError, match=next(iter(instead))):
        made(Hdf5Source(TOWERS, path, Options(64)), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["in.hdf5"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("val", None),
        ("test/masks", None),
        ("val/masks", np.zeros((2, 11, 240, 320, 1), np.uint8)),
        ("val/masks", np.zeros((3, 11, 240, 320, 1), np.uint8)),
    ],
)
def test_other_data_in_efficient_morls_file(
    tmp_path: Path, path: Path, name: str, values: np.ndarray | None
) -> None:
    write_groups(path, SHOWN, layout="gzip")
    with h5py.File(path, "a") as file:
        del file[name]
        if values is not None:
            file[name] = values
    with pytest.raises(SriError, match=name.partition("/")[0]):
        made(Hdf5Source(CLEVR6, path, Options(96)), tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no HDF5" * 1000),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.unlink() or path.mkdir(),
    ],
)
def test_a_file_that_cannot_be_opened(path: Path, spoil: Callable[[Path], object]) -> None:
    write_towers(path, 3)
    spoil(path)
    with pytest.raises(SriError, match=path.name):
        Hdf5Source(TOWERS, path, Options(64))


def test_a_damaged_chunk(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 2**17)
    write_flat(path, 48, 64, 64, "gzip")
    with h5py.File(path) as file:
        chunk = file["image"].id.get_chunk_info_by_coord((40, 0, 0, 0))
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 20 : chunk.byte_offset + 40] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(SriError, match=path.name) as caught:
        made(Hdf5Source(ROOMS, path, FEW), tmp_path)
    assert caught.value.exit_code == 2


def test_a_disk_that_fails_is_no_damaged_file(path: Path) -> None:
    """Or the rows so far would be given up."""
    write_flat(path, 48, 64, 64, "gzip")
    with pytest.raises(SriFailure, match="Is a directory"), hdf5.open_hdf5(path) as file:
        images = file["image"]
        folder = os.open(path.parent, os.O_RDONLY)
        os.dup2(folder, file.id.get_vfd_handle())  # reading it fails
        os.close(folder)
        images[40]


def test_the_mirrors_file_is_fetched_and_verified_once(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_towers(path, 6, "gzip")
    content = path.read_bytes()
    kind = replace(TOWERS, mirror_sha256=hashlib.sha256(content).hexdigest())
    local, out = tmp_path / "downloads" / "towers.hdf5", tmp_path / "out.h5"

    def prepared(kind: PublishedSet, offline: bool = False, **more: Any) -> DataFile:
        options = Options(scenes=3, **more)
        source = Hdf5Source(kind, local, options, remote=True, offline=offline)
        return prepare(source, out, workers=1).data

    with serving(content) as server:
        monkeypatch.setenv("SRI_MIRROR", server.url.rpartition("/")[0] + "/")
        with pytest.raises(SriError, match="towers.hdf5"):
            prepared(kind, offline=True)
        with pytest.raises(SriFailure, match="SHA-256"):
            prepared(TOWERS)
        data = prepared(kind)
    assert local.read_bytes() == content and data.attrs["parameters"]["file"] == "towers.hdf5"
    assert str(tmp_path) not in str(data.attrs)
    local.unlink()
    assert prepared(kind, offline=True).counts == data.counts  # a finished file does not need it
    with pytest.raises(SriError, match="seed 0 -> 1"):
        prepared(kind, offline=True, seed=1)
