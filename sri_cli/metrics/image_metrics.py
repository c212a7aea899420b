"""Metrics of images alone: FID, KID, stack-FD and the S-Acc estimate.

The images are new scenes of a run, or those of another tool in a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sri_cli.console import counting, warn
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.metrics.features import Advance, FeatureExtractor, real_features
from sri_cli.metrics.fid import (
    RANDOM,
    fid_name,
    frechet_distance,
    small_sample_warning,
    statistics_of,
)
from sri_cli.metrics.images import ImageSource
from sri_cli.metrics.kid import kernel_distance, kid_name
from sri_cli.metrics.records import COUNTS, Context, Estimate, Measurement
from sri_cli.metrics.stack_classifiers.classifiers import Judge, StackFeatures, open_judge

DEMO, TOWERS = "demo-towers", ("shapestacks", "demo-towers")  # data sets


class ImageMetrics:
    """Opens each network once, for all runs and folders of an evaluation.

    Args:
        reference_dir: Where features of real images are cached.
        features: Of FID and KID, `pool3` (Inception) or `random`.
        inception_weights: File of Inception's weights, by default searched or downloaded.
        offline: Whether to download nothing.
    """

    def __init__(
        self,
        reference_dir: Path,
        features: str = "pool3",
        inception_weights: Path | None = None,
        offline: bool = False,
    ) -> None:
        self.reference_dir, self.features = reference_dir, features
        self.inception_weights, self.offline = inception_weights, offline
        self._networks: dict[str, Any] = {}

    def network(self, metric: str) -> Any:
        """The judge of `sacc-estimate`, the `FeatureExtractor` of the others (one for FID, KID).

        Raises:
            SriError: if FID's weights are missing.
        """
        metric = "fid" if metric == "kid" else metric
        if metric not in self._networks:
            self._networks[metric] = self._open(metric)
        return self._networks[metric]

    def _open(self, metric: str) -> Any:
        device = choose_device()
        if metric == "sacc-estimate":
            return open_judge(device)
        if metric == "stack-fd":
            return StackFeatures(device)
        from sri_cli.metrics import inception  # torchvision takes a second to import

        if self.features == "random":
            return inception.random_inception(device)
        return inception.open_inception(self.inception_weights, self.offline, device)

    def measure(
        self,
        metric: str,
        generated: ImageSource,
        data: DataFile,
        context: Context,
        num_real: int | None = None,
    ) -> Measurement:
        """One of COUNTS; a warning is printed to stderr, too.

        A distance is from `num_real` images of `data`, by default COUNTS, at most the split's.
        """
        network = self.network(metric)
        if metric == "sacc-estimate":
            with counting(metric, generated.count) as advance:
                record = sacc_estimate(generated, data, network, context, advance)
        else:
            num_real = min(num_real or COUNTS[metric], data.counts[context.split])
            key, folder = metric.replace("-", "_"), self.reference_dir
            with counting(metric, generated.count + num_real) as advance:
                record = distance(key, generated, data, num_real, network, context, folder, advance)
        if record["warning"]:
            warn(f"{record['name']}: {record['warning']}")
        return record


def distance(
    key: str,
    generated: ImageSource,
    data: DataFile,
    num_real: int,
    extractor: FeatureExtractor,
    context: Context,
    cache_dir: Path,
    advance: Advance = lambda done: None,
) -> Measurement:
    """Distance of generated from real images; `key` is `kid`, or of Frechet's `fid`, `stack_fd`."""
    check_count(generated.count)
    split, count = context.split, generated.count
    real = real_features(data, split, num_real, extractor, cache_dir, advance)
    other = generated.features(extractor, advance)
    protocol = f"{extractor.size} features, weights {extractor.digest[:12]}"
    warnings = []
    if key == "kid":
        name = kid_name(split, extractor.name, **generated.naming)
        value = Estimate(*kernel_distance(real, other), "95 % jackknife over images")
        protocol = f"unbiased, cubic kernel; {protocol}"
    else:
        name = fid_name(len(real), count, split, extractor.name, **generated.naming)
        value = Estimate(frechet_distance(statistics_of(real), statistics_of(other)))
        warnings.append(small_sample_warning(min(len(real), count), extractor.size))
    if key == "stack_fd":
        warnings.append(no_towers_warning("stack-FD", data))
    if extractor.name == RANDOM:
        warnings.append("untrained features: the value only ranks models measured alike")
    return context.measurement(
        key,
        name,
        value,
        counts={"real": len(real), "generated": count},
        protocol=protocol,
        slots=generated.slots,
        temperature=generated.temperature,
        warning="; ".join(filter(None, warnings)) or None,
    )


def sacc_estimate(
    generated: ImageSource, data: DataFile, judge: Judge, context: Context, advance: Advance
) -> Measurement:
    """The estimated S-Acc, in [0,1]."""
    probability = generated.apply(judge.plausible, advance)
    result = judge.estimate(probability, data.size, data.name == DEMO)
    return context.measurement(
        "sacc_estimate",
        "S-Acc estimate",
        Estimate(result["value"], result["low"], result["high"], "95 %, judge's errors included"),
        counts={"generated": generated.count, "accepted": result["accepted"]},
        protocol=f"a network's verdicts, corrected; weights {judge.digest[:12]}; not S-Acc",
        slots=generated.slots,
        temperature=generated.temperature,
        warning=no_towers_warning("the S-Acc estimate", data),
    )


def no_towers_warning(what: str, data: DataFile) -> str | None:
    """A warning if the data are not those that the stack networks were trained on."""
    if data.name in TOWERS:
        return None
    return f"{what} was made for towers of blocks and is not meaningful for {data.name}"


def check_count(count: int) -> None:
    """SriError for fewer images than have a distance."""
    if count < 2:
        raise SriError(f"{count} generated image: a distance needs 2 or more", "--num 10000")
