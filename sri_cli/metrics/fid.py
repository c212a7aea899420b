"""The Frechet distance between two sets of features, and the name that it may be given.

The papers' FID: 10,000 real images of the test split, 10,000 generated at temperature 1 with the
number of slots of training, 8 bits, the model's size, 2048 Inception features.

Axis legend: N samples, F features. Statistics are float64.
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
    mean = rows.mean(axis=0)
    deviations = rows - mean
    return Statistics(mean, deviations.T @ deviations / (len(rows) - 1), len(rows))


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
