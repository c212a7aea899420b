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


@pytest.mark.parametrize("count", [5, 40])
def test_few_images_do_not_shift_it_and_the_interval_holds_the_truth(count: int) -> None:
    """One feature, N(0,1) against N(1,1), whose first three moments are 0, 1, 0 and 1, 2, 4.

    E (xy + 1)^3 = E x^3 E y^3 + 3 E x^2 E y^2 + 3 E x E y + 1.
    """
    truth = (0 + 3 + 0 + 1) + (16 + 12 + 3 + 1) - 2 * (0 + 6 + 0 + 1)
    results = [
        kernel_distance(draws(count, 0, seed, 1), draws(count, 1, 10_000 + seed, 1))
        for seed in range(400)
    ]
    values = np.array([result[0] for result in results])
    assert abs(values.mean() - truth) < 4 * values.std() / len(values) ** 0.5
    # Equal distributions: 0 on average, and below it about as often as above.
    null = [
        kernel_distance(draws(count, 0, seed), draws(count, 0, 10_000 + seed))
        for seed in range(400)
    ]
    held = np.mean([low <= 0 <= high for _, low, high in null if low is not None is not high])
    assert held >= 0.93
    means = np.array([result[0] for result in null])
    assert abs(means.mean()) < 4 * means.std() / len(means) ** 0.5 and (means < 0).mean() > 0.3


@pytest.mark.parametrize(
    ("real", "generated"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 4))),
        (np.zeros(5), np.zeros((5, 1))),
        (np.full((3, 3), np.nan), np.zeros((5, 3))),
    ],
)
def test_what_has_no_distance_is_rejected(real: np.ndarray, generated: np.ndarray) -> None:
    with pytest.raises(ValueError):
        kernel_distance(real, generated)


def test_names() -> None:
    assert kid_name() == "KID"
    assert kid_name("val", RANDOM) == "KD-random-inception-val"
