"""The Frechet and the kernel distance (KID) of two sets of features, and what they may be called.

The papers' FID: 10,000 real images of the test split, 10,000 generated at temperature 1 with the
number of slots of training, 8 bits, the model's size, 2048 Inception features.

Axis legend: N samples, F features; of KID M real images, N generated ones. Statistics are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

PAPERS, RANDOM = "inception", "random-inception"  # names of features
PAPERS_COUNT = 10_000
PAPERS_FEATURES = 2048
PAPERS_SPLIT = "test"
NAMES = {PAPERS: "FID", "stack": "stack-FD"}  # of distances, by the name of their features
ROWS = 512  # of a kernel matrix at once


def fid_name(real: int, generated: int, split: str = PAPERS_SPLIT, features: str = PAPERS) -> str:
    """`FID` for the papers' protocol alone; otherwise a name that states what differs.

    FID-2k, FID(5012/10000) (real/generated), FID-val, stack-FD-2k, FD-random-inception. Scenes that
    are not drawn as in the papers have their `deviations` behind it.
    """
    name = NAMES.get(features, f"FD-{features}")
    if split != PAPERS_SPLIT:
        name += f"-{split}"
    if real != generated or real % 1000:
        name += f"({real}/{generated})"
    elif real != PAPERS_COUNT:
        name += f"-{real // 1000}k"
    return name


def kid_name(split: str = PAPERS_SPLIT, features: str = PAPERS) -> str:
    """`KID` for Inception features and the test split; otherwise a name that states what differs.

    KID-val, KD-random-inception. The numbers of images do not shift the value, and are no part of
    the name.
    """
    name = "KID" if features == PAPERS else f"KD-{features}"
    return name + f"-{split}" * (split != PAPERS_SPLIT)


def deviations(temperature: float, slots: int | None) -> str:
    """What of a name states that scenes are not drawn as in the papers: [K=7,T=0.5].

    Pass `slots` only where they are not those of training.
    """
    others = [f"K={slots}"] * (slots is not None) + [f"T={temperature:g}"] * (temperature != 1)
    return f"[{','.join(others)}]" if others else ""


def small_sample_warning(count: int, num_features: int = PAPERS_FEATURES) -> str | None:
    """A warning if so few images leave the covariance singular."""
    if count > num_features:
        return None
    return (
        f"{count:,} images are too few for {num_features:,} features: the covariance is singular"
        " and the distance too large; compare it at equal counts only"
    )


@dataclass(frozen=True)
class Statistics:
    """Of `count` samples: mean [F] and covariance [F,F] (divided by count - 1)."""

    mean: Array
    covariance: Array
    count: int

    @property
    def rank(self) -> int:
        """Upper bound of the covariance's rank: deviations from a mean sum to 0."""
        return min(len(self.mean), self.count - 1)


def statistics_of(features: ArrayLike) -> Statistics:
    """Mean and covariance of features [N,F], N >= 2."""
    rows = np.asarray(features, np.float64)
    return Statistics(rows.mean(axis=0), np.cov(rows, rowvar=False), len(rows))


def frechet_distance(real: Statistics, generated: Statistics) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), not below 0 (Heusel et al. 2017, eq. 6).

    With C1 = R^T R, C1 C2 and R C2 R^T have the same eigenvalues, and the latter is symmetric: no
    matrix square root, no complex numbers, a tenth of the time of pytorch-fid.
    """
    values, vectors = np.linalg.eigh(real.covariance)  # ascending
    values, vectors = values[-real.rank :], vectors[:, -real.rank :]
    # R; contiguous, because BLAS rounds differently otherwise and values would change.
    root = np.ascontiguousarray(np.sqrt(values.clip(min=0))[:, None] * vectors.T)
    product = root @ generated.covariance @ root.T
    # No more than these can differ from 0; the roots of the rest, round-off, would add up.
    values = np.linalg.eigvalsh(product)[-min(real.rank, generated.rank) :]
    shift = real.mean - generated.mean
    traces = np.trace(real.covariance) + np.trace(generated.covariance)
    return max(0.0, float(shift @ shift + traces - 2 * np.sqrt(values.clip(min=0)).sum()))


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
    from scipy.special import stdtrit  # `sri sample` imports this file, too

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
