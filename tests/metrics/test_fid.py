"""Frechet distances: their value, their name, and cached features that are right or not used."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from pytorch_fid.fid_score import calculate_frechet_distance

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import features as cache
from sri_cli.metrics.features import real_features
from sri_cli.metrics.fid import (
    PAPERS,
    RANDOM,
    Statistics,
    fid_name,
    frechet_distance,
    small_sample_warning,
    statistics_of,
)
from sri_cli.metrics.image_metrics import distance, images_of_run
from sri_cli.metrics.records import Context, data_facts, model_digest, run_subject
from sri_cli.models.build import build_model

SMALL = ["model.slot_size=16", "model.scene_size=16", "model.slots=3"]
IMAGES = 23


def samples(count: int, num: int = 40, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """float32 [count,num] with unequal scales and a mean."""
    random = np.random.default_rng(seed)
    scales = scale * np.linspace(0.2, 2, num)
    return (random.standard_normal((count, num)) * scales + 0.5).astype(np.float32)


def gaussian(mean: ArrayLike, covariance: ArrayLike) -> Statistics:
    return Statistics(np.asarray(mean, float), np.asarray(covariance, float), 10_000)


# The distance -------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy() -> None:
    rows = samples(300)
    found = statistics_of(rows)
    np.testing.assert_allclose(found.mean, rows.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T.astype(float)), atol=1e-12)
    assert found.count == 300


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3)), np.zeros((0, 3)), np.zeros(3), np.full((2, 3), np.nan)]
)
def test_what_has_no_covariance_is_rejected(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError):
        statistics_of(wrong)


def test_closed_forms() -> None:
    # (1 - 4)^2 + (2 - 5)^2: means and standard deviations apart.
    one = frechet_distance(gaussian([1], [[4]]), gaussian([4], [[25]]))
    assert one == pytest.approx(9 + 9, rel=1e-12)
    first, second = gaussian([0, 1, 2], np.diag([1, 4, 0])), gaussian([0, 0, 0], np.diag([9, 1, 4]))
    diagonal = 1 + 4 + (1 - 3) ** 2 + (2 - 1) ** 2 + (0 - 2) ** 2
    assert frechet_distance(first, second) == pytest.approx(diagonal, rel=1e-9)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    a, b = np.linspace(0.1, 3, 30) ** 2, np.linspace(5, 0.2, 30) ** 2
    first, second = (gaussian(np.zeros(30), turn * values @ turn.T) for values in (a, b))
    commuting = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(commuting, rel=1e-10)
    for angle in (0, 0.3, np.pi / 2):  # of rank 1 each: tr (C1 C2)^(1/2) = |cos|
        line = np.array([np.cos(angle), np.sin(angle)])
        first, second = gaussian([0, 0], np.diag([1, 0])), gaussian([0, 0], np.outer(line, line))
        lines = 2 - 2 * abs(np.cos(angle))
        assert frechet_distance(first, second) == pytest.approx(lines, abs=1e-7)


@pytest.mark.parametrize("count", [2, 15, 40, 41, 400])
def test_equal_sets_are_at_distance_0(count: int) -> None:
    """With fewer samples than features, too."""
    found = statistics_of(samples(count))
    nudged = replace(found, covariance=found.covariance * (1 + 1e-15))
    for other in (found, nudged):
        assert 0 <= frechet_distance(found, other) < 1e-6 * np.trace(found.covariance)


@pytest.mark.parametrize(("count", "other"), [(500, 300), (20, 300), (20, 15)])
def test_symmetric(count: int, other: int) -> None:
    first, second = statistics_of(samples(count)), statistics_of(samples(other, 40, 1, 1.5))
    assert frechet_distance(first, second) > 0.1
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


def test_constant_and_different_features() -> None:
    still = statistics_of(np.full((10, 4), 2.0))
    assert frechet_distance(still, still) == 0
    assert frechet_distance(still, gaussian(np.zeros(4), np.eye(4))) == pytest.approx(16 + 4)
    with pytest.raises(ValueError):
        frechet_distance(still, gaussian([0], [[1]]))


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("num", [2, 5, 64])
def test_as_pytorch_fid(num: int) -> None:
    first, second = statistics_of(samples(900, num)), statistics_of(samples(700, num, 1, 1.3) + 0.2)
    try:
        expected = calculate_frechet_distance(
            first.mean, first.covariance, second.mean, second.covariance
        )
    except (TypeError, ValueError) as error:
        pytest.skip(f"pytorch-fid does not run with this scipy: {error}")
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)


# The name -----------------------------------------------------------------------------------


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
        ("stack-FD-2k", 2000, 2000, {"features": "stack"}),
        ("FD-random-inception", 10_000, 10_000, {"features": RANDOM}),
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
    requests = itertools.product(counts, counts, splits, features, (1.0, 0.999999999), (None, 5))
    plain = [
        request
        for request in requests
        if fid_name(*request[:4], temperature=request[4], slots=request[5]) == "FID"
    ]
    assert plain == [(10_000, 10_000, "test", PAPERS, 1.0, None)]


@pytest.mark.parametrize(("count", "warned"), [(2, True), (2048, True), (2049, False)])
def test_singular_covariances_have_a_warning(count: int, warned: bool) -> None:
    assert (small_sample_warning(count) is not None) == warned


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
        if self.count >= 2 * cache.BLOCK:
            raise Stop
        return super().__call__(images, advance)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BLOCK", 5)


@pytest.fixture(scope="module")
def model() -> TrainedRun:
    recipe = load_recipe("sri-mog-tiny", None, SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(**recipe.model.model_dump())
    return TrainedRun(model.eval(), recipe, 10, Path("runs/tiny"))


@pytest.fixture
def run(model: TrainedRun, tmp_path: Path) -> TrainedRun:
    return replace(model, run_dir=tmp_path / "tiny")


@pytest.fixture
def data(tmp_path: Path, write_small_data: Callable[..., Path]) -> DataFile:
    return DataFile(write_small_data(tmp_path / "demo-towers-32.h5", IMAGES))


def generated(run: TrainedRun, count: int, extractor: Colours, **more: Any) -> np.ndarray:
    return images_of_run(run, count, **more).features(extractor, lambda done: None)


def test_real_features_are_cached_for_this_request_alone(
    data: DataFile, tmp_path: Path, write_small_data: Callable[..., Path]
) -> None:
    other = DataFile(write_small_data(tmp_path / "other" / "demo-towers-32.h5", IMAGES + 1))
    folder = tmp_path / "cache"
    for file, split, count, digest in [
        (data, "val", 12, "a"),
        (data, "test", 12, "a"),
        (data, "test", 13, "a"),
        (data, "test", 12, "b"),
        (other, "test", 12, "a"),
    ]:
        colours, advanced = Colours(digest), []
        found = real_features(file, split, count, colours, folder, advanced.append)
        part = file.split(split)
        chosen = np.array(part.images[part.pick(count)])
        np.testing.assert_array_equal(found, Colours()(chosen))
        again = real_features(file, split, count, colours, folder, advanced.append)
        assert np.array_equal(again, found)
        assert colours.count == count and sum(advanced) == 2 * count
    colours = Colours()
    assert len(real_features(data, "test", 10_000, colours, folder)) == IMAGES  # all there are
    assert len(real_features(data, "test", IMAGES, colours, folder)) == colours.count == IMAGES


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
def test_damaged_blocks_are_computed_again(
    how: str, data: DataFile, tmp_path: Path, damage: Callable[[Path, str], None]
) -> None:
    first = real_features(data, "test", 20, Colours(), tmp_path / "c")
    damage(sorted((tmp_path / "c").rglob("*.npz"))[1], how)
    colours = Colours()
    assert np.array_equal(real_features(data, "test", 20, colours, tmp_path / "c"), first)
    assert colours.count == 5


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((3, 6), np.float32)

    def compute(start: int, stop: int) -> np.ndarray:
        return rows[start:stop]

    def fail(start: int, stop: int) -> np.ndarray:
        raise Stop

    cache.cached_features(tmp_path, {}, Colours(), 3, compute, print)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for i in range(0, len(whole), 3):
        data = bytearray(whole)
        data[i] ^= 0x10
        path.write_bytes(data)
        try:  # some bytes of an archive mean nothing
            found = cache.cached_features(tmp_path, {}, Colours(), 3, fail, print)
        except Stop:
            continue
        assert np.array_equal(found, rows)


def test_pickles_in_a_cache_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "000000.npz", features=np.array([{}], dtype=object), key=np.array("{}"))
    assert cache._load(tmp_path / "000000.npz", "{}") is None


def test_a_full_disk_leaves_no_file(
    data: DataFile, tmp_path: Path, largest_file: Callable[[int], Any]
) -> None:
    with largest_file(100), pytest.raises(SriFailure):
        real_features(data, "test", 20, Colours(), tmp_path / "c")
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


def test_generated_images_are_those_of_sampling(run: TrainedRun) -> None:
    scenes = sample_scenes(run.model, 7, 4, 0.8, seed=4, chunk=7, precision="fp32")
    expected = np.concatenate([quantise(scene.image) for scene in scenes]).astype(int)
    images = images_of_run(run, 7, 4, slots=4, temperature=0.8, precision="fp32")
    found = np.concatenate([images.read(0, 4), images.read(4, 7)])
    assert np.abs(found - expected).max() <= 1  # a level, on its edge
    assert found.dtype == np.uint8 and found.shape == (7, 32, 32, 3)


def test_a_larger_evaluation_begins_with_a_smaller_one(run: TrainedRun) -> None:
    colours = Colours()
    few = generated(run, 7, colours)
    many = generated(run, 12, colours)
    assert colours.count == 7 + 5 + 2  # the block begun is drawn whole
    np.testing.assert_allclose(many[:7], few, atol=1e-2)
    assert np.array_equal(generated(run, 7, colours), many[:7]) and colours.count == 14


@pytest.mark.parametrize(
    "other", [{"slots": 4}, {"temperature": 0.5}, {"seed": 1}, {"precision": "bf16"}]
)
def test_other_scenes_have_their_own_features(other: dict[str, Any], run: TrainedRun) -> None:
    colours, plain = Colours(), {"precision": "fp32"}
    first = generated(run, 5, colours, **plain)
    assert not np.array_equal(generated(run, 5, colours, **(plain | other)), first)
    generated(run, 5, colours, slots=3, **plain)  # the number of slots of training
    assert colours.count == 10


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


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "FD-colours(23/6)"),
        ({"slots": 3}, "FD-colours(23/6)"),  # as in training
        ({"slots": 4, "temperature": 0.5}, "FD-colours(23/6)[K=4,T=0.5]"),
    ],
)
def test_a_distance_has_its_counts_and_its_name(
    more: dict[str, Any], name: str, run: TrainedRun, data: DataFile, tmp_path: Path
) -> None:
    context = Context(run_subject(run), data_facts(data, "test"), 0)
    images = images_of_run(run, 6, **more)
    record = distance("fid", images, data, 30, Colours(), context, tmp_path)
    real = statistics_of(real_features(data, "test", 30, Colours(), tmp_path))
    drawn = statistics_of(generated(run, 6, Colours(), **more))
    assert record["value"] == pytest.approx(frechet_distance(real, drawn), rel=1e-9)
    assert record["name"] == name and record["counts"] == {"real": 23, "generated": 6}


@pytest.mark.parametrize("wrong", [{"count": 0}, {"slots": 0}, {"temperature": 0.0}, {"seed": -1}])
def test_scenes_that_cannot_be_drawn(wrong: dict[str, Any], run: TrainedRun) -> None:
    with pytest.raises(SriError):
        images_of_run(run, **({"count": 5} | wrong))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(count: int, run: TrainedRun, data: DataFile, tmp_path: Path) -> None:
    with pytest.raises(SriError):
        real_features(data, "test", count, Colours(), tmp_path)
    context = Context(run_subject(run), data_facts(data, "test"), 0)
    with pytest.raises(SriError):
        distance("fid", images_of_run(run, 1), data, 5, Colours(), context, tmp_path)
