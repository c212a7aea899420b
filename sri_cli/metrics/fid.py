"""The Frechet distance of generated from real images, and the name that it may bear.

The papers' protocol: 10,000 real images of the test split, 10,000 generated at temperature 1 with
the number of slots of training, 8 bits, the model's size, 2048 Inception features.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sri_cli.data.dataset import DataFile
from sri_cli.metrics.extractor import PAPERS, Advance, FeatureExtractor, Features
from sri_cli.metrics.fid_features import reference_statistics, statistics_of
from sri_cli.metrics.frechet import frechet_distance

PAPERS_COUNT = 10_000
PAPERS_FEATURES = 2048
PAPERS_SPLIT = "test"
NAMES = {PAPERS: "FID", "stack": "stack-FD"}  # of distances, by the name of their features


def fid_name(
    real: int,
    generated: int,
    split: str = PAPERS_SPLIT,
    features: str = PAPERS,
    *,
    temperature: float = 1.0,
    slots: int | None = None,
) -> str:
    """`FID` for the papers' protocol alone; otherwise a name that says what differs.

    FID-2k, FID(5012/10000) (real/generated), FID-val, stack-FD-2k, FD-random-inception,
    FID[K=7,T=0.5].
    `slots` are given where they are not the training's.
    """
    name = NAMES.get(features, f"FD-{features}")
    if split != PAPERS_SPLIT:
        name += f"-{split}"
    if real != generated or real % 1000:
        name += f"({real}/{generated})"
    elif real != PAPERS_COUNT:
        name += f"-{real // 1000}k"
    others = [f"K={slots}"] * (slots is not None) + [f"T={temperature:g}"] * (temperature != 1)
    return name + (f"[{','.join(others)}]" if others else "")


def too_few(count: int, num_features: int = PAPERS_FEATURES) -> str | None:
    """What to warn of when so few images leave the covariance singular; None otherwise."""
    if count > num_features:
        return None
    return (
        f"{count:,} images are too few for {num_features:,} features: the covariance is singular"
        " and the distance too large; compare it at equal counts only"
    )


class Distance(NamedTuple):
    """A value and the numbers of pictures that it is of."""

    value: float
    real: int
    generated: int


def measure_distance(
    drawn: Iterable[Features],
    data: DataFile,
    extractor: FeatureExtractor,
    reference_dir: Path,
    split: str = PAPERS_SPLIT,
    num_real: int = PAPERS_COUNT,
    advance: Advance = lambda done: None,
) -> Distance:
    """The distance of pictures, whose features come in blocks [B,F], from a split's real images.

    A split with fewer than `num_real` gives all it has.
    """
    real = reference_statistics(data, split, num_real, extractor, reference_dir, advance)
    generated = statistics_of(drawn, extractor.size)
    return Distance(frechet_distance(real, generated), real.count, generated.count)
