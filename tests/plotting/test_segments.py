"""`sri segment`: masks, layers and latents of a folder of images, complete or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sri_cli.data.image_files import Frame
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation import encode
from sri_cli.generation.encode import Encoding, encode_images
from sri_cli.generation.sample import quantise
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.segmentation import ari_fg
from sri_cli.models import genesis_v2
from sri_cli.plotting import segments
from sri_cli.plotting.images import slot_colours
from sri_cli.plotting.segments import Decoded, segment_folder, write_sheet
from sri_cli.run import Workspace
from tests.damage import largest_file
from tests.small_cli import sri, sri_json
from tests.small_data import save_image, towers

pytestmark = pytest.mark.usefixtures("here")
SIZES = {"a": (32, 32), "b": (50, 80), "sub/c": (48, 40), "e": (20, 24)}  # rows, columns


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several kinds and sizes, one damaged, one turned by its EXIF, two with masks."""
    folder, (images, masks) = tmp_path / "photos", towers(5, 3)
    for (name, (height, width)), image, mask in zip(
        SIZES.items(), images[1:], masks[1:], strict=True
    ):
        shown = Image.fromarray(image).resize((width, height))
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "b":
            exif = Image.Exif()
            exif[0x0112] = 6
            path = path.with_suffix(".jpg")
            shown.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        else:
            shown.convert("RGBA" if name == "sub/c" else "RGB").save(path)
        if name in ("a", "b"):
            resized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
            save_image(folder / "masks" / f"{name}.png", np.asarray(resized))
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    return folder


def latents(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "latents.npz") as archive:
        return dict(archive)


def blend(folder: Path, name: str) -> np.ndarray:
    files = sorted(folder.glob(f"layers/{name}-slot-*.png"))
    image = Image.open(files[0])
    for file in files[1:]:
        image.alpha_composite(Image.open(file))
    return np.asarray(image)


def test_a_folder_of_images(workspace: Workspace, photos: Path) -> None:
    record = sri_json("segment", "--run", "tiny", "--images", str(photos))
    folder = Path("runs/tiny/segments/001")
    assert record == json.loads((folder / "segment.json").read_text()) | {"folder": str(folder)}
    assert record["segmented"] == 4 and list(record["left_out"]) == ["d"]
    assert record["mask_size"] == "image" and record["scores"]["ari_fg"]["images"] == 2
    made = latents(folder)
    assert made["names"].tolist() == ["a", "b", "e", "sub/c"]
    assert made["slots"].shape == (4, 3, 16) and made["scene_latents"].shape == (4, 16)
    assert np.array_equal(np.sort(made["order"]), np.tile(np.arange(3), (4, 1)))
    assert "empty" not in made
    for name, (height, width) in SIZES.items():
        with Image.open(folder / "masks" / f"{name}.png") as mask:
            assert mask.mode == "P" and mask.size == (width, height)
            labels, colours = np.asarray(mask), np.asarray(mask.convert("RGB"))
        side, outside = min(height, width), labels == 255
        assert outside.sum() == height * width - side**2 and set(labels[~outside]) <= {0, 1, 2}
        assert np.array_equal(colours[~outside], slot_colours(3)[labels[~outside]])
        assert blend(folder, name).shape == (32, 32, 4)
    assert Image.open(folder / "sheet.png").width > 32 * 6


def test_masks_layers_and_latents_are_of_the_same_scene(
    trained: TrainedRun, photos: Path, tmp_path: Path
) -> None:
    folder, record, _ = segment_folder(trained, photos, tmp_path / "out", seed=2, model_size=True)
    made = latents(folder)
    with torch.no_grad():
        scene = trained.model.decode(torch.from_numpy(made["slots"]))
    blended = np.stack([blend(folder, name) for name in made["names"]])
    assert np.abs(blended[..., :3].astype(int) - quantise(scene.image)).max() <= 6  # bf16
    stored = [np.asarray(Image.open(folder / "masks" / f"{name}.png")) for name in made["names"]]
    labels = scene.masks[:, :, 0].argmax(dim=1).numpy()
    assert (np.stack(stored) == labels).mean() > 0.9  # random weights: masks are nearly equal
    # Image 0 and the true masks as any other program reads them.
    pixels = np.asarray(Image.open(photos / "a.png"))[None]
    one = encode_images(trained.model, pixels, [0], seed=2)
    assert np.array_equal(one.masks.argmax(dim=1)[0].numpy(), stored[0])
    truth = [Resizing(32).labels(np.asarray(Image.open(photos / f"masks/{n}.png"))) for n in "ab"]
    expected = ari_fg(*map(torch.from_numpy, (np.stack(truth), np.stack(stored[:2])))).nanmean()
    assert record["scores"]["ari_fg"]["value"] == pytest.approx(float(expected))


