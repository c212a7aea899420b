"""The Frechet distance of generated from real images, and the name that it may bear.

The papers' protocol: 10,000 real images of the test split, 10,000 generated at temperature 1 with
the number of slots of training, 8 bits, the model's size, 2048 Inception features.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sri_cli.checkpoints import LoadedModel
from sri_cli.data.store import DataFile
from sri_cli.metrics.fid_features import generated_features, reference_statistics, statistics_of
from sri_cli.metrics.frechet import frechet_distance
from sri_cli.metrics.inception import PAPERS, SIZE, Advance, FeatureExtractor, Features

PAPERS_COUNT = 10_000
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
    size: int | None = None,
) -> str:
    """`FID` for the papers' protocol alone; otherwise a name that says what differs.

    FID-2k, FID(5012/10000) (real/generated), FID-val, stack-FD-2k, FD-random-inception,
    FID[K=7,T=0.5].
    `slots` and `size` (px) are given where they are not the training's and the model's own.
    """
    name = NAMES.get(features, f"FD-{features}")
    if split != PAPERS_SPLIT:
        name += f"-{split}"
    if real != generated or real % 1000:
        name += f"({real}/{generated})"
    elif real != PAPERS_COUNT:
        name += f"-{real // 1000}k"
    others = [f"K={slots}"] * (slots is not None) + [f"T={temperature:g}"] * (temperature != 1)
    others += [f"{size}px"] * (size is not None)
    return name + (f"[{','.join(others)}]" if others else "")


def too_few(count: int, num_features: int = SIZE) -> str | None:
    """What to warn of when so few images leave the covariance singular; None otherwise."""
    if count > num_features:
        return None
    return (
        f"{count:,} images are too few for {num_features:,} features: the covariance is singular"
        " and the distance too large; compare it at equal counts only"
    )


def measure_fid(
    loaded: LoadedModel,
    data: DataFile,
    extractor: FeatureExtractor,
    reference_dir: Path,
    generated_dir: Path,
    *,
    split: str = PAPERS_SPLIT,
    num: int = PAPERS_COUNT,
    slots: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    precision: str = "auto",
    advance: Advance = lambda done: None,
) -> dict[str, Any]:
    """The distance of `num` generated from as many real images, with its name and both counts.

    A split with fewer gives all it has. `advance` is told of both. Raises SriError for a request
    that means nothing or a data file of another size.
    """
    data.check_size(loaded.model.image_size)
    # Lazy, but refuses at once what cannot be drawn.
    drawn = generated_features(
        loaded,
        num,
        extractor,
        generated_dir,
        slots=slots,
        temperature=temperature,
        seed=seed,
        precision=precision,
        advance=advance,
    )
    other = None if slots in (None, loaded.model.num_slots) else slots
    found = measure_distance(drawn, num, data, extractor, reference_dir, split, num, advance)
    found["name"] = fid_name(
        found["real"], num, split, extractor.name, temperature=temperature, slots=other
    )
    return found


def measure_distance(
    drawn: Iterable[Features],
    generated: int,
    data: DataFile,
    extractor: FeatureExtractor,
    reference_dir: Path,
    split: str = PAPERS_SPLIT,
    num_real: int = PAPERS_COUNT,
    advance: Advance = lambda done: None,
) -> dict[str, Any]:
    """The distance of `generated` pictures, whose features come in blocks [B,F], from real ones."""
    real = reference_statistics(data, split, num_real, extractor, reference_dir, advance)
    return {
        "name": fid_name(real.count, generated, split, extractor.name),
        "value": frechet_distance(real, statistics_of(drawn, extractor.size)),
        "real": real.count,
        "generated": generated,
        "split": split,
        "features": extractor.digest,
        "warning": too_few(min(real.count, generated), extractor.size),
    }
