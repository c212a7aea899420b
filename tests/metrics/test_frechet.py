"""The Frechet distance against closed forms, and moments against numpy, however samples come."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance

from sri_cli.metrics.frechet import BLOCK, Moments, Statistics, frechet_distance, with_root


def moments(features: np.ndarray, sizes: list[int]) -> Statistics:
    """Statistics of features that come in chunks of these sizes, and then the rest."""
    found = Moments(features.shape[1])
    for chunk in np.split(features, np.cumsum(sizes)):
        found.add(chunk)
    return found.statistics()


def gaussian(mean: object, covariance: object) -> Statistics:
    """As if from very many samples."""
    return Statistics(np.array(mean, float), np.array(covariance, float), 10**9)


def features(count: int, num: int = 40, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Correlated samples [count,num] whose mean is far from 0, as that of Inception's is."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((num, num)) / np.sqrt(num)
    return 3 + scale * random.standard_normal((count, num)) @ mixing


def test_moments_are_those_of_numpy() -> None:
    samples = features(3 * BLOCK + 77)
    found = moments(samples, [1, BLOCK, 700])
    np.testing.assert_allclose(found.mean, samples.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(
        found.covariance, np.cov(samples, rowvar=False), rtol=1e-10, atol=1e-12
    )
    assert found.count == len(samples) and found.mean.dtype == found.covariance.dtype == np.float64


def test_a_far_mean_costs_no_precision() -> None:
    samples = features(1200) + 1e6  # sums of squares would keep 4 digits of the covariance
    expected = np.cov(samples - 1e6, rowvar=False)
    np.testing.assert_allclose(moments(samples, [100]).covariance, expected, atol=1e-9)


@pytest.mark.parametrize("sizes", [[1] * 30, [BLOCK], [BLOCK + 1, 3], [0, 999]])
def test_chunks_change_no_bit(sizes: list[int]) -> None:
    samples = features(BLOCK + 500)
    whole, parts = moments(samples, []), moments(samples, sizes)
    assert np.array_equal(whole.mean, parts.mean)
    assert np.array_equal(whole.covariance, parts.covariance)


def test_looking_early_changes_nothing() -> None:
    samples, found = features(300), Moments(40)
    found.add(samples[:100].astype(np.float32))
    early = found.statistics()
    kept = early.covariance.copy()
    found.add(samples[100:])
    assert early.count == 100 and np.array_equal(early.covariance, kept)
    np.testing.assert_allclose(found.statistics().covariance, np.cov(samples.T), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 5)), np.zeros(4), np.full((2, 4), np.nan), np.full((2, 4), np.inf)]
)
def test_what_is_no_feature_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="feature"):
        Moments(4).add(wrong)


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_has_no_covariance(count: int) -> None:
    with pytest.raises(ValueError, match="2 samples"):
        moments(features(count), [])


def test_one_dimension() -> None:
    # (1 - 4)^2 + (2 - 5)^2: means and standard deviations apart.
    distance = frechet_distance(gaussian([1], [[4]]), gaussian([4], [[25]]))
    assert distance == pytest.approx(9 + 9, rel=1e-12)


def test_diagonal_covariances() -> None:
    first, second = gaussian([0, 1, 2], np.diag([1, 4, 0])), gaussian([0, 0, 0], np.diag([9, 1, 4]))
    expected = 1 + 4 + (1 - 3) ** 2 + (2 - 1) ** 2 + (0 - 2) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_commuting_covariances() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    a, b = np.linspace(0.1, 3, 30) ** 2, np.linspace(5, 0.2, 30) ** 2
    first, second = (gaussian(np.zeros(30), turn * values @ turn.T) for values in (a, b))
    expected = ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_two_lines_in_a_plane() -> None:
    # Rank 1 each: tr (C1 C2)^(1/2) = |cos| of the angle between them.
    for angle in (0, 0.3, np.pi / 2):
        line = np.array([np.cos(angle), np.sin(angle)])
        first, second = gaussian([0, 0], np.diag([1, 0])), gaussian([0, 0], np.outer(line, line))
        expected = 2 - 2 * abs(np.cos(angle))
        assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("count", [2, 15, 40, 41, 400])
def test_equal_sets_are_at_distance_0(count: int) -> None:
    """With fewer samples than features, too."""
    found = moments(features(count), [])
    assert 0 <= frechet_distance(found, found) < 1e-6 * np.trace(found.covariance)


def test_never_below_0() -> None:
    distances = []
    for seed in range(40):
        samples = moments(features(50, 60, seed), [])
        nudged = Statistics(samples.mean, samples.covariance * (1 + 1e-15), 50)
        distances.append(frechet_distance(samples, nudged))
    assert min(distances) == 0.0 and max(distances) < 1e-5  # round-off goes both ways


@pytest.mark.parametrize(("count", "other"), [(500, 300), (20, 300), (20, 15)])
def test_symmetric_with_any_root(count: int, other: int) -> None:
    first, second = moments(features(count), []), moments(features(other, seed=1, scale=1.5), [])
    expected = frechet_distance(first, second)
    assert np.isfinite(expected) and expected > 0.1
    for a, b in ((second, first), (with_root(first), second), (first, with_root(second))):
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_root_is_one() -> None:
    found = with_root(moments(features(20), []))
    assert found.root is not None and found.root.shape == (19, 40)  # no row for what is 0
    np.testing.assert_allclose(found.root.T @ found.root, found.covariance, atol=1e-12)


def test_a_root_is_not_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = with_root(moments(features(90), [])), moments(features(80, seed=1), [])
    monkeypatch.setattr(np.linalg, "eigh", None)
    assert frechet_distance(first, second) == frechet_distance(second, first) > 0


def test_constant_features() -> None:
    still = moments(np.full((10, 4), 2.0), [])
    assert frechet_distance(still, still) == 0
    assert frechet_distance(still, gaussian(np.zeros(4), np.eye(4))) == pytest.approx(16 + 4)


def test_different_features_are_refused() -> None:
    with pytest.raises(ValueError, match="3 features against 1"):
        frechet_distance(gaussian(np.zeros(3), np.eye(3)), gaussian([0], [[1]]))


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("num", [2, 5, 64])
def test_as_pytorch_fid(num: int) -> None:
    first, second = moments(features(900, num), []), moments(features(700, num, 1, 1.3) + 0.2, [])
    try:
        expected = calculate_frechet_distance(
            first.mean, first.covariance, second.mean, second.covariance
        )
    except (TypeError, ValueError) as error:
        pytest.skip(f"pytorch-fid does not run with this scipy: {error}")
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
