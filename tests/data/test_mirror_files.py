"""What is wrong with a mirror's file is told in one line; files are fetched once and verified."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.source import Options
from sri_cli.data.sources import hdf5 as hdf5_rows
from sri_cli.data.sources import mirror
from sri_cli.data.sources.mirror import is_mirror, mirror_job, prepare_mirror
from sri_cli.errors import SriError, SriFailure
from sri_cli.run import Workspace
from tests.foreign_hdf5 import made, numbered_images, tower_masks, write_flat, write_towers
from tests.small_server import serving


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.hdf5"


FEW = Options(64, val_scenes=2, test_scenes=2)
IMAGES, MASKS = numbered_images(48, 64, 64), tower_masks(48)


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        ({"image": None}, "no data set `image`; there is com, label, mask"),
        ({"mask": None}, "no data set `mask`"),
        ({"image": IMAGES.astype(np.float32)}, r"`image` is float32 \[48, 64, 64, 3\], uint8"),
        ({"image": IMAGES[..., :1]}, r"\[48, 64, 64, 1\], uint8 \[N, 64, 64, 3\] is wanted"),
        ({"image": IMAGES[:, :32]}, r"uint8 \[N, 64, 64, 3\] is wanted"),
        ({"image": IMAGES[:0], "mask": MASKS[:0]}, r"uint8 \[0, 64, 64, 3\]"),
        ({"mask": MASKS[:16]}, r"`mask` is int64 \[16, 64, 64, 1\], integers \[48, 64, 64, 1\]"),
        ({"mask": MASKS / 2}, "`mask` is float64"),
        ({"mask": MASKS - 1}, "`mask` has labels from -1 to 6, 0 to 255 are possible"),
        ({"mask": MASKS + 250}, "labels from 250 to 257"),
        ({"mask": MASKS * 0}, "masks of .* are all zero"),
    ],
)
def test_what_is_no_such_file_is_refused(
    tmp_path: Path, source: Path, instead: dict[str, Any], message: str
) -> None:
    write_towers(source, 3, **instead)
    with pytest.raises(SriError, match=message) as caught:
        made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["in.hdf5"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"no HDF5" * 1000), "is not an HDF5 file"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "is cut off"),
        (lambda path: path.unlink() or path.mkdir(), "is no file"),
    ],
)
def test_a_file_that_cannot_be_opened(
    tmp_path: Path, source: Path, spoil: Any, message: str
) -> None:
    write_towers(source, 3)
    spoil(source)
    with pytest.raises(SriError, match=message) as caught:
        made(mirror_job("shapestacks", source, Options(64)), tmp_path)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert not is_mirror(source)


def test_a_damaged_chunk_is_told_and_what_was_made_is_kept(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_rows, "BLOCK_BYTES", 2**17)
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 2)
    write_flat(source, 48, 64, 64, "gzip")
    with h5py.File(source) as file:
        chunk = file["image"].id.get_chunk_info_by_coord((40, 0, 0, 0))
    data = bytearray(source.read_bytes())
    data[chunk.byte_offset + 20 : chunk.byte_offset + 40] = bytes(20)
    source.write_bytes(data)
    job = mirror_job("objects-room", source, FEW)
    with pytest.raises(SriError, match="is damaged: `image` of images 40 to 47") as caught:
        made(job, tmp_path)
    assert "get the file again" in (caught.value.hint or "")


def test_tolerant_of_names_and_of_masks_without_a_channel(tmp_path: Path, source: Path) -> None:
    write_flat(
        source, 20, 64, 64, image=None, mask=None, imgs=IMAGES[:20], masks=MASKS[:20, ..., 0]
    )
    assert is_mirror(source)
    data = made(mirror_job("objects-room", source, FEW), tmp_path)
    masks = data.split("train").masks
    assert masks is not None and np.array_equal(masks, MASKS[4:20, ..., 0])


def test_factors_are_numbers_of_every_image_and_not_too_many(tmp_path: Path, source: Path) -> None:
    more = {
        "a_truth": np.arange(20) % 2 == 0,
        "angle": np.linspace(0, 1, 20).astype(">f8"),
        "big": np.zeros((20, 1025), np.float32),
        "other": np.zeros((19, 2)),
        "scenario": np.zeros(20),
        "words": np.array([b"cube"] * 20),
    }
    write_flat(source, 20, 64, 64, **more)
    with h5py.File(source, "a") as file:
        file.create_group("group")
        file["gone"] = h5py.SoftLink("/nowhere")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    data = made(mirror_job("objects-room", source, FEW), tmp_path)
    factors = data.split("val").factors
    assert set(factors) == {"a_truth", "angle", "scenario"}
    assert list(factors["a_truth"]) == [1, 0] and factors["angle"].dtype == np.float32
    assert list(factors["scenario"]) == [b"image-2", b"image-3"]


def test_prepare_fetches_verifies_and_then_needs_the_file_no_more(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_towers(source, 6, "gzip")
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    sha = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(mirror.FILES, "shapestacks", ("towers.hdf5", sha))
    asked = Options(scenes=3)
    with serving(source.read_bytes()) as server:
        monkeypatch.setenv("SRI_MIRROR", server.url.rpartition("/")[0] + "/")
        with pytest.raises(SriError, match="--offline: .*towers.hdf5"):
            prepare_mirror(workspace, "shapestacks", asked, offline=True)
        done = prepare_mirror(workspace, "shapestacks", asked, workers=1)
        assert len(server.ranges) == 1
    assert done.data.path == workspace.data_path("shapestacks", 64) and done.made == 5 * 16
    parameters = done.data.attrs["parameters"]
    assert parameters["file"] == "towers.hdf5" and parameters["train"] == 3
    assert str(tmp_path) not in str(done.data.attrs)
    fetched = workspace.data_root / "downloads" / "towers.hdf5"
    assert fetched.read_bytes() == source.read_bytes()
    fetched.unlink()
    again = prepare_mirror(workspace, "shapestacks", asked, offline=True)
    assert again.made == 0 and not fetched.exists()
    with pytest.raises(SriError, match="seed 0 -> 1"):
        prepare_mirror(workspace, "shapestacks", replace(asked, seed=1), offline=True)


def test_prepare_from_a_copy(tmp_path: Path, source: Path) -> None:
    write_towers(source, 6)
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    out = tmp_path / "mine.h5"
    done = prepare_mirror(workspace, "shapestacks", Options(32), source=source, out=out, workers=1)
    assert done.data.path == out and done.data.size == 32
    assert "resize to 32 (Pillow bilinear)" in done.data.attrs["preprocessing"]
    assert not workspace.data_root.exists()


def test_another_file_of_that_name_is_not_taken(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_towers(source, 3)
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    with serving(source.read_bytes()) as server:
        monkeypatch.setenv("SRI_MIRROR", server.url.rpartition("/")[0])
        with pytest.raises(SriFailure, match="SHA-256") as caught:
            prepare_mirror(workspace, "shapestacks", Options(), workers=1)
    assert "--from simulate" in (caught.value.hint or "")
