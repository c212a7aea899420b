"""The Frechet distance between two Gaussians, and the mean and covariance that describe one.

Axis legend: N samples, B samples of a chunk, F features. Everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
BLOCK = 512  # samples merged at once, however they come


@dataclass(frozen=True)
class Statistics:
    """Of `count` samples: mean [F] and covariance [F,F] (divided by count - 1).

    root: a factor [R,F] of the covariance, root^T root = covariance; None until `with_root`.
    """

    mean: Array
    covariance: Array
    count: int
    root: Array | None = None

    @property
    def rank(self) -> int:
        """The most that the covariance's rank can be: deviations from a mean sum to 0."""
        return min(len(self.mean), self.count - 1)


class Moments:
    """Mean and covariance of features that come chunk by chunk.

    Samples are gathered to blocks of one size, so the chunking changes no bit of the result.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self._mean: Array = np.zeros(num_features)
        self._scatter: Array = np.zeros((num_features, num_features))
        self._waiting: Array = np.empty((BLOCK, num_features))
        self._num_waiting = 0

    def add(self, features: ArrayLike) -> None:
        """Features [B,F] of any float type; ValueError for another shape or one not finite."""
        rows = np.asarray(features, np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self._mean):
            raise ValueError(f"features [B,{len(self._mean)}], got {list(rows.shape)}")
        if not np.isfinite(rows).all():
            raise ValueError("a feature is not finite")
        while len(rows):
            taken = rows[: BLOCK - self._num_waiting]
            self._waiting[self._num_waiting : self._num_waiting + len(taken)] = taken
            self._num_waiting += len(taken)
            rows = rows[len(taken) :]
            if self._num_waiting == BLOCK:
                self._merge()

    def statistics(self) -> Statistics:
        """Of all samples so far; ValueError for fewer than 2, which have no covariance."""
        self._merge()
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 samples or more, got {self.count}")
        return Statistics(self._mean.copy(), self._scatter / (self.count - 1), self.count)

    def _merge(self) -> None:
        """Chan, Golub and LeVeque's update: two sets' deviations, each from its own mean."""
        block = self._waiting[: self._num_waiting]
        added, self._num_waiting = len(block), 0
        if not added:
            return
        mean = block.mean(axis=0)
        deviations, step = block - mean, mean - self._mean
        total = self.count + added
        self._scatter += deviations.T @ deviations
        self._scatter += np.outer(step, step * (self.count * added / total))
        self._mean += step * (added / total)
        self.count = total


def with_root(statistics: Statistics) -> Statistics:
    """The same with a factor of its covariance: what costs most of a distance, once for many."""
    values, vectors = np.linalg.eigh(statistics.covariance)  # ascending
    values, vectors = values[-statistics.rank :], vectors[:, -statistics.rank :]
    root = np.sqrt(values.clip(min=0))[:, None] * vectors.T
    return replace(statistics, root=np.ascontiguousarray(root))


def frechet_distance(real: Statistics, generated: Statistics) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), not below 0; FID where features are Inception's.

    With C1 = R^T R the products C1 C2 and R C2 R^T have the same eigenvalues, and the second is
    symmetric: no matrix square root, no complex numbers, a tenth of the time. A root that either
    side brings is used. Raises ValueError for different numbers of features.
    """
    if real.mean.shape != generated.mean.shape:
        raise ValueError(f"{len(real.mean)} features against {len(generated.mean)}")
    if real.root is None and generated.root is not None:
        real, generated = generated, real
    root = with_root(real).root if real.root is None else real.root
    assert root is not None
    product = root @ generated.covariance @ root.T
    # No more of them can differ from 0; the rest is round-off, whose roots would add up.
    values = np.linalg.eigvalsh(product)[-min(real.rank, generated.rank) :]
    shift = real.mean - generated.mean
    traces = np.trace(real.covariance) + np.trace(generated.covariance)
    return max(0.0, float(shift @ shift + traces - 2 * np.sqrt(values.clip(min=0)).sum()))
