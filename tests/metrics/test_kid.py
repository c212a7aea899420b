"""The kernel distance: against closed forms, scikit-learn's kernel and a literal jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from sri_cli.metrics import kid
from sri_cli.metrics.fid import RANDOM
from sri_cli.metrics.kid import kernel_distance, kid_name


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


def test_by_hand() -> None:
    # k(0,2) = 1, k(1,3) = 64; k(0,1) = k(0,3) = 1, k(2,1) = 27, k(2,3) = 343.
    value, low, high = kernel_distance([[0], [2]], [[1], [3]])
    assert value == pytest.approx(1 + 64 - 2 * (1 + 1 + 27 + 343) / 4, abs=1e-12)
    assert low is high is None  # of two images nothing can be left out


@pytest.mark.parametrize(("m", "n", "rows"), [(12, 12, 512), (30, 7, 4), (3, 40, 1)])
def test_value_and_interval_are_those_of_the_definition(
    m: int, n: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kid, "ROWS", rows)
    x, y = draws(m, 0, 1).astype(float), draws(n, 0.3, 2).astype(float)
    value, low, high = kernel_distance(x, y)
    assert value == pytest.approx(plain(x, y), rel=1e-12)
    without_x = [plain(np.delete(x, i, 0), y) for i in range(m)]
    without_y = [plain(x, np.delete(y, j, 0)) for j in range(n)]
    error = ((m - 1) * np.var(without_x) + (n - 1) * np.var(without_y)) ** 0.5
    assert low is not None and high is not None
    quantile = {12: 2.200985, 7: 2.446912, 3: 4.302653}[min(m, n)]  # of t with one less
    assert [low, high] == pytest.approx([value - quantile * error, value + quantile * error])


def test_names() -> None:
    assert kid_name() == "KID"
    assert kid_name("val", RANDOM) == "KD-random-inception-val"
