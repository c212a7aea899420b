"""Metrics of generated pictures: what each needs is found before anything is measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sri_cli.console import counting
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.metrics.evaluate import OF_PICTURES
from sri_cli.metrics.extractor import FeatureExtractor
from sri_cli.metrics.generated import (
    Generated,
    check_count,
    count_of,
    distance_measurement,
    sacc_measurement,
)
from sri_cli.metrics.records import Context, Measurement
from sri_cli.metrics.stack_classifiers.features import StackFeatures
from sri_cli.metrics.stack_classifiers.judge import open_judge

Measure = Callable[[Context], Measurement]


@dataclass(frozen=True)
class Wanted:
    """What to measure, of how many images (None: what each metric wants), against which."""

    metrics: tuple[str, ...] | None = None  # None: METRICS of runs, fid of pictures
    data: str | None = None
    split: str = "test"
    num: int | None = None
    seed: int = 0
    features: str = "pool3"
    inception_weights: Path | None = None
    offline: bool = False


class PictureMetrics:
    """Makes what measures; networks are opened once for all runs and folders.

    Statistics of real images are kept in `reference_dir`.
    """

    def __init__(self, wanted: Wanted, reference_dir: Path) -> None:
        self.wanted, self.reference_dir = wanted, reference_dir
        self._opened: dict[str, FeatureExtractor] = {}

    def plan(self, metric: str, generated: Generated, data: DataFile) -> Measure:
        """SriError for weights that are missing or pictures too few."""
        if metric == "sacc-estimate":
            return self._share(generated, data)
        return self._distance(metric, generated, data)

    def _share(self, generated: Generated, data: DataFile) -> Measure:
        judge = open_judge(choose_device())

        def measure(context: Context) -> Measurement:
            with counting("sacc-estimate", generated.count) as advance:
                return warned(sacc_measurement(generated, context, data, judge, advance))

        return measure

    def _distance(self, metric: str, generated: Generated, data: DataFile) -> Measure:
        check_count(generated.count)
        extractor, real = self._extractor(metric), count_of(metric, self.wanted.num)
        total = generated.count + min(real, data.counts[self.wanted.split])
        key, folder = metric.replace("-", "_"), self.reference_dir

        def measure(context: Context) -> Measurement:
            with counting(metric, total) as advance:
                return warned(
                    distance_measurement(
                        key, generated, real, context, data, extractor, folder, advance
                    )
                )

        return measure

    def _extractor(self, metric: str) -> FeatureExtractor:
        if metric not in self._opened:
            self._opened[metric] = self._open(metric)
        return self._opened[metric]

    def _open(self, metric: str) -> FeatureExtractor:
        device, wanted = choose_device(), self.wanted
        if metric == "stack-fd":
            return StackFeatures(device)
        from sri_cli.metrics import inception

        if wanted.features == "random":
            return inception.random_inception(device)
        return inception.open_inception(wanted.inception_weights, wanted.offline, device)


def of_pictures(metrics: Sequence[str]) -> list[str]:
    """The metrics of generated pictures, the longest last."""
    return [name for name in OF_PICTURES if name in metrics]


def warned(record: Measurement) -> Measurement:
    """Its warning goes to stderr, too."""
    if record["warning"]:
        print(f"{record['name']}: {record['warning']}", file=sys.stderr)
    return record