def test_empty_slots_among_dynamic_ones_are_known(
    workspace: Workspace, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genesis_v2, "FEWEST_PIXELS", 32 * 32)  # the first slot takes all of it
    free = open_run(workspace, "tiny", dynamic_slots=True)
    made = latents(segment_folder(free, photos, tmp_path / "out")[0])
    assert made["empty"].tolist() == [[False, True, True]] * 4


def test_the_sheet_shows_every_slot_of_a_large_model(trained: TrainedRun, tmp_path: Path) -> None:
    """11 slots at 128 px, beside five whole images."""
    size, slots = 128, 11
    masks, rgb = torch.full((1, slots, size, size), 1 / slots), torch.rand(1, slots, 3, size, size)
    made = Encoding(torch.zeros(1, slots, 4), None, None, rgb[:, 0], masks, rgb, masks, None)
    empty = np.zeros((size, size), np.uint8)
    one = Decoded("a", np.zeros((size, size, 3), np.uint8), Frame(size, size), empty)
    model: Any = SimpleNamespace(image_size=size)
    write_sheet(tmp_path / "sheet.png", replace(trained, model=model), [one], made)
    assert Image.open(tmp_path / "sheet.png").width > 2 * (5 + slots) * size


def test_chunks_change_nothing(
    trained: TrainedRun, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = latents(segment_folder(trained, photos, tmp_path / "first")[0])
    monkeypatch.setattr(encode, "CHUNK", 1)
    monkeypatch.setattr(segments, "BLOCK", 2)
    second = latents(segment_folder(trained, photos, tmp_path / "second")[0])
    assert np.array_equal(first["names"], second["names"])
    np.testing.assert_allclose(first["slots"], second["slots"], rtol=0.1, atol=0.05)  # bf16
    assert np.abs(first["slots"][0] - first["slots"][1]).max() > 0.1  # the images do differ


def test_labels_return_to_the_pixels_that_they_came_from() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (8, 8))
    masks = (labels == np.arange(3)[:, None, None]).astype(np.float32)
    resizing = Resizing(8, centre=24)
    whole = resizing.restore(masks, 30, 40, outside=255)
    assert whole.shape == (30, 40) and (whole == 255).sum() == 30 * 40 - 24**2
    assert np.array_equal(whole[3:27, 8:32][1::3, 1::3], labels)  # centres of the pixels
    assert np.array_equal(resizing.labels(whole), labels)
    assert np.array_equal(Resizing(8).restore(masks, 8, 8, outside=255), labels)


def test_images_are_cropped_as_those_of_the_run(
    trained: TrainedRun, photos: Path, tmp_path: Path
) -> None:
    save_image(photos / "x30.png", np.zeros((30, 40, 3)))
    for number in range(3):
        save_image(tmp_path / "own" / f"{number}.png", np.full((30, 40, 3), number))
    words = ("prepare", "folder", str(tmp_path / "own"), "--size", "32", "--crop", "24")
    assert sri(*words).exit_code == 0
    source = {"file": str(tmp_path / "data" / "own-32.h5"), "caption": "own"}
    own = replace(trained, extra={"source": source}, _files={})
    folder, record, notes = segment_folder(own, photos, tmp_path / "out")
    assert set(record["left_out"]) == {"d", "e"} and "24 px" in notes[0]  # e has 20 rows
    labels = np.asarray(Image.open(folder / "masks" / "x30.png"))
    assert (labels != 255).sum() == 24**2
    folder, record, _ = segment_folder(own, photos, tmp_path / "other", crop=20)
    assert set(record["left_out"]) == {"d"}
    # As the model records it, where another data set may have its name.
    for crop, side in ((28, 28), ("largest square", 30)):
        away = replace(trained, extra={"data": {"name": "own", "crop": crop}}, _files={})
        folder, record, _ = segment_folder(away, photos, tmp_path / str(side))
        labels = np.asarray(Image.open(folder / "masks" / "x30.png"))
        assert (labels != 255).sum() == side**2


def test_what_was_segmented_before_keeps_its_name(trained: TrainedRun, photos: Path) -> None:
    first = segment_folder(trained, photos)[0]
    assert segment_folder(trained, photos)[0] == first
    assert segment_folder(trained, photos, model_size=True)[0].name == "002"
    save_image(photos / "a.png", np.zeros((32, 32, 3)))
    assert segment_folder(trained, photos)[0].name == "003"


def test_nothing_is_left_of_what_fails(trained: TrainedRun, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    with largest_file(300), pytest.raises(SriFailure):
        segment_folder(trained, photos, out)
    for path in photos.rglob("*.*g"):
        path.write_bytes(b"x")
    for folder in (photos, tmp_path / "missing"):
        with pytest.raises(SriError):
            segment_folder(trained, folder, out)
    assert list((tmp_path / "made").iterdir()) == []
    result = sri("segment", "--run", "tiny", "--images", str(photos))
    assert (result.exit_code, result.stdout) == (2, "")
