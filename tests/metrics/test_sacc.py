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

Z2 = 1.959964**2


def test_wilson_by_hand() -> None:
    # All or none of n: the far end is z^2 / (n + z^2) away.
    assert wilson(0, 10) == pytest.approx((0, Z2 / (10 + Z2)))
    assert wilson(10, 10) == pytest.approx((10 / (10 + Z2), 1))
    # Half of n: centre 1/2, reach z / 2 / sqrt(n + z^2).
    reach = Z2**0.5 / 2 / (20 + Z2) ** 0.5
    assert wilson(10, 20) == pytest.approx((0.5 - reach, 0.5 + reach))
    assert wilson(0, 0) is None


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_wilson_as_scipy(count: int) -> None:
    for yes in {0, 1, count // 2, count - 1, count}:
        other = binomtest(yes, count).proportion_ci(0.95, "wilson")
        assert wilson(yes, count) == pytest.approx((other.low, other.high), abs=1e-6)


def test_difference_is_newcombes_example() -> None:
    # Newcombe (1998), Table II, contrast (a), method 10: 56/70 and 48/80.
    found = difference(56, 70, 48, 80)
    assert found is not None
    assert found[0] == pytest.approx(0.2)
    assert found[1] == pytest.approx((0.0524, 0.3339), abs=5e-5)
    turned = difference(48, 80, 56, 70)
    assert turned is not None and turned[0] == pytest.approx(-0.2)
    assert turned[1] == pytest.approx((-found[1][1], -found[1][0]))
    assert difference(0, 0, 1, 2) is None and difference(1, 2, 0, 0) is None


def test_fisher_by_hand() -> None:
    # The lady tasting tea, 3 of 4 right: (1 + 16 + 16 + 1) / 70 are as unlikely.
    assert fisher(3, 1, 1, 3) == pytest.approx(34 / 70)
    assert fisher(4, 0, 0, 4) == pytest.approx(2 / 70)
    assert fisher(5, 5, 5, 5) == pytest.approx(1)


def test_cohen_by_hand() -> None:
    # 20 both yes, 5 and 10 apart, 15 both no: observed 0.7, by chance 0.5*0.6 + 0.5*0.4.
    one = ["y"] * 25 + ["n"] * 25
    other = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert agreement(one, other) == pytest.approx(0.7)
    assert cohen_kappa(one, other) == pytest.approx(0.4)


def test_cohen_at_its_ends() -> None:
    assert cohen_kappa(["y", "n", "u"], ["y", "n", "u"]) == pytest.approx(1)
    assert cohen_kappa(["y", "n"], ["n", "y"]) == pytest.approx(-1)
    assert cohen_kappa(["y", "y", "n", "n"], ["y", "n", "y", "n"]) == pytest.approx(0)
    assert cohen_kappa(["y", "y"], ["y", "y"]) is None  # there is no other verdict to tell from
    assert cohen_kappa([], []) is None


def test_fleiss_by_hand() -> None:
    # Three raters; of two pictures they agree, of the third two do: observed (1 + 1 + 1/3) / 3,
    # by chance (4/9)^2 + (5/9)^2.
    found = fleiss_kappa([[3, 0], [0, 3], [1, 2]])
    assert found == pytest.approx((7 / 9 - 41 / 81) / (1 - 41 / 81))


def test_fleiss_where_it_means_nothing() -> None:
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([[3, 0], [3, 0]]) is None
    with pytest.raises(ValueError):
        fleiss_kappa([[3, 0], [2, 0]])
    with pytest.raises(ValueError):
        fleiss_kappa([[1, 0], [0, 1]])
