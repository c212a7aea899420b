"""The kernel distance between two sets of features (KID), and the name that it may be given.

Axis legend: M real images, N generated ones, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from sri_cli.metrics.fid import PAPERS, PAPERS_SPLIT

Array = NDArray[np.float64]

ROWS = 512  # of a kernel matrix at once


def kernel_distance(
    real: ArrayLike, generated: ArrayLike
) -> tuple[float, float | None, float | None]:
    """The unbiased squared MMD of features [M,F] and [N,F] by the kernel (x.y / F + 1)^3.

    M, N >= 2. Value, below 0 by chance, and 95 % interval; None for two images of a kind.

    mean_(i!=j) k(x_i,x_j) + mean_(i!=j) k(y_i,y_j) - 2 mean_(i,j) k(x_i,y_j): Gretton et al. (2012,
    eq. 3) with the kernel of Binkowski et al. (2018, section 4), who average it over subsets; the
    estimate from all images at once has the same expectation and less variance. Its expectation
    does not depend on the number of images, as FID's does.

    The variance is the jackknife's of two samples (Arvesen 1969): for each kind (n - 1) times the
    variance of the n values without one image. The interval takes Student's t for the smaller kind.
    """
    x, y = (np.asarray(rows, np.float64) for rows in (real, generated))
    m, n = len(x), len(y)
    cross_x, cross_y = _sums(x, y)
    own_x, own_y = _sums(x, x)[0] - _kernel_of_itself(x), _sums(y, y)[0] - _kernel_of_itself(y)
    within_x, within_y, between = own_x.sum(), own_y.sum(), cross_x.sum()
    mean_x, mean_y = within_x / (m * (m - 1)), within_y / (n * (n - 1))
    value = float(mean_x + mean_y - 2 * between / (m * n))
    if min(m, n) == 2:  # without one of them no pair is left
        return value, None, None
    without_x = (within_x - 2 * own_x) / ((m - 1) * (m - 2)) - 2 * (between - cross_x) / (n * m - n)
    without_y = (within_y - 2 * own_y) / ((n - 1) * (n - 2)) - 2 * (between - cross_y) / (n * m - m)
    error = np.sqrt((m - 1) * without_x.var() + (n - 1) * without_y.var())
    reach = float(stdtrit(min(m, n) - 1, 0.975) * error)
    return value, value - reach, value + reach


def _sums(x: Array, y: Array) -> tuple[Array, Array]:
    """Sums of the kernel matrix [M,N] over its columns [M] and over its rows [N]."""
    rows, columns = [], np.zeros(len(y))
    for start in range(0, len(x), ROWS):
        kernel = (x[start : start + ROWS] @ y.T / x.shape[1] + 1) ** 3
        rows.append(kernel.sum(axis=1))
        columns += kernel.sum(axis=0)
    return np.concatenate(rows), columns


def _kernel_of_itself(x: Array) -> Array:
    """k(x_i, x_i), [M]."""
    return (np.einsum("if,if->i", x, x) / x.shape[1] + 1) ** 3


def kid_name(split: str = PAPERS_SPLIT, features: str = PAPERS) -> str:
    """`KID` for Inception features and the test split; otherwise a name that states what differs.

    KID-val, KD-random-inception. The numbers of images do not shift the value, and are no part of
    the name.
    """
    name = "KID" if features == PAPERS else f"KD-{features}"
    return name + f"-{split}" * (split != PAPERS_SPLIT)
