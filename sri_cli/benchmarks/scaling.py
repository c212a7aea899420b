"""What a step takes on many GPUs, on paper: compute, the gradient's all-reduce, input.

The global batch B stays, N GPUs take B/N images each:

    step(N)       = max(compute(B/N) + all-reduce(N), input(B/N))
    all-reduce(N) = 2 (N-1)/N x bytes / bandwidth + 2 (N-1) x latency      (a ring)
    efficiency(N) = step(1) / (N x step(N))

The input is made by the host beside the step before, so it counts only where it takes longer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sri_cli.benchmarks.timing import digits
from sri_cli.metrics.tabular import aligned

BYTES_PER_PARAMETER = 4  # gradients are float32
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Link:
    """Bytes a second in each direction and seconds a hop, of what joins two ranks of a ring."""

    name: str
    bandwidth: float
    latency: float
    source: str


# The latencies are those of NCCL's own model of a ring (tuning.cc, the "simple" protocol).
NVLINK = Link(
    "NVLink 4",
    370e9,
    3.4e-6,
    "H100 SXM: 450 GB/s in each direction, of which a ring of NCCL gets about 370",
)
NETWORK = Link(
    "InfiniBand NDR",
    48e9,
    14e-6,
    "one port of 400 Gb/s a GPU, about 48 GB/s of payload",
)


def link_between(gpus: int, bandwidth_gb: float | None, latency_us: float | None) -> Link:
    """The slowest link of a ring of so many; what is given stands in for its figures."""
    usual = NVLINK if gpus <= GPUS_PER_NODE else NETWORK
    if bandwidth_gb is None and latency_us is None:
        return usual
    return Link(
        "as given",
        usual.bandwidth if bandwidth_gb is None else bandwidth_gb * 1e9,
        usual.latency if latency_us is None else latency_us * 1e-6,
        "--bandwidth-gb, --latency-us",
    )


def ring_seconds(gpus: int, num_bytes: float, link: Link) -> float:
    """Of a ring all-reduce: each of 2 (N-1) hops carries an N-th of the bytes."""
    hops = 2 * (gpus - 1)
    return hops / gpus * num_bytes / link.bandwidth + hops * link.latency


def share_of(batch: int, gpus: int) -> int:
    """Images of the busiest GPU."""
    return math.ceil(batch / gpus)


@dataclass(frozen=True)
class Curve:
    """Seconds by images, measured at some numbers of them and straight between.

    Above the largest it goes on as between the last two, or in proportion where there is one;
    below the smallest it stays: a GPU that is not filled does not get faster.
    """

    points: Mapping[int, float]

    def seconds(self, images: float) -> float:
        """At any number of images."""
        known = sorted(self.points.items())
        (first, at_first), (last, at_last) = known[0], known[-1]
        if images <= first and len(known) > 1:
            return at_first
        if len(known) == 1:
            return at_first * images / first if images > first else at_first
        below = max(point for point in known if point[0] < images)
        above = min((point for point in known if point[0] >= images), default=None)
        if above is None:
            below, above = known[-2], (last, at_last)
        slope = (above[1] - below[1]) / (above[0] - below[0])
        return below[1] + slope * (images - below[0])


@dataclass(frozen=True)
class Terms:
    """What `modelled` needs: both curves, and the bytes that every step sums up."""

    batch: int
    compute: Curve
    inputs: Curve
    num_bytes: float

    def modelled(self, gpus: int, link: Link) -> dict[str, Any]:
        """A row, in seconds."""
        share = share_of(self.batch, gpus)
        reduce = ring_seconds(gpus, self.num_bytes, link)
        return self.row(gpus, self.compute.seconds(share), reduce, self.inputs.seconds(share)) | {
            "how": "modelled",
            "link": link.name,
        }

    def row(
        self, gpus: int, compute: float, reduce: float, inputs: float, step: float | None = None
    ) -> dict[str, Any]:
        """Terms and what follows from them; `step`: measured, else by the model."""
        alone = max(self.compute.seconds(self.batch), self.inputs.seconds(self.batch))
        whole = max(compute + reduce, inputs) if step is None else step
        return {
            "gpus": gpus,
            "images_per_gpu": share_of(self.batch, gpus),
            "compute_seconds": compute,
            "all_reduce_seconds": reduce,
            "input_seconds": inputs,
            "seconds_per_step": whole,
            "images_per_second": self.batch / whole,
            "efficiency": alone / (gpus * whole),
        }


def scaling_table(rows: Sequence[Mapping[str, Any]], what: str = "GPUs") -> str:
    """The rows for people, in milliseconds."""
    head = [what, "images each", "compute ms", "all-reduce ms", "input ms", "step ms", "images/s"]
    lines = [[*head, "efficiency", "how"]]
    seconds = ("compute_seconds", "all_reduce_seconds", "input_seconds", "seconds_per_step")
    for row in rows:
        lines.append(
            [
                str(row["gpus"]),
                str(row["images_per_gpu"]),
                *(digits(1000 * row[key]) for key in seconds),
                digits(row["images_per_second"]),
                f"{row['efficiency']:.0%}",
                row["how"] + (f" ({row['link']})" if row.get("link") else ""),
            ]
        )
    return aligned(lines, words=0)
