"""What a distance is called, that real and generated statistics are kept, and never a wrong one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import feature_cache
from sri_cli.metrics.extractor import PAPERS, RANDOM
from sri_cli.metrics.fid import fid_name, measure_distance, too_few
from sri_cli.metrics.fid_features import (
    draw_pictures,
    generated_features,
    reference_statistics,
    statistics_of,
)
from sri_cli.metrics.frechet import frechet_distance, with_root
from sri_cli.metrics.generated import Scenes, distance_measurement
from sri_cli.metrics.inception import random_inception
from sri_cli.metrics.records import Context, data_facts, model_digest, run_subject
from sri_cli.models.build import build_model

SMALL = ["model.slot_size=16", "model.scene_size=16", "model.slots=3"]
IMAGES = 23


class Colours:
    """Six features a picture: mean and standard deviation of each channel; counts its work."""

    name, size = "colours", 6

    def __init__(self, digest: str = "c0" * 32) -> None:
        self.digest, self.seen = digest, 0

    def __call__(self, images: np.ndarray, advance: Callable[[int], Any] = print) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
        self.seen += len(images)
        advance(len(images))
        pixels = images.reshape(len(images), -1, 3) / np.float32(255)
        return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


class Stop(Exception):
    """The evaluation is interrupted."""


class Interrupted(Colours):
    """Stops before the third block."""

    def __call__(self, images: np.ndarray, advance: Callable[[int], Any] = print) -> np.ndarray:
        if self.seen >= 2 * feature_cache.BLOCK:
            raise Stop
        return super().__call__(images, advance)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "BLOCK", 5)


@pytest.fixture(scope="module")
def loaded() -> TrainedRun:
    recipe = load_recipe("sri-mog-tiny", None, SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(**recipe.model.model_dump())
    return TrainedRun(model.eval(), recipe, 10, Path("runs/tiny"))


@pytest.fixture
def data(tmp_path: Path, write_small_data: Callable[..., Path]) -> DataFile:
    return DataFile(write_small_data(tmp_path / "demo-towers-32.h5", IMAGES))


def stack(blocks: Sequence[np.ndarray] | Any) -> np.ndarray:
    return np.concatenate(list(blocks))


# Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "real", "generated", "more"),
    [
        ("FID", 10_000, 10_000, {}),
        ("FID-2k", 2000, 2000, {}),
        ("FID-50k", 50_000, 50_000, {}),
        ("FID(5012/10000)", 5012, 10_000, {}),
        ("FID(10000/5000)", 10_000, 5000, {}),
        ("FID(1500/1500)", 1500, 1500, {}),
        ("FID(9999/9999)", 9999, 9999, {}),
        ("FID-val", 10_000, 10_000, {"split": "val"}),
        ("FID-train-2k", 2000, 2000, {"split": "train"}),
        ("FID-val(320/10000)", 320, 10_000, {"split": "val"}),
        ("FD-random-inception", 10_000, 10_000, {"features": RANDOM}),
        ("FD-random-inception-2k", 2000, 2000, {"features": RANDOM}),
        ("FD-random-inception-val(7/9)", 7, 9, {"features": RANDOM, "split": "val"}),
        ("FID[T=0.7]", 10_000, 10_000, {"temperature": 0.7}),
        ("FID[K=7]", 10_000, 10_000, {"slots": 7}),
        ("FID-2k[K=7,T=0.5]", 2000, 2000, {"slots": 7, "temperature": 0.5}),
    ],
)
def test_names(name: str, real: int, generated: int, more: dict[str, Any]) -> None:
    assert fid_name(real, generated, **more) == name


def test_plain_fid_is_the_papers_protocol_alone() -> None:
    counts, splits, features = (10_000, 9999, 2000), ("test", "val"), (PAPERS, RANDOM)
    others = itertools.product(counts, counts, splits, features, (1.0, 0.999999999), (None, 5))
    plain = [
        request
        for request in others
        if fid_name(*request[:4], temperature=request[4], slots=request[5]) == "FID"
    ]
    assert plain == [(10_000, 10_000, "test", PAPERS, 1.0, None)]


@pytest.mark.parametrize(("count", "warned"), [(2, True), (2048, True), (2049, False)])
def test_a_singular_covariance_is_warned_of(count: int, warned: bool) -> None:
    warning = too_few(count)
    assert (warning is not None) == warned
    assert warning is None or f"{count:,} images" in warning and "\n" not in warning


# Real images --------------------------------------------------------------------------------


def test_reference_is_of_the_chosen_images(data: DataFile, tmp_path: Path) -> None:
    told: list[int] = []
    found = reference_statistics(data, "val", 12, Colours(), tmp_path / "c", told.append)
    part = data.split("val")
    features = Colours()(np.array(part.images[part.pick(12)])).astype(float)
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-6)
    assert found.count == sum(told) == 12
    assert found.root is not None
    np.testing.assert_allclose(found.root.T @ found.root, found.covariance, atol=1e-12)


def test_reference_is_kept(data: DataFile, tmp_path: Path) -> None:
    colours, cache = Colours(), tmp_path / "c"
    first = reference_statistics(data, "test", 10_000, colours, cache)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]  # its features are gone
    told: list[int] = []
    again = reference_statistics(data, "test", 10_000, colours, cache, told.append)
    assert colours.seen == IMAGES == sum(told) == again.count
    for name in ("mean", "covariance", "root"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    reference_statistics(data, "test", IMAGES, colours, cache)  # all there are, by another name
    assert colours.seen == IMAGES


def test_any_other_request_has_its_own(
    data: DataFile, tmp_path: Path, write_small_data: Callable[..., Path]
) -> None:
    other = DataFile(write_small_data(tmp_path / "other" / "demo-towers-32.h5", IMAGES + 1))
    requests = [
        (data, "test", 20, "a"),
        (data, "val", 20, "a"),
        (data, "test", 21, "a"),
        (data, "test", 20, "b"),
        (other, "test", 20, "a"),
    ]
    for file, split, count, digest in requests:
        colours = Colours(digest)
        reference_statistics(file, split, count, colours, tmp_path / "c")
        assert colours.seen == count
    assert len(list((tmp_path / "c").iterdir())) == len(requests)


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_reference_is_computed_anew(
    how: str, data: DataFile, tmp_path: Path, damage: Callable[[Path, str], None]
) -> None:
    cache = tmp_path / "c"
    first = reference_statistics(data, "test", 20, Colours(), cache)
    [path] = cache.iterdir()
    whole = path.read_bytes()
    damage(path, how)
    colours = Colours()
    again = reference_statistics(data, "test", 20, colours, cache)
    assert colours.seen == 20 and np.array_equal(first.covariance, again.covariance)
    assert path.stat().st_size == len(whole)


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    path, key = tmp_path / "a.npz", {"what": 1}
    arrays = {"mean": np.arange(12.0), "root": np.eye(3)}
    feature_cache.store_arrays(path, key, arrays)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0x10
        path.write_bytes(data)
        kept = feature_cache.load_arrays(path, key)
        # Some bytes of an archive mean nothing; what is read is right or not read at all.
        assert not kept or all(np.array_equal(kept[name], arrays[name]) for name in arrays)


def test_the_key_inside_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    feature_cache.store_arrays(path, {"seed": 1}, {"mean": np.ones(3)})
    assert feature_cache.load_arrays(path, {"seed": 1})["mean"].tolist() == [1, 1, 1]
    assert feature_cache.load_arrays(path, {"seed": 2}) == {}


def test_pickles_in_a_kept_file_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mean=np.array([{}], dtype=object), checksum=np.array("x"))
    assert feature_cache.load_arrays(path, {}) == {}


def test_an_interrupted_reference_goes_on(data: DataFile, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        reference_statistics(data, "test", 20, Interrupted(), tmp_path / "c")
    colours, told = Colours(), []
    found = reference_statistics(data, "test", 20, colours, tmp_path / "c", told.append)
    whole = reference_statistics(data, "test", 20, Colours(), tmp_path / "d")
    assert colours.seen == 10 and told == [5] * 4
    assert np.array_equal(found.covariance, whole.covariance)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_real_images_are_refused(count: int, data: DataFile, tmp_path: Path) -> None:
    with pytest.raises(SriError, match="2 or more"):
        reference_statistics(data, "test", count, Colours(), tmp_path)


def test_a_full_disk_is_told(
    data: DataFile, tmp_path: Path, largest_file: Callable[[int], Any]
) -> None:
    with largest_file(100), pytest.raises(SriFailure, match="could not write"):
        reference_statistics(data, "test", 20, Colours(), tmp_path / "c")
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


# Generated images ---------------------------------------------------------------------------


def test_pictures_are_those_of_sampling(loaded: TrainedRun) -> None:
    scenes = sample_scenes(loaded.model, 7, 3, 0.8, seed=4, chunk=7, precision="fp32")
    expected = np.concatenate([quantise(scene.image) for scene in scenes]).astype(int)
    first = draw_pictures(loaded.model, 0, 4, 3, 0.8, seed=4, precision="fp32")
    rest = draw_pictures(loaded.model, 4, 3, 3, 0.8, seed=4, precision="fp32")
    assert np.abs(np.concatenate([first, rest]) - expected).max() <= 1  # a level, on its edge
    assert first.dtype == np.uint8 and first.shape == (4, 32, 32, 3)


def test_generated_features_are_kept_and_extended(loaded: TrainedRun, tmp_path: Path) -> None:
    colours, told = Colours(), []
    few = stack(generated_features(loaded, 7, colours, tmp_path))
    again = stack(generated_features(loaded, 7, colours, tmp_path, advance=told.append))
    assert colours.seen == sum(told) == 7 and np.array_equal(few, again)
    many = stack(generated_features(loaded, 12, colours, tmp_path))
    assert colours.seen == 7 + 5 + 2  # the block begun is drawn whole
    np.testing.assert_allclose(many[:7], few, atol=1e-2)
    assert np.array_equal(stack(generated_features(loaded, 7, colours, tmp_path)), many[:7])
    assert colours.seen == 14 and many.shape == (12, 6)


def test_an_interrupted_evaluation_goes_on(loaded: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        stack(generated_features(loaded, 18, Interrupted(), tmp_path / "a"))
    colours, told = Colours(), []
    found = stack(generated_features(loaded, 18, colours, tmp_path / "a", advance=told.append))
    assert colours.seen == 8 and told == [5, 5, 5, 3]
    assert np.array_equal(found, stack(generated_features(loaded, 18, Colours(), tmp_path / "b")))


@pytest.mark.parametrize(
    "other", [{"slots": 4}, {"temperature": 0.5}, {"seed": 1}, {"precision": "bf16"}]
)
def test_other_scenes_have_their_own_features(
    other: dict[str, Any], loaded: TrainedRun, tmp_path: Path
) -> None:
    colours = Colours()
    first = stack(generated_features(loaded, 5, colours, tmp_path, precision="fp32"))
    request = {"precision": "fp32"} | other
    second = stack(generated_features(loaded, 5, colours, tmp_path, **request))
    assert not np.array_equal(second, first)
    stack(generated_features(loaded, 5, Colours("d1" * 32), tmp_path, precision="fp32"))
    stack(generated_features(loaded, 5, colours, tmp_path, slots=3, precision="fp32"))
    assert colours.seen == 10  # the training's K has no block of its own


def test_a_model_is_its_weights_and_its_recipe(loaded: TrainedRun, tmp_path: Path) -> None:
    digest = model_digest(loaded)
    assert model_digest(replace(loaded, run_dir=tmp_path, step=11)) == digest
    section = loaded.recipe.model.model_copy(update={"slots": 4})
    recipe = loaded.recipe.model_copy(update={"model": section})
    assert model_digest(replace(loaded, recipe=recipe)) != digest
    weight = next(loaded.model.parameters())
    kept = weight.data.clone()
    weight.data.view(-1)[0] += 1e-3
    changed = model_digest(loaded)
    weight.data.copy_(kept)
    assert changed != digest == model_digest(loaded)


def test_a_damaged_block_is_drawn_again(
    loaded: TrainedRun, tmp_path: Path, damage: Callable[[Path, str], None]
) -> None:
    colours = Colours()
    first = stack(generated_features(loaded, 10, colours, tmp_path))
    damage(sorted(tmp_path.rglob("*.npz"))[1], "flipped")
    assert np.array_equal(stack(generated_features(loaded, 10, colours, tmp_path)), first)
    assert colours.seen == 15


# The whole ----------------------------------------------------------------------------------


def test_a_distance_comes_with_its_counts(
    loaded: TrainedRun, data: DataFile, tmp_path: Path
) -> None:
    told: list[int] = []
    drawn = generated_features(loaded, 30, Colours(), tmp_path, advance=told.append)
    found = measure_distance(drawn, data, Colours(), tmp_path, num_real=30, advance=told.append)
    real = reference_statistics(data, "test", 30, Colours(), tmp_path / "other")
    again = statistics_of(generated_features(loaded, 30, Colours(), tmp_path / "other"), 6)
    assert found.value == pytest.approx(frechet_distance(real, again), rel=1e-9)
    assert (found.real, found.generated) == (23, 30) and sum(told) == 53


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "FD-colours(23/6)"),
        ({"slots": 3}, "FD-colours(23/6)"),  # the training's
        ({"slots": 4, "temperature": 0.5}, "FD-colours(23/6)[K=4,T=0.5]"),
    ],
)
def test_a_measurement_says_how_scenes_were_drawn(
    more: dict[str, Any], name: str, loaded: TrainedRun, data: DataFile, tmp_path: Path
) -> None:
    scenes = Scenes(loaded, 6, 0, tmp_path / "drawn", **more)
    context = Context(run_subject(loaded), data_facts(data, "test"), 0)
    record = distance_measurement("fid", scenes, 30, context, data, Colours(), tmp_path, print)
    assert record["name"] == name and record["counts"] == {"real": 23, "generated": 6}
    assert record["slots"] == more.get("slots", 3)
    assert record["temperature"] == more.get("temperature", 1.0)
    assert "6 images are too few" in record["warning"]
    assert np.concatenate(list(scenes.blocks())).shape == (6, 32, 32, 3)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [({"count": 0}, "--num"), ({"slots": 0}, "--slots"), ({"temperature": 0.0}, "--temp")],
)
def test_scenes_that_cannot_be_drawn(
    wrong: dict[str, Any], what: str, loaded: TrainedRun, tmp_path: Path
) -> None:
    with pytest.raises(SriError, match=what):
        Scenes(loaded, **({"count": 5, "seed": 0, "cache_dir": tmp_path} | wrong))


def test_requests_that_mean_nothing(loaded: TrainedRun, data: DataFile, tmp_path: Path) -> None:
    colours = Colours()
    context = Context(run_subject(loaded), data_facts(data, "test"), 0)
    one = Scenes(loaded, 1, 0, tmp_path)
    with pytest.raises(SriError, match="1 generated picture: .* 2 or more"):
        distance_measurement("fid", one, 30, context, data, colours, tmp_path, print)
    with pytest.raises(SriError, match="1 test image .* 2 or more"):
        reference_statistics(data, "test", 1, colours, tmp_path)
    with pytest.raises(SriError, match="tset"):
        reference_statistics(data, "tset", 5, colours, tmp_path)
    assert colours.seen == 0


def test_the_whole_path_with_inception(loaded: TrainedRun, data: DataFile, tmp_path: Path) -> None:
    network = random_inception()
    drawn = generated_features(loaded, 6, network, tmp_path / "drawn")
    assert measure_distance(drawn, data, network, tmp_path, num_real=6).value > 0
    real = reference_statistics(data, "test", 6, network, tmp_path)
    assert real.root is not None and real.root.shape == (5, 2048)
    assert frechet_distance(real, with_root(real)) < 1e-6 * np.trace(real.covariance)
