"""Images to measure: those of any tool, read exactly; new scenes, with cached features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import ExifTags, Image

from sri_cli.data.dataset import DataFile
from sri_cli.data.image_files import image_endings
from sri_cli.device import choose_precision
from sri_cli.errors import SriError
from sri_cli.generation.sample import device_of, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import images
from sri_cli.metrics.fid import frechet_distance, statistics_of
from sri_cli.metrics.image_metrics import distance
from sri_cli.metrics.images import images_of_run, open_folder, real_images
from sri_cli.metrics.records import Context, data_facts, model_digest, run_subject
from sri_cli.plotting.samples import write_samples
from tests.damage import damage
from tests.small_data import save_image, write_small_data

NUM_REAL = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


def write_files(folder: Path, ending: str = "png") -> Path:
    for i, image in enumerate(PIXELS):
        save_image(folder / f"{i:03}.{ending}", image, lossless=True)
    return folder


def everything(folder: Path) -> np.ndarray:
    return np.concatenate(list(open_folder(folder).blocks()))


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "webp"])
def test_files_come_in_order_and_exactly(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "BLOCK", 3)
    write_files(tmp_path, ending)
    (tmp_path / "notes.txt").write_text("nothing")
    np.testing.assert_array_equal(everything(tmp_path), PIXELS)
    assert open_folder(tmp_path).size == 16


def test_what_sri_sample_writes(tmp_path: Path) -> None:
    write_files(tmp_path / "png" / "images")
    (tmp_path / "png" / "sample.json").write_text("{}")
    Image.new("RGB", (99, 50)).save(tmp_path / "png" / "grid.png")
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "samples.npz", images=PIXELS)
    (tmp_path / "h5").mkdir()
    with h5py.File(tmp_path / "h5" / "samples.h5", "w") as file:
        file["images"] = PIXELS
    (tmp_path / "columns").mkdir()
    np.save(tmp_path / "columns" / "samples.npy", np.asfortranarray(PIXELS))
    kinds = ("png", "npz", "h5", "columns")
    for kind in kinds:
        np.testing.assert_array_equal(everything(tmp_path / kind), PIXELS)
    assert len({open_folder(tmp_path / kind).sha256() for kind in kinds}) == 1
    fewer = replace(open_folder(tmp_path / "npz"), count=6)
    assert fewer.sha256() != open_folder(tmp_path / "npz").sha256()


def test_scenes_of_sri_sample_say_how_they_were_drawn(run: TrainedRun, tmp_path: Path) -> None:
    usual = run.model.num_slots
    for kind, slots, name in [("png", None, "[T=0.5]"), ("npz", usual + 2, "[K=5,T=0.5]")]:
        out = tmp_path / kind
        write_samples(run, out, num=3, slots=slots, temperature=0.5, file_format=kind)
        source = open_folder(out)
        assert (source.count, source.slots, source.temperature) == (3, slots or usual, 0.5)
        assert source.deviations == name
    for text in ('{"slots": "many"}', "[1]", "{"):
        (tmp_path / "png" / "sample.json").write_text(text)
        assert open_folder(tmp_path / "png").deviations == ""


def test_masks_beside_images_are_no_images(tmp_path: Path) -> None:
    write_files(tmp_path)
    for number in range(3):
        Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / f"00{number}_mask.png")
    np.testing.assert_array_equal(everything(tmp_path), PIXELS)
    (tmp_path / "000.png").rename(tmp_path / "999_gt.png")  # of no image: it is one itself
    assert open_folder(tmp_path).count == len(PIXELS) + 1


def test_grey_and_palette_images_become_colour(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / "a.png")
    Image.fromarray(PIXELS[1]).quantize(8).save(tmp_path / "b.png")
    Image.fromarray(PIXELS[2]).convert("RGBA").save(tmp_path / "c.png")  # wholly opaque
    result = everything(tmp_path)
    np.testing.assert_array_equal(result[0], PIXELS[0, :, :, :1].repeat(3, 2))
    np.testing.assert_array_equal(result[2], PIXELS[2])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "given has no images"),
        ({"0.png": PIXELS[0], "1.png": PIXELS[0, :8, :8]}, "1.png is 8 px, 0.png 16 px"),
        ({"a.png": b"GIF89a, not"}, "a.png"),
        ({"a.png": PIXELS[0, :8]}, "16x8"),
        ({"a.png": np.full((8, 8, 4), 90, np.uint8)}, "a.png"),  # half transparent
        ({"a.png": np.zeros((8, 8), np.uint16)}, "a.png"),
        ({"a.npz": {"images": PIXELS}, "b.npz": {"images": PIXELS}}, "a.npz, b.npz"),
        ({"a.npz": {"masks": PIXELS}}, "a.npz has no"),
        ({"a.npz": {"images": PIXELS / 255}}, "float64"),
        ({"a.npz": {"images": np.array([{}], object)}}, "a.npz cannot be read"),  # pickled
        ({"a.npz": {"images": PIXELS[:0]}}, "a.npz has no"),
        ({"a.npz": b""}, "a.npz cannot be read"),
        ({"a.npz": b"x" * 100}, "a.npz cannot be read"),
        ({"a.npy": b""}, "a.npy cannot be read"),
        ({"a.h5": b"x" * 100}, "a.h5 cannot be read"),
        ({"a.png": b""}, "a.png"),
    ],
)
def test_rejected(tmp_path: Path, files: dict[str, Any], named: str) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif isinstance(content, dict):
            np.savez(folder / name, **content)
        else:
            Image.fromarray(content).save(folder / name)
    with pytest.raises(SriError, match=rf"{named}.*\n."):
        everything(folder)


def test_the_files_of_a_folder_are_those_that_prepare_takes(tmp_path: Path) -> None:
    for i, image in enumerate(PIXELS):
        save_image(tmp_path / f"part-{i // 3}" / f"{i}.tif", image)
    (tmp_path / "._0.png").write_bytes(b"Mac OS X")  # AppleDouble
    (tmp_path / "._a.npz").write_bytes(b"Mac OS X")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.npz").mkdir()
    save_image(tmp_path / "masks" / "0.png", PIXELS[0, :, :, 0])
    np.testing.assert_array_equal(everything(tmp_path), PIXELS)


def test_photos_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(everything(tmp_path)[0], np.rot90(PIXELS[0], -1))


def array_bytes(folder: Path, kind: str) -> bytes:
    path = folder / f"whole.{kind}"
    if kind == "npz":
        np.savez(path, images=PIXELS)
    else:
        np.save(path, PIXELS)
    return path.read_bytes()


@pytest.mark.parametrize(("kind", "name"), [("npy", "a.npy"), ("npy", "a.npz"), ("npz", "a.npy")])
def test_numpy_looks_at_the_content(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / name).write_bytes(array_bytes(tmp_path, kind))
    np.testing.assert_array_equal(everything(tmp_path / "given"), PIXELS)


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("a.png", {}, False),
        ("a.bmp", {}, False),
        ("a.webp", {"lossless": True}, False),
        ("a.webp", {"quality": 90}, True),
        ("a.jpg", {"quality": 95}, True),
        ("jpeg.png", {"format": "JPEG"}, True),  # the content decides
        ("a.tif", {}, False),
        ("a.tif", {"compression": "jpeg"}, True),
        ("a.avif", {}, True),
        ("a.jp2", {}, True),
    ],
)
def test_lossy_files_are_counted(
    tmp_path: Path, name: str, options: dict[str, Any], lossy: bool
) -> None:
    if not options and Path(name).suffix not in image_endings():
        pytest.skip(f"this Pillow has no {name}")
    Image.fromarray(PIXELS[0]).save(tmp_path / "0.png")
    Image.fromarray(PIXELS[1]).save(tmp_path / name, **options)
    source = open_folder(tmp_path)
    assert (source.count, source.num_lossy) == (2, int(lossy))
    assert replace(source, count=1).num_lossy == 0  # --num leaves it out


# Features -----------------------------------------------------------------------------------


class Colours:
    """Six features an image: mean and standard deviation of each channel; counts its images."""

    name, size = "colours", 6

    def __init__(self, digest: str = "c0" * 32) -> None:
        self.digest, self.count = digest, 0

    def __call__(self, images: np.ndarray, advance: Callable[[int], Any] = print) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
        self.count += len(images)
        advance(len(images))
        pixels = images.reshape(len(images), -1, 3) / np.float32(255)
        return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


class Stop(Exception):
    """The evaluation is interrupted."""


class Interrupted(Colours):
    """Stops before the third block."""

    def __call__(self, images: np.ndarray, advance: Callable[[int], Any] = print) -> np.ndarray:
        if self.count >= 10:
            raise Stop
        return super().__call__(images, advance)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "BLOCK", 5)


@pytest.fixture
def run(trained: TrainedRun) -> TrainedRun:
    return trained


@pytest.fixture
def data(tmp_path: Path) -> DataFile:
    return DataFile(write_small_data(tmp_path / "demo-towers-32.h5", NUM_REAL))


def generated(run: TrainedRun, count: int, extractor: Colours, seed: int = 0) -> np.ndarray:
    return images_of_run(run, count, seed).features(extractor, lambda done: None)


def real_features(data: DataFile, split: str, count: int, extractor: Colours, folder: Path) -> Any:
    return real_images(data, split, count, folder).features(extractor, print)


def test_real_features_are_cached_for_this_request_alone(data: DataFile, tmp_path: Path) -> None:
    other = DataFile(write_small_data(tmp_path / "other" / "demo-towers-32.h5", NUM_REAL + 1))
    folder = tmp_path / "cache"
    requests = [(data, "val", 12, "a"), (data, "test", 12, "a"), (data, "test", 13, "a")]
    requests += [(data, "test", 12, "b"), (other, "test", 12, "a")]
    for file, split, count, digest in requests:
        colours, advanced = Colours(digest), []
        source = real_images(file, split, count, folder)
        result = source.features(colours, advanced.append)
        part = file.split(split)
        chosen = np.array(part.images[part.pick(count)])
        np.testing.assert_array_equal(result, Colours()(chosen))
        again = source.features(colours, advanced.append)
        assert np.array_equal(again, result)
        assert colours.count == count and sum(advanced) == 2 * count
    colours = Colours()
    assert len(real_features(data, "test", 10_000, colours, folder)) == NUM_REAL  # all there are
    assert len(real_features(data, "test", NUM_REAL, colours, folder)) == colours.count == NUM_REAL


def test_interrupted_evaluations_continue(data: DataFile, run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        real_features(data, "test", 20, Interrupted(), tmp_path / "a")
    with pytest.raises(Stop):
        generated(run, 18, Interrupted())
    colours = Colours()
    real = real_features(data, "test", 20, colours, tmp_path / "a")
    assert colours.count == 10
    assert np.array_equal(real, real_features(data, "test", 20, Colours(), tmp_path / "b"))
    drawn = generated(run, 18, colours)
    assert colours.count == 10 + 8
    elsewhere = replace(run, run_dir=tmp_path / "elsewhere")
    assert np.array_equal(drawn, generated(elsewhere, 18, Colours()))


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_damaged_blocks_are_computed_again(how: str, data: DataFile, tmp_path: Path) -> None:
    first = real_features(data, "test", 20, Colours(), tmp_path / "c")
    damage(sorted((tmp_path / "c").rglob("*.npz"))[1], how)
    colours = Colours()
    assert np.array_equal(real_features(data, "test", 20, colours, tmp_path / "c"), first)
    assert colours.count == 5


def test_a_cache_that_cannot_be_written_costs_no_value(
    data: DataFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")  # root may write to any folder
    result = real_features(data, "test", 12, colours := Colours(), tmp_path / "file" / "c")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Note: ") and "not cached" in line
    assert np.array_equal(result, real_features(data, "test", 12, Colours(), tmp_path / "d"))
    assert colours.count == 12


def test_pickles_in_a_cache_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "000000.npz", features=np.array([{}], dtype=object), key=np.array("{}"))
    assert images._load(tmp_path / "000000.npz", "{}") is None


def test_generated_images_are_those_of_sampling(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "choose_precision", lambda *_: "fp32")
    sampled = sample_scenes(run.model, 7, run.model.num_slots, seed=4, chunk=7, precision="fp32")
    expected = np.concatenate([quantise(scene.image) for scene in sampled]).astype(int)
    scenes = images_of_run(run, 7, 4)
    result = np.concatenate([scenes.read(0, 4), scenes.read(4, 7)])
    assert np.abs(result - expected).max() <= 1  # a level, on its edge
    assert result.dtype == np.uint8 and result.shape == (7, 32, 32, 3)


def test_a_larger_evaluation_begins_with_a_smaller_one(run: TrainedRun) -> None:
    colours = Colours()
    few = generated(run, 7, colours)
    many = generated(run, 12, colours)
    assert colours.count == 7 + 5 + 2  # the block begun is drawn whole
    np.testing.assert_allclose(many[:7], few, atol=1e-2)
    assert np.array_equal(generated(run, 7, colours), many[:7]) and colours.count == 14


def test_other_scenes_have_their_own_features(
    run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = Colours()
    first = generated(run, 5, colours)
    assert not np.array_equal(generated(run, 5, colours, seed=1), first)
    usual = choose_precision("auto", device_of(run.model))
    other = "bf16" if usual == "fp32" else "fp32"
    monkeypatch.setattr(images, "choose_precision", lambda *_: other)
    assert not np.array_equal(generated(run, 5, colours), first) and colours.count == 15


def test_a_model_is_its_weights_and_its_recipe(run: TrainedRun, tmp_path: Path) -> None:
    digest = model_digest(run)
    assert model_digest(replace(run, run_dir=tmp_path, step=11)) == digest
    section = run.recipe.model.model_copy(update={"slots": 4})
    recipe = run.recipe.model_copy(update={"model": section})
    assert model_digest(replace(run, recipe=recipe)) != digest
    weight = next(run.model.parameters())
    before = weight.data.clone()
    weight.data.view(-1)[0] += 1e-3
    changed = model_digest(run)
    weight.data.copy_(before)
    assert changed != digest == model_digest(run)


# The measurement ----------------------------------------------------------------------------


@pytest.mark.parametrize("drawn_with", ["", "[K=4,T=0.5]"])
def test_a_distance_has_its_counts_and_its_name(
    drawn_with: str, run: TrainedRun, data: DataFile, tmp_path: Path
) -> None:
    context = Context(run_subject(run), data_facts(data, "test"), 0)
    scenes = replace(images_of_run(run, 6), deviations=drawn_with)
    real = real_images(data, "test", 30, tmp_path)
    record = distance("fid", scenes, real, data, Colours(), context)
    both = (real.features(Colours(), print), generated(run, 6, Colours()))
    expected = frechet_distance(*map(statistics_of, both))
    assert record["value"] == pytest.approx(expected, rel=1e-9)
    assert record["name"] == f"FD-colours(23/6){drawn_with}" and record["counts"] == {
        "real": 23,
        "generated": 6,
    }
