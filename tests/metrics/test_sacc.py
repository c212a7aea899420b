"""Intervals, agreement and tests of S-Acc against cases solved by hand or printed in papers."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from sri_cli.metrics.sacc import (
    agreement,
    cohen_kappa,
    difference,
    fisher,
    fleiss_kappa,
    wilson,
)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_wilson_as_scipy(count: int) -> None:
    for yes in {0, 1, count // 2, count - 1, count}:
        other = binomtest(yes, count).proportion_ci(0.95, "wilson")
        assert wilson(yes, count) == pytest.approx((other.low, other.high), abs=1e-6)


def test_wilson_of_a_mean_over_raters() -> None:
    assert wilson(0, 0) is None
    low, high = wilson(9.5, 20)  # type: ignore[misc]
    assert wilson(9, 20)[0] < low < 9.5 / 20 < high < wilson(10, 20)[1]  # type: ignore[index]


def test_difference_is_newcombes_example() -> None:
    # Newcombe (1998), Table II, contrast (a), method 10: 56/70 and 48/80.
    result = difference(56, 70, 48, 80)
    assert result is not None
    assert result[0] == pytest.approx(0.2)
    assert result[1] == pytest.approx((0.0524, 0.3339), abs=5e-5)
    turned = difference(48, 80, 56, 70)
    assert turned is not None and turned[0] == pytest.approx(-0.2)
    assert turned[1] == pytest.approx((-result[1][1], -result[1][0]))
    assert difference(0, 0, 1, 2) is None and difference(1, 2, 0, 0) is None


def test_fisher_by_hand() -> None:
    # The lady tasting tea, 3 of 4 right: (1 + 16 + 16 + 1) / 70 are as unlikely.
    assert fisher(3, 1, 1, 3) == pytest.approx(34 / 70)
    assert fisher(5, 5, 5, 5) == pytest.approx(1)


def test_cohen_by_hand() -> None:
    # 20 both yes, 5 and 10 apart, 15 both no: observed 0.7, by chance 0.5*0.6 + 0.5*0.4.
    one = ["y"] * 25 + ["n"] * 25
    other = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert agreement(one, other) == pytest.approx(0.7)
    assert cohen_kappa(one, other) == pytest.approx(0.4)
    assert cohen_kappa(["y", "n", "u"], ["y", "n", "u"]) == pytest.approx(1)
    assert cohen_kappa(["y", "n"], ["n", "y"]) == pytest.approx(-1)
    assert cohen_kappa(["y", "y"], ["y", "y"]) is None  # a single verdict


def test_fleiss_by_hand() -> None:
    # Three raters; of two images they agree, of the third two do: observed (1 + 1 + 1/3) / 3,
    # by chance (4/9)^2 + (5/9)^2.
    kappa = fleiss_kappa([[3, 0], [0, 3], [1, 2]])
    assert kappa == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))
    assert fleiss_kappa([[3, 0], [3, 0]]) is None
