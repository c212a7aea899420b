"""The mirror's files: no scene in two splits, rows as they were, whatever the chunks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS
from sri_cli.data.description import describe_file
from sri_cli.data.prepare import prepare
from sri_cli.data.source import Options
from sri_cli.data.sources import hdf5 as hdf5_rows
from sri_cli.data.sources import mirror
from sri_cli.data.sources.asked import InOrder
from sri_cli.data.sources.mirror import mirror_job
from sri_cli.data.sources.mirror_scenes import numbers_of
from sri_cli.data.transforms import Resizing
from sri_cli.errors import Interrupted, SriError
from tests.foreign_hdf5 import (
    LAYOUTS,
    made,
    numbered_images,
    numbers_in,
    stopped_at,
    tower_masks,
    write_flat,
    write_towers,
)

WORLD = ("com", "rgba", "shape", "size")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.hdf5"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_are_split_by_scenes_and_stay_as_they_are(
    tmp_path: Path, source: Path, layout: str
) -> None:
    scene = write_towers(source, 12, layout)
    data = made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    assert data.counts == {"train": 8 * 16, "val": 2 * 16, "test": 2 * 16}
    assert data.attrs["scene_rule"] == "images of equal com, rgba, shape, size"
    assert (data.source, data.background_labels, data.size) == ("mirror", 1, 64)
    worlds: dict[str, set[bytes]] = {}
    with h5py.File(source) as file:
        for split in SPLITS:
            rows, part = numbers_in(data, split), data.split(split)
            assert rows == sorted(rows), "not in the file's order"
            assert np.array_equal(part.images, file["image"][:][rows])
            masks = tower_masks(len(scene))[rows, ..., 0]
            masks[masks == 7] = 0
            assert part.masks is not None and np.array_equal(part.masks, masks)
            for name in (*WORLD, "visibility", "num_actual_objects"):
                factor = part.factors[name]
                assert np.array_equal(factor, file[name][:][rows].astype(factor.dtype))
            assert set(Counter(scene[rows]).values()) == {16}
            assert set(Counter(part.factors["scenario"]).values()) == {16}
            worlds[split] = {row.tobytes() for row in part.factors["com"]}
    assert [len(worlds[split]) for split in SPLITS] == [8, 2, 2]
    assert len(set.union(*worlds.values())) == 12
    factors = data.split("train").factors
    assert factors["com"].dtype == factors["rgba"].dtype == np.float32
    assert factors["shape"].dtype == np.int64 and "label" not in factors


def test_small_blocks_and_tiles_give_the_same_file(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for name, (block, band) in {
        "a": (2**26, 2**28),
        "b": (2**17, 2**28),
        "c": (2**17, 2**18),
    }.items():
        monkeypatch.setattr(hdf5_rows, "BLOCK_BYTES", block)
        monkeypatch.setattr(hdf5_rows, "NUMBERS_BYTES", block // 2**9)
        monkeypatch.setattr(hdf5_rows, "BAND_BYTES", band)
        for layout in LAYOUTS:
            write_towers(source, 12, layout)
            job = mirror_job("shapestacks", source, Options(64))
            data = made(job, tmp_path, f"{name}{layout}.h5")
            contents.append(data.path.read_bytes())
    assert all(content == contents[0] for content in contents)


def test_no_chunk_is_read_twice(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_rows, "BLOCK_BYTES", 2**18)
    read, boxes = hdf5_rows.read, []

    def noted(dataset: h5py.Dataset, where: list[slice]) -> np.ndarray:
        boxes.append(list(where))
        return read(dataset, where)

    monkeypatch.setattr(hdf5_rows, "read", noted)
    with h5py.File(source, "w") as file:
        data = file.create_dataset("image", (96, 64, 64, 3), np.uint8, chunks=(32, 20, 16, 1))
        list(hdf5_rows.read_rows(data, np.arange(3, 96), axes=(1, 2), box=(5, 9, 50, 41)))
    chunks = Counter((rows.start // 32, y.start // 20, x.start // 16) for rows, y, x, *_ in boxes)
    assert set(chunks.values()) == {1} and len(chunks) == 3 * 3 * 4
    for rows, y, x, *_ in boxes:
        for part, step in ((rows, 32), (y, 20), (x, 16)):
            assert part.start // step == (part.stop - 1) // step


def test_byte_for_byte_the_same_at_one_and_four_workers(tmp_path: Path, source: Path) -> None:
    write_towers(source, 12, "automatic")
    job = mirror_job("shapestacks", source, Options(32))
    one, four = (made(job, tmp_path, f"{n}.h5", n).path.read_bytes() for n in (1, 4))
    assert one == four


def test_other_seeds_shuffle_otherwise_and_more_training_keeps_the_tests(
    tmp_path: Path, source: Path
) -> None:
    write_towers(source)
    numbers = (Options(), Options(seed=1), Options(scenes=3, test_scenes=2), Options(val_scenes=1))
    jobs = [mirror_job("shapestacks", source, asked) for asked in numbers]
    tests = [numbers_in(made(job, tmp_path, f"{n}.h5"), "test") for n, job in enumerate(jobs)]
    assert tests[0] != tests[1] and tests[0] == tests[2] == tests[3]


def test_published_proportions() -> None:
    published = {"train": 13_618, "val": 2_916, "test": 2_916}
    assert numbers_of(Options(), 19_450) == published
    assert numbers_of(Options(), 100) == {"train": 70, "val": 15, "test": 15}
    assert numbers_of(Options(scenes=600), 19_450) == {"train": 600, "val": 100, "test": 100}
    assert numbers_of(Options(scenes=9, val_scenes=2, test_scenes=1), 12)["test"] == 1
    for asked, there in ((Options(scenes=10), 12), (Options(), 2), (Options(val_scenes=12), 12)):
        with pytest.raises(SriError, match="more than the") as caught:
            numbers_of(asked, there)
        assert "--val-scenes" in (caught.value.hint or "")


NO_WORLD: dict[str, Any] = dict.fromkeys(WORLD)


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        (NO_WORLD, "it has none of com, rgba, shape, size"),
        ({"com": np.random.default_rng(1).random((96, 6, 3))}, "show 96 scenes"),
        (NO_WORLD | {"size": np.zeros((96, 6))}, "by size its 96 images show 1 scene,"),
    ],
)
def test_without_world_factors_runs_of_16_are_scenes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    instead: dict[str, Any],
    why: str,
) -> None:
    source = tmp_path / "shapestacks-part.hdf5"
    write_towers(source, 6, **instead)
    data = made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    said = capsys.readouterr().err
    rule = "16 images that follow one another; if the file is shuffled, train, val and test share"
    assert why in said and rule in said
    told = next(line for line in describe_file(data.path).lines if line.startswith("a scene "))
    assert rule in told
    for split in SPLITS:
        runs = [row // 16 for row in numbers_in(data, split)]
        assert set(Counter(runs).values()) == {16}
        names = data.split(split).factors["scenario"]
        assert [name.decode() for name in names] == [f"run-{run}" for run in runs]


def test_what_neither_factors_nor_name_call_towers_is_refused(source: Path, tmp_path: Path) -> None:
    write_flat(source, 40, 64, 64)  # rooms are of this size, too
    with pytest.raises(SriError, match="does not look like ShapeStacks") as caught:
        made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    assert "shapestacks-NAME.hdf5" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == [source]
    source = source.rename(tmp_path / "shapestacks.hdf5")
    with pytest.raises(SriError, match="40 images are no multiple of 16"):
        made(mirror_job("shapestacks", source, Options(64)), tmp_path)


def test_views_that_differ_in_the_sign_of_zero_are_of_one_scene(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = np.arange(96) // 16 * np.ones((6, 1)).T[0, 0]
    size[3] = -0.0
    write_towers(source, 6, **NO_WORLD | {"size": size})
    data = made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    assert "Warning" not in capsys.readouterr().err
    assert {len(set(data.split(split).factors["size"])) for split in SPLITS} == {4, 1}


def test_rooms_are_split_in_order(tmp_path: Path, source: Path) -> None:
    write_flat(source, 30, 64, 64, "automatic")
    job = mirror_job("objects-room", source, Options(64, val_scenes=3, test_scenes=5))
    data = made(job, tmp_path)
    numbers = {split: numbers_in(data, split) for split in SPLITS}
    expected = {"test": range(5), "val": range(5, 8), "train": range(8, 30)}
    assert numbers == {split: list(rows) for split, rows in expected.items()}
    assert data.background_labels == 4 and "seed" not in data.attrs["parameters"]
    assert np.array_equal(data.split("test").images, numbered_images(5, 64, 64))
    few = made(mirror_job("objects-room", source, Options(64, scenes=12)), tmp_path, "few.h5")
    assert few.counts == {"train": 12, "val": 2, "test": 2}


def test_the_published_split_of_rooms(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_flat(source, 30, 64, 64)
    with pytest.raises(SriError, match="the first 10,000 for test") as caught:
        made(mirror_job("objects-room", source, Options(64)), tmp_path)
    assert "--test-scenes T --val-scenes V" in (caught.value.hint or "")
    with pytest.raises(SriError, match="too few for 20 test"):
        made(mirror_job("objects-room", source, Options(64, val_scenes=20)), tmp_path)
    small = replace(mirror.KINDS["objects-room"], published=InOrder(6, 4, None, published=True))
    monkeypatch.setitem(mirror.KINDS, "objects-room", small)
    data = made(mirror_job("objects-room", source, Options(64)), tmp_path)
    assert data.counts == {"train": 20, "val": 4, "test": 6}


@pytest.mark.parametrize("by", ["visibility", "masks"])
@pytest.mark.parametrize("layout", ["contiguous", "automatic"])
def test_clevr6_keeps_seven_entities(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, by: str, layout: str
) -> None:
    monkeypatch.setattr(hdf5_rows, "BLOCK_BYTES", 2**18)
    visibility = (np.arange(11) < np.arange(30)[:, None] % 10 + 2)[..., None].astype(np.float32)
    write_flat(source, 30, 128, 128, layout, visibility=visibility if by == "visibility" else None)
    clevr = replace(mirror.KINDS["clevr6"], published=InOrder(10, 5, 13, published=True))
    monkeypatch.setitem(mirror.KINDS, "clevr6", clevr)
    data = made(mirror_job("clevr6", source, Options(96)), tmp_path)
    kept = [k for k in range(28) if k % 10 + 2 <= 7]
    assert numbers_in(data, "test") == [k for k in kept if k < 10]
    assert numbers_in(data, "val") == [k for k in kept if 10 <= k < 15]
    assert numbers_in(data, "train") == [k for k in kept if k >= 15]
    assert "mirror's own crop to 128x128, not the published one" in data.attrs["preprocessing"]
    with h5py.File(source) as file:
        image, mask = file["image"][12], file["mask"][12, ..., 0]
    resizing = Resizing(96, "bicubic")
    assert np.array_equal(data.split("val").images[2], resizing.picture(image))
    masks = data.split("val").masks
    assert masks is not None and np.array_equal(masks[2], resizing.labels(mask))
    most = data.split("train").masks
    assert most is not None and most.max() == 6  # the background and six objects are seven


def test_an_uncropped_clevr_is_cropped_as_published(tmp_path: Path, source: Path) -> None:
    write_flat(source, 16, 240, 320, "automatic", visibility=np.ones((16, 3)))
    data = made(mirror_job("clevr6", source, Options(96, val_scenes=2, test_scenes=3)), tmp_path)
    assert "crop rows 29 to 221, columns 64 to 256" in data.attrs["preprocessing"]
    with h5py.File(source) as file:
        image, mask = file["image"][4], file["mask"][4, ..., 0]
    resizing = Resizing(96, "bicubic", box=(29, 64, 192, 192))
    assert np.array_equal(data.split("val").images[1], resizing.picture(image))
    masks = data.split("val").masks
    assert masks is not None and np.array_equal(masks[1], resizing.labels(mask))
    assert masks[1].max() == 5


def test_a_stopped_preparation_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 16)
    write_towers(source, 12, "many rows, few pixels")
    job = mirror_job("shapestacks", source, Options(64))
    path = tmp_path / "out.h5"
    with pytest.raises(Interrupted, match="after 100 of 192 images"):
        prepare(stopped_at(job, 100), path, workers=1)
    done = prepare(job, path, workers=1)
    assert (done.resumed_from, done.made) == (100, 92)
    whole = made(job, tmp_path, "whole.h5")
    for split in SPLITS:
        a, b = done.data.split(split), whole.split(split)
        assert np.array_equal(a.images, b.images)
        assert a.masks is not None and b.masks is not None and np.array_equal(a.masks, b.masks)
        assert all(np.array_equal(a.factors[key], b.factors[key]) for key in b.factors)


def test_resuming_reads_only_what_is_missing(source: Path) -> None:
    write_towers(source, 12)
    job = mirror_job("shapestacks", source, Options(64))
    plan = job.survey()
    every = [split for split, _ in job.items(plan, dict.fromkeys(SPLITS, 0))]
    late = list(job.items(plan, {"train": 128, "val": 32, "test": 30}))
    assert Counter(every) == {"train": 128, "val": 32, "test": 32}
    assert [split for split, _ in late] == ["test", "test"]
