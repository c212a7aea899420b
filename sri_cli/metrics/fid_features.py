"""Features of real and of generated images, kept so that an interrupted evaluation goes on.

Axis legend: N images, B images of a block, H W pixels, F features, K slots. Pictures are uint8
[N,H,W,3]; generated ones are floor(255 x), as the papers'.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli import __version__
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_precision
from sri_cli.errors import SriError
from sri_cli.generation.sample import check_request, device_of, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.extractor import Advance, FeatureExtractor, Features, Pictures
from sri_cli.metrics.feature_cache import feature_blocks, load_arrays, store_arrays
from sri_cli.metrics.frechet import Moments, Statistics, with_root
from sri_cli.metrics.records import model_digest

FORMAT = 1  # of what is cached; a change of how features are computed counts it up


def reference_statistics(
    data: DataFile,
    split: str,
    count: int,
    extractor: FeatureExtractor,
    cache_dir: Path,
    advance: Advance = lambda done: None,
) -> Statistics:
    """Of `count` images (at most all) from all over a split, with the covariance's root.

    Kept in `cache_dir` for this content, split, count, size and these features. Until they are
    finished so are the features, block by block: an interruption costs one block.
    """
    part = data.split(split)
    chosen = part.pick(count)
    if len(chosen) < 2:
        raise SriError(
            f"{len(chosen)} {split} image to compare with: a covariance needs 2 or more",
            "--num 10000",
        )
    key = {
        "format": FORMAT,
        "images": data.attrs["sha256"],
        "split": split,
        "count": len(chosen),
        "size": data.size,
        "features": extractor.digest,
    }
    path = cache_dir / f"reference-{_short(json.dumps(key, sort_keys=True))}.npz"
    kept = load_arrays(path, key)
    if kept:
        advance(len(chosen))
        return Statistics(kept["mean"], kept["covariance"], len(chosen), kept["root"])

    def compute(start: int, number: int) -> Features:
        return extractor(part.images[chosen[start : start + number]], advance)

    blocks = path.with_suffix("")
    features = feature_blocks(blocks, key, len(chosen), compute, advance)
    found = with_root(statistics_of(features, extractor.size))
    assert found.root is not None
    arrays = {"mean": found.mean, "covariance": found.covariance, "root": found.root}
    store_arrays(path, key, arrays)
    shutil.rmtree(blocks, ignore_errors=True)  # the statistics take their place
    return found


def generated_features(
    loaded: TrainedRun,
    count: int,
    extractor: FeatureExtractor,
    cache_dir: Path,
    *,
    slots: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    precision: str = "auto",
    advance: Advance = lambda done: None,
) -> Iterator[Features]:
    """Features [B,F] of the scenes 0..count-1 of a seed, block by block; slots None: training's.

    Blocks are kept in a folder of `cache_dir` for these weights, K, temperature, seed, precision
    and features: an interrupted evaluation goes on, a larger one begins with a smaller one's.
    """
    model = loaded.model
    slots = model.num_slots if slots is None else slots
    check_request(count, slots, temperature, seed)
    digest, precision = model_digest(loaded), choose_precision(precision, device_of(model))
    key = {
        "format": FORMAT,
        "version": __version__,
        "model": digest,
        "slots": slots,
        "temperature": temperature,
        "seed": seed,
        "precision": precision,
        "features": extractor.digest,
    }
    folder = cache_dir / (
        f"{digest[:16]}_slots-{slots}_temp-{temperature:g}_seed-{seed}_{precision}"
        f"_{extractor.digest[:16]}"
    )

    def compute(start: int, number: int) -> Features:
        pictures = draw_pictures(model, start, number, slots, temperature, seed, precision)
        return extractor(pictures, advance)

    return feature_blocks(folder, key, count, compute, advance)


def draw_pictures(
    model: Any,
    first: int,
    count: int,
    slots: int,
    temperature: float = 1.0,
    seed: int = 0,
    precision: str = "auto",
) -> Pictures:
    """Scenes first..first+count-1 of a seed as uint8 [N,H,W,3]."""
    scenes = sample_scenes(model, count, slots, temperature, seed, precision=precision, first=first)
    return np.concatenate([quantise(scene.image) for scene in scenes])


def statistics_of(blocks: Iterable[Features], num_features: int) -> Statistics:
    """Mean and covariance of features [B,F] that come block by block."""
    moments = Moments(num_features)
    for block in blocks:
        moments.add(block)
    return moments.statistics()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
