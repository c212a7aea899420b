"""A folder of samples is whole, holds what was asked for, and overwrites nothing of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.plotting.samples import write_samples


def read(folder: Path, name: str = "images") -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted((folder / name).glob("*.png"))])


def test_png_folder(trained: TrainedRun, tmp_path: Path) -> None:
    folder = write_samples(trained, tmp_path / "out", num=5, slots=2, masks=True)
    assert read(folder).shape == (5, 32, 32, 3)
    masks = read(folder, "masks").reshape(5, 2, 32, 32).astype(int)
    assert np.abs(masks.sum(axis=1) - 255).max() <= 1
    assert sorted(p.name for p in folder.glob("*.*")) == [
        "grid-masks.png",
        "grid.png",
        "sample.json",
    ]
    said = json.loads((folder / "sample.json").read_text())
    assert (said["slots"], said["num"], said["trained_on"]) == (2, 5, "demo-towers, simulated")


def test_all_formats_hold_the_same(trained: TrainedRun, tmp_path: Path) -> None:
    settings = {"num": 11, "seed": 3, "masks": True}
    png, npz, h5 = (
        write_samples(trained, tmp_path / f, file_format=f, **settings)
        for f in ("png", "npz", "h5")
    )
    with np.load(npz / "samples.npz") as archive, h5py.File(h5 / "samples.h5") as file:
        assert np.array_equal(read(png), archive["images"])
        for name in ("images", "masks"):
            assert np.array_equal(archive[name], file[name][()])
        assert archive["masks"].shape == (11, 3, 32, 32)
    assert sorted(p.name for p in npz.iterdir()) == [
        "grid-masks.png",
        "grid.png",
        "sample.json",
        "samples.npz",
    ]


def test_default_folder_is_the_runs_and_repeats(trained: TrainedRun) -> None:
    first = write_samples(trained, num=2)
    before = read(first)
    assert first.parent == trained.run_dir / "samples"
    assert write_samples(trained, num=2) == first
    assert np.array_equal(read(first), before)
    other = write_samples(trained, num=3)
    assert other != first and np.abs(read(other)[:2].astype(int) - before).max() <= 6


def test_a_full_folder_is_not_touched(trained: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(SriError, match="mine"):
        write_samples(trained, tmp_path / "mine", num=1)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("file_format", ["png", "npz", "h5"])
def test_full_disk_leaves_nothing(
    trained: TrainedRun,
    tmp_path: Path,
    largest_file: Callable[[int], AbstractContextManager[None]],
    file_format: str,
) -> None:
    with largest_file(1000), pytest.raises(SriFailure):
        write_samples(trained, tmp_path / "s" / "out", num=40, file_format=file_format)
    assert list((tmp_path / "s").iterdir()) == []


def test_unknown_request_is_refused_before_drawing(trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(SriError):
        write_samples(trained, tmp_path / "out", num=1, temperature=-1.0)
    assert not (tmp_path / "out").exists()
