"""Images of any tool: read in order of name, exactly; unusable ones are rejected."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from sri_cli.errors import SriError
from sri_cli.metrics import image_folder
from sri_cli.metrics.image_folder import open_folder

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


def write_files(folder: Path, ending: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{i:03}.{ending}", lossless=True)
    return folder


def everything(folder: Path) -> np.ndarray:
    found = open_folder(folder)
    return np.concatenate(list(found.blocks(found.count)))


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "webp"])
def test_files_come_in_order_and_exactly(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "BLOCK", 3)
    write_files(tmp_path, ending)
    (tmp_path / "notes.txt").write_text("nothing")
    np.testing.assert_array_equal(everything(tmp_path), IMAGES)
    assert open_folder(tmp_path).size == 16


def test_what_sri_sample_writes(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "sample.json").write_text("{}")
    Image.new("RGB", (99, 50)).save(tmp_path / "png" / "grid.png")
    write_files(tmp_path / "png" / "images")
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "samples.npz", images=IMAGES)
    (tmp_path / "h5").mkdir()
    with h5py.File(tmp_path / "h5" / "samples.h5", "w") as file:
        file["images"] = IMAGES
    for kind in ("png", "npz", "h5"):
        np.testing.assert_array_equal(everything(tmp_path / kind), IMAGES)
    hashes = {open_folder(tmp_path / kind).subject(7)["sha256"] for kind in ("png", "npz", "h5")}
    assert len(hashes) == 1
    assert open_folder(tmp_path / "npz").subject(6)["sha256"] not in hashes


def test_grey_and_palette_images_become_colour(tmp_path: Path) -> None:
    Image.fromarray(IMAGES[0, :, :, 0]).save(tmp_path / "a.png")
    Image.fromarray(IMAGES[1]).quantize(8).save(tmp_path / "b.png")
    Image.fromarray(IMAGES[2]).convert("RGBA").save(tmp_path / "c.png")  # wholly opaque
    found = everything(tmp_path)
    np.testing.assert_array_equal(found[0], IMAGES[0, :, :, :1].repeat(3, 2))
    np.testing.assert_array_equal(found[2], IMAGES[2])


def bad(folder: Path, kind: str) -> None:
    folder.mkdir()
    if kind == "mixed sizes":
        write_files(folder)
        Image.new("RGB", (8, 8)).save(folder / "999.png")
    elif kind == "no image":
        (folder / "a.png").write_bytes(b"GIF89a, not")
    elif kind == "cut":
        write_files(folder)
        file = folder / "003.png"
        file.write_bytes(file.read_bytes()[:100])
    elif kind == "wide":
        Image.new("RGB", (8, 16)).save(folder / "a.png")
    elif kind == "clear":
        Image.new("RGBA", (8, 8), (9, 9, 9, 90)).save(folder / "a.png")
    elif kind == "deep":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "a.png")
    elif kind == "two arrays":
        np.savez(folder / "a.npz", images=IMAGES)
        np.savez(folder / "b.npz", images=IMAGES)
    elif kind == "other array":
        np.savez(folder / "a.npz", masks=IMAGES)
    elif kind == "floats":
        np.savez(folder / "a.npz", images=IMAGES / 255)
    elif kind == "pickled":
        np.savez(folder / "a.npz", images=np.array([{}], object))
    elif kind == "broken h5":
        (folder / "a.h5").write_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("empty", r"given has no images"),
        ("mixed sizes", "999.png is 8 px, 000.png 16 px"),
        ("no image", "a.png"),
        ("cut", "003.png"),
        ("wide", "8x16"),
        ("clear", "a.png"),
        ("deep", "a.png"),
        ("two arrays", "a.npz, b.npz"),
        ("other array", "a.npz has no"),
        ("floats", "float64"),
        ("pickled", "a.npz has no"),
        ("broken h5", "a.h5 has no"),
    ],
)
def test_rejected(tmp_path: Path, kind: str, named: str) -> None:
    bad(tmp_path / "given", kind)
    with pytest.raises(SriError, match=named) as caught:
        everything(tmp_path / "given")
    assert caught.value.hint
