"""Frechet and kernel distances: their values against closed forms, and their names."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import ArrayLike
from sklearn.metrics.pairwise import polynomial_kernel

from sri_cli.metrics import fid
from sri_cli.metrics.fid import (
    PAPERS,
    RANDOM,
    Statistics,
    deviations,
    fid_name,
    frechet_distance,
    kernel_distance,
    kid_name,
    small_sample_warning,
    statistics_of,
)


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
    result = statistics_of(rows)
    np.testing.assert_allclose(result.mean, rows.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance, np.cov(rows.T.astype(float)), atol=1e-12)
    assert result.count == 300


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
    result = statistics_of(samples(count))
    nudged = replace(result, covariance=result.covariance * (1 + 1e-15))
    for other in (result, nudged):
        assert 0 <= frechet_distance(result, other) < 1e-6 * np.trace(result.covariance)


@pytest.mark.parametrize(("count", "other"), [(500, 300), (20, 300), (20, 15)])
def test_symmetric(count: int, other: int) -> None:
    first, second = statistics_of(samples(count)), statistics_of(samples(other, 40, 1, 1.5))
    assert frechet_distance(first, second) > 0.1
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))


@pytest.mark.parametrize("num", [2, 5, 64])
def test_as_the_formula_with_the_root_of_a_matrix(num: int) -> None:
    """As pytorch-fid computes it, whose own function needs an older SciPy."""
    first, second = statistics_of(samples(900, num)), statistics_of(samples(700, num, 1, 1.3) + 0.2)
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = np.square(first.mean - second.mean).sum()
    expected += np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)


# The name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "real", "generated", "more"),
    [
        ("FID", 10_000, 10_000, {}),
        ("FID-2k", 2000, 2000, {}),
        ("FID(5012/10000)", 5012, 10_000, {}),
        ("FID(10000/5000)", 10_000, 5000, {}),
        ("FID-val", 10_000, 10_000, {"split": "val"}),
        ("FID-train-2k", 2000, 2000, {"split": "train"}),
        ("FID-val(320/10000)", 320, 10_000, {"split": "val"}),
        ("stack-FD-2k", 2000, 2000, {"features": "stack"}),
        ("FD-random-inception", 10_000, 10_000, {"features": RANDOM}),
        ("FD-random-inception-val(7/9)", 7, 9, {"features": RANDOM, "split": "val"}),
    ],
)
def test_names(name: str, real: int, generated: int, more: dict[str, Any]) -> None:
    assert fid_name(real, generated, **more) == name


def test_plain_fid_is_the_papers_protocol_alone() -> None:
    counts, splits, features = (10_000, 9999, 2000), ("test", "val"), (PAPERS, RANDOM)
    requests = itertools.product(counts, counts, splits, features)
    plain = [request for request in requests if fid_name(*request) == "FID"]
    assert plain == [(10_000, 10_000, "test", PAPERS)]


def test_deviations_are_named() -> None:
    assert deviations(1.0, None) == "" != deviations(0.999999999, None)
    assert deviations(0.7, None) == "[T=0.7]" and deviations(0.5, 7) == "[K=7,T=0.5]"


@pytest.mark.parametrize(("count", "warned"), [(2, True), (2048, True), (2049, False)])
def test_singular_covariances_have_a_warning(count: int, warned: bool) -> None:
    assert (small_sample_warning(count) is not None) == warned


# The kernel distance ------------------------------------------------------------------------


def plain(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, with scikit-learn's kernel: (x.y / F + 1)^3 is its default of degree 3."""
    m, n = len(x), len(y)
    within = sum(
        (polynomial_kernel(rows, degree=3) * (1 - np.eye(len(rows)))).sum()
        / (len(rows) * (len(rows) - 1))
        for rows in (x, y)
    )
    return float(within - 2 * polynomial_kernel(x, y, degree=3).sum() / (m * n))


def draws(count: int, shift: float, seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, size)).astype(np.float32)


def test_kernel_distance_by_hand() -> None:
    # k(0,2) = 1, k(1,3) = 64; k(0,1) = k(0,3) = 1, k(2,1) = 27, k(2,3) = 343.
    value, low, high = kernel_distance([[0], [2]], [[1], [3]])
    assert value == pytest.approx(1 + 64 - 2 * (1 + 1 + 27 + 343) / 4, abs=1e-12)
    assert low is high is None  # of two images nothing can be left out


@pytest.mark.parametrize(("m", "n", "rows"), [(12, 12, 512), (30, 7, 4), (3, 40, 1)])
def test_value_and_interval_are_those_of_the_definition(
    m: int, n: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fid, "ROWS", rows)
    x, y = draws(m, 0, 1).astype(float), draws(n, 0.3, 2).astype(float)
    value, low, high = kernel_distance(x, y)
    assert value == pytest.approx(plain(x, y), rel=1e-12)
    without_x = [plain(np.delete(x, i, 0), y) for i in range(m)]
    without_y = [plain(x, np.delete(y, j, 0)) for j in range(n)]
    error = ((m - 1) * np.var(without_x) + (n - 1) * np.var(without_y)) ** 0.5
    quantile = {12: 2.200985, 7: 2.446912, 3: 4.302653}[min(m, n)]  # of t with one less
    assert [low, high] == pytest.approx([value - quantile * error, value + quantile * error])


def test_names_of_kernel_distances() -> None:
    assert kid_name() == "KID"
    assert kid_name("val", RANDOM) == "KD-random-inception-val"
