"""Metrics of images alone: FID, KID, stack-FD, the S-Acc estimate and shapes.

The images are new scenes of a run, or those of another tool in a folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counting, warn
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.metrics.features import Advance, FeatureExtractor
from sri_cli.metrics.fid import (
    RANDOM,
    fid_name,
    frechet_distance,
    kernel_distance,
    kid_name,
    small_sample_warning,
    statistics_of,
)
from sri_cli.metrics.images import CACHE, ImageSource, real_images
from sri_cli.metrics.records import COUNTS, NORMAL_95, Context, Estimate, Measurement
from sri_cli.metrics.stack_classifiers.classifiers import (
    Judge,
    StackFeatures,
    corrected_share,
    kind_of,
)
from sri_cli.run import Workspace

SHAPES = ("box", "cylinder", "ball")  # that the network of stack-FD tells apart
CALLED = np.array([0, 1, 1, 2, -1])  # the simulator's shapes -> index in SHAPES; -1: no block
SURE = 0.9
LEAST_SURE = 0.5  # of real blocks it is sure of 90 % in the demo's look, of 3 % in ShapeStacks' own
DEMO, TOWERS = "demo-towers", ("shapestacks", "demo-towers")  # data sets

Verdicts = NDArray[np.bool_]


class ImageMetrics:
    """Opens each network once, for all runs and folders of an evaluation.

    Args:
        workspace: Whose data folder caches the features of real images.
        features: Of FID and KID, `pool3` (Inception) or `random`.
        inception_weights: File of Inception's weights, by default searched or downloaded.
        offline: Whether to download nothing.
    """

    def __init__(
        self,
        workspace: Workspace,
        features: str = "pool3",
        inception_weights: Path | None = None,
        offline: bool = False,
    ) -> None:
        self.reference_dir, self.features = workspace.data_root / CACHE, features
        self.inception_weights, self.offline = inception_weights, offline
        self._networks: dict[str, Any] = {}

    def network(self, metric: str) -> Any:
        """The judge of `sacc-estimate`, the `FeatureExtractor` of the others: one for FID and KID,
        one for stack-FD and shapes.

        Raises:
            SriError: if FID's weights are missing.
        """
        metric = {"kid": "fid", "shapes": "stack-fd"}.get(metric, metric)
        if metric not in self._networks:
            self._networks[metric] = self._open(metric)
        return self._networks[metric]

    def _open(self, metric: str) -> Any:
        device = choose_device()
        if metric == "sacc-estimate":
            return Judge(device)
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
    ) -> list[Measurement]:
        """One of COUNTS; warnings are printed to stderr, too.

        Generated images are compared with `num_real` images of `data`, by default COUNTS, at most
        the split's.
        """
        network = self.network(metric)
        if metric == "sacc-estimate":
            with counting(metric, generated.count) as advance:
                records = [sacc_estimate(generated, data, network, context, advance)]
        else:
            count, key = num_real or COUNTS[metric], metric.replace("-", "_")
            real = real_images(data, context.split, count, self.reference_dir)
            with counting(metric, generated.count + real.count) as advance:
                images = (generated, real, data, network, context, advance)
                records = shapes(*images) if key == "shapes" else [distance(key, *images)]
        for warning in dict.fromkeys(record["warning"] for record in records):
            if warning:
                warn(f"{records[0]['name']}: {warning}")
        return records


def distance(
    key: str,
    generated: ImageSource,
    reference: ImageSource,
    data: DataFile,
    extractor: FeatureExtractor,
    context: Context,
    advance: Advance = lambda done: None,
) -> Measurement:
    """Distance of generated from real images; `key` is `kid`, or of Frechet's `fid`, `stack_fd`."""
    split, counts = context.split, {"real": reference.count, "generated": generated.count}
    features = [source.features(extractor, advance) for source in (reference, generated)]
    protocol = f"{extractor.size} features, weights {extractor.digest[:12]}"
    warnings = []
    if key == "kid":
        name = kid_name(split, extractor.name)
        value = Estimate(*kernel_distance(*features), "95 % jackknife over images")
        protocol = f"unbiased, cubic kernel; {protocol}"
    else:
        name = fid_name(reference.count, generated.count, split, extractor.name)
        value = Estimate(frechet_distance(*map(statistics_of, features)))
        warnings.append(small_sample_warning(min(counts.values()), extractor.size))
    if key == "stack_fd":
        warnings.append(no_towers_warning("stack-FD", data.name))
    if extractor.name == RANDOM:
        warnings.append("untrained features: the value only ranks models measured alike")
    return context.measurement(
        key,
        name + generated.deviations,
        value,
        counts=counts,
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
    accepted = int((probability > 0.5).sum())
    look = generated.data or data.name  # `data` may be another set than that of the scenes
    rates = judge.rates[kind_of(look == DEMO, data.size)]
    share = corrected_share(accepted, generated.count, rates)
    return context.measurement(
        "sacc_estimate",
        "S-Acc estimate",
        Estimate(*share, "95 %, judge's errors included"),
        counts={"generated": generated.count, "accepted": accepted},
        protocol=f"a network's verdicts, corrected; weights {judge.digest[:12]}; not S-Acc",
        slots=generated.slots,
        temperature=generated.temperature,
        warning=no_towers_warning("the S-Acc estimate", look),
    )


def shapes(
    generated: ImageSource,
    reference: ImageSource,
    data: DataFile,
    network: StackFeatures,
    context: Context,
    advance: Advance = lambda done: None,
) -> list[Measurement]:
    """What shapes the network sees in generated and in real stacks, as shares of their blocks.

    First the largest difference between the two among the shares called box, cylinder and ball and
    the share of whose shape it is sure; then these shares of generated and of real images; last,
    where the shapes of real blocks are known, the share that it names correctly.
    """
    # Of generated and of real images.
    seen = [network.shapes(source.features(network, advance)) for source in (generated, reference)]
    blocks = [probability.sum(-1) > 0 for probability in seen]
    sure = share_of(verdicts(seen[1], "sure"), blocks[1])[0]
    doubts = [no_towers_warning("the share of shapes", data.name)]
    if sure < LEAST_SURE:
        doubts.append(f"the network is sure of {sure:.0%} of real blocks: differences mean little")
    counts = {"generated": generated.count, "real": reference.count}
    protocol = f"a network's verdicts; sure: {SURE:.0%} or more; weights {network.digest[:12]}"

    def record(key: str, name: str, value: float, error: float, blocks: Verdicts) -> Measurement:
        reach = NORMAL_95 * error
        interval = (max(0.0, value - reach), min(1.0, value + reach), "95 % normal over images")
        return context.measurement(
            f"shapes_{key}",
            name,
            Estimate(value, *interval),
            counts=counts | {"blocks": int(blocks.sum())},
            protocol=protocol,
            slots=generated.slots,
            temperature=generated.temperature,
            warning="; ".join(filter(None, doubts)) or None,
        )

    records, differences = [], []
    for what in (*SHAPES, "sure"):
        (made, error), (real, error_of_real) = (
            share_of(verdicts(probability, what), own)
            for probability, own in zip(seen, blocks, strict=True)
        )
        differences.append((abs(made - real), math.hypot(error, error_of_real)))
        name = f"shapes: {what}"
        records += [
            record(what, name, made, error, blocks[0]),
            record(f"{what}_real", f"{name}, real images", real, error_of_real, blocks[1]),
        ]
    name = "shapes: largest difference"
    records.insert(0, record("difference", name, *max(differences), blocks[0]))
    split = data.split(context.split)
    if data.name in TOWERS and "shapes" in split.factor_names():  # elsewhere of other codes
        true = CALLED[split.factor("shapes")[split.pick(reference.count)]]
        called = np.where(blocks[1], seen[1].argmax(-1), -1)[:, : true.shape[1]]
        name = "shapes: named correctly, real images"
        right = (called == true) & (true >= 0)
        records.append(record("correct_real", name, *share_of(right, true >= 0), true >= 0))
    return records


def verdicts(probability: NDArray[np.float32], what: str) -> Verdicts:
    """bool [N,P]: whether a block is called so, of probabilities [N,P,3]; False for no block."""
    if what == "sure":
        return probability.max(-1) >= SURE
    return (probability.argmax(-1) == SHAPES.index(what)) & (probability.sum(-1) > 0)


def share_of(hits: Verdicts, blocks: Verdicts) -> tuple[float, float]:
    """The share of blocks that are hits, [N,P] both, and its standard error.

    A ratio of sums over images (Cochran, Sampling Techniques, 1977, section 2.11): blocks of one
    image are not independent.
    """
    hit, of, n = hits.sum(1), blocks.sum(1), len(hits)
    value = float(hit.sum() / of.sum())
    residual = hit - value * of
    return value, math.sqrt(n / max(n - 1, 1) * float((residual**2).sum())) / float(of.sum())


def no_towers_warning(what: str, data: str) -> str | None:
    """A warning if the data set is none of those that the stack networks were trained on."""
    if data in TOWERS:
        return None
    return f"{what} was made for towers of blocks and is not meaningful for {data}"
