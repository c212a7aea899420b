"""Statistics of S-Acc: people's verdicts on generated scenes, as counts and categories.

Intervals are of 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from sri_cli.metrics.records import NORMAL_95

Interval = tuple[float, float]


def wilson(yes: float, count: float) -> Interval | None:
    """Wilson's score interval of the share yes / count (1927); None for a count of 0.

    Several raters' mean share has a count, but no whole number of yeses.
    """
    if count == 0:
        return None
    z, share = NORMAL_95, yes / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At a share of 0 or 1 the end is the share itself; rounding would put it just beside.
    return (0.0 if yes == 0 else centre - reach), (1.0 if yes == count else centre + reach)


def difference(
    one_yes: float, one_count: float, other_yes: float, other_count: float
) -> tuple[float, Interval] | None:
    """One share minus another with Newcombe's interval (1998, method 10): that of two Wilson
    intervals. None where a count is 0."""
    one, other = wilson(one_yes, one_count), wilson(other_yes, other_count)
    if one is None or other is None:
        return None
    first, second = one_yes / one_count, other_yes / other_count
    low = sqrt((first - one[0]) ** 2 + (other[1] - second) ** 2)
    high = sqrt((one[1] - first) ** 2 + (second - other[0]) ** 2)
    return first - second, (first - second - low, first - second + high)


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Cohen's kappa (1960) of two raters' verdicts on the same images, in order.

    None where it is not defined: both raters always gave one and the same verdict.
    """
    kinds = sorted({*one, *other})
    expected = sum(list(one).count(kind) * list(other).count(kind) for kind in kinds)
    observed = fmean(a == b for a, b in zip(one, other, strict=True))
    return _beyond_chance(observed, expected / len(one) ** 2)


def fleiss_kappa(counts: ArrayLike) -> float | None:
    """Fleiss' kappa (1971): counts [N,C] of raters that gave image n verdict c, the same number of
    raters for every image. None where it is not defined."""
    table = np.asarray(counts, float)
    raters = table[0].sum()
    agreeing = (table * (table - 1)).sum(1) / (raters * (raters - 1))
    shares = table.sum(0) / table.sum()
    return _beyond_chance(float(agreeing.mean()), float(shares @ shares))


def _beyond_chance(observed: float, expected: float) -> float | None:
    """Agreement beyond chance, as a share of the most that is possible."""
    return None if expected > 1 - 1e-12 else (observed - expected) / (1 - expected)
