"""What is measured of generated pictures alone: a model's new scenes, or those of another tool.

Axis legend: N pictures, B of a block, F features. Pictures are uint8 [N,S,S,3].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import check_request
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.extractor import RANDOM, Advance, FeatureExtractor, Features, Pictures
from sri_cli.metrics.fid import fid_name, measure_distance, too_few
from sri_cli.metrics.fid_features import draw_pictures, generated_features
from sri_cli.metrics.picture_folder import BLOCK, PictureFolder
from sri_cli.metrics.records import Context, Estimate, Measurement
from sri_cli.metrics.stack_classifiers.judge import Judge

# How many pictures, unless told otherwise: the papers' for FID, enough for the others.
COUNTS = {"fid": 10_000, "stack-fd": 2_000, "sacc-estimate": 1_000}
DEMO, TOWERS = "demo-towers", ("shapestacks", "demo-towers")  # data sets


class Generated(Protocol):
    """Pictures to measure."""

    count: int
    unlike_papers: dict[str, Any]  # what `fid_name` has to tell

    @property
    def slots(self) -> int | None: ...
    @property
    def temperature(self) -> float | None: ...

    def features(self, extractor: FeatureExtractor, advance: Advance) -> Iterator[Features]: ...
    def blocks(self) -> Iterator[Pictures]: ...


class Scenes:
    """New scenes 0 .. count-1 of a seed; `slots` None: as many as in training.

    Their features are kept in `cache_dir`, so that an interrupted evaluation goes on. Raises
    SriError for what cannot be drawn.
    """

    def __init__(
        self,
        loaded: TrainedRun,
        count: int,
        seed: int,
        cache_dir: Path,
        slots: int | None = None,
        temperature: float = 1.0,
        precision: str = "auto",
    ) -> None:
        self.loaded, self.count, self.seed, self.cache_dir = loaded, count, seed, cache_dir
        trained = loaded.model.num_slots
        self.slots = trained if slots is None else slots
        self.temperature, self.precision = temperature, precision
        check_request(count, self.slots, temperature, seed)
        self.unlike_papers = {"temperature": temperature}
        if self.slots != trained:
            self.unlike_papers["slots"] = self.slots

    def features(self, extractor: FeatureExtractor, advance: Advance) -> Iterator[Features]:
        return generated_features(
            self.loaded,
            self.count,
            extractor,
            self.cache_dir,
            slots=self.slots,
            temperature=self.temperature,
            seed=self.seed,
            precision=self.precision,
            advance=advance,
        )

    def blocks(self) -> Iterator[Pictures]:
        how = (self.slots, self.temperature, self.seed, self.precision)
        for start in range(0, self.count, BLOCK):
            yield draw_pictures(self.loaded.model, start, min(BLOCK, self.count - start), *how)


class Given:
    """The first `count` pictures of a folder; None: all."""

    slots = temperature = None

    def __init__(self, folder: PictureFolder, count: int | None = None) -> None:
        self.folder = folder
        self.count = folder.count if count is None else min(count, folder.count)
        self.unlike_papers: dict[str, Any] = {}

    def features(self, extractor: FeatureExtractor, advance: Advance) -> Iterator[Features]:
        return (extractor(block, advance) for block in self.blocks())

    def blocks(self) -> Iterator[Pictures]:
        return self.folder.blocks(self.count)


def distance_measurement(
    metric: str,
    generated: Generated,
    num_real: int,
    context: Context,
    data: DataFile,
    extractor: FeatureExtractor,
    reference_dir: Path,
    advance: Advance,
) -> Measurement:
    """The Frechet distance of generated from real pictures; `metric` is `fid` or `stack_fd`."""
    assert context.data is not None
    check_count(generated.count)
    drawn = generated.features(extractor, advance)
    split = context.data["split"]
    found = measure_distance(drawn, data, extractor, reference_dir, split, num_real, advance)
    warnings = [too_few(min(found.real, found.generated), extractor.size)]
    if metric == "stack_fd":
        warnings.append(no_towers("stack-FD", data))
    if extractor.name == RANDOM:
        warnings.append("untrained features: the value only ranks models measured alike")
    return context.measurement(
        metric,
        fid_name(found.real, found.generated, split, extractor.name, **generated.unlike_papers),
        Estimate(found.value),
        counts={"real": found.real, "generated": found.generated},
        protocol=f"{extractor.size} features, weights {extractor.digest[:12]}",
        slots=generated.slots,
        temperature=generated.temperature,
        warning="; ".join(filter(None, warnings)) or None,
    )


def sacc_measurement(
    generated: Generated, context: Context, data: DataFile, judge: Judge, advance: Advance
) -> Measurement:
    """The estimated S-Acc, in [0,1]."""
    belief = np.concatenate([judge.plausible(block, advance) for block in generated.blocks()])
    found = judge.estimate(belief, data.size, data.name == DEMO)
    return context.measurement(
        "sacc_estimate",
        "S-Acc estimate",
        Estimate(found["value"], found["low"], found["high"], "95 %, judge's errors included"),
        counts={"generated": generated.count, "accepted": found["accepted"]},
        protocol=f"a network's verdicts, corrected; weights {judge.digest[:12]}; not S-Acc",
        slots=generated.slots,
        temperature=generated.temperature,
        warning=no_towers("the S-Acc estimate", data),
    )


def no_towers(what: str, data: DataFile) -> str | None:
    """What to warn of when the data are not those that the networks learned from."""
    if data.name in TOWERS:
        return None
    return f"{what} was made for towers of blocks, and says little of {data.name}"


def check_count(count: int) -> None:
    """SriError for fewer pictures than have a covariance."""
    if count < 2:
        raise SriError(f"{count} generated picture: a covariance needs 2 or more", "--num 10000")


def count_of(metric: str, num: int | None) -> int:
    """How many pictures a metric of generated ones wants."""
    return COUNTS[metric] if num is None else num
