"""The estimated S-Acc: the share of pictures in which a network finds all blocks touching.

It is an estimate of what people would say of S-Acc (METRICS), never S-Acc itself. The network errs
at rates that were counted on simulated pictures which it had not learned from, drawn over as slot
decoders draw; from its verdicts and these rates follow the share and its interval.

Axis legend: N pictures. Pictures are uint8 [N,S,S,3].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.extractor import Advance, Pictures, in_batches
from sri_cli.metrics.stack_classifiers.network import SHIPPED, SIDE, StackNet, open_shipped

LEVEL = 0.95
DRAWS = 20_000
BATCH = 256
COARSE = 32  # pixels; pictures of so many or fewer were counted apart


class Rates(NamedTuple):
    """How often the judge said plausible: of so many pictures that are, of so many that are not."""

    right: int
    plausible: int
    wrong: int
    flawed: int


@dataclass(frozen=True)
class Judge:
    """The network and how far it is to be trusted; `digest` is its weights' SHA-256."""

    network: StackNet
    rates: dict[str, Rates]  # by `kind_of` the pictures
    digest: str

    def plausible(
        self, pictures: Pictures, advance: Advance = lambda done: None
    ) -> NDArray[np.float32]:
        """Its belief [N] in [0,1] that all blocks of a picture's stack touch."""
        device = next(self.network.parameters()).device

        def compute(some: Pictures) -> NDArray[np.float32]:
            logits = self.network(to_tensor(some, device))["plausible"]
            belief: NDArray[np.float32] = logits.float().softmax(1)[:, 1].cpu().numpy()
            return belief

        return in_batches(compute, pictures, BATCH, device, advance, ())

    def estimate(self, belief: NDArray[np.float32], side: int, demo: bool) -> dict[str, Any]:
        """Estimated S-Acc of pictures of `side` pixels, in [0,1], with its 95 % interval.

        `demo`: they are to look as the demo's towers, near and on a plain floor.
        """
        rates = self.rates[kind_of(demo, side)]
        accepted = int((belief > 0.5).sum())
        value, low, high = corrected_share(accepted, len(belief), rates)
        return {"value": value, "low": low, "high": high, "accepted": accepted}


def kind_of(demo: bool, side: int) -> str:
    """Pictures of a look and of a fineness have error rates of their own."""
    return f"{'demo' if demo else 'original'}-{COARSE if side <= COARSE else SIDE}"


def open_judge(device: torch.device | str = "cpu") -> Judge:
    """The shipped judge."""
    facts = json.loads(
        resources.files("sri_cli.metrics.stack_classifiers")
        .joinpath("touching.json")
        .read_text("utf-8")
    )
    rates = {name: Rates(**counts) for name, counts in facts["rates"].items()}
    return Judge(open_shipped("touching", device), rates, SHIPPED["touching"])


def corrected_share(accepted: int, count: int, rates: Rates) -> tuple[float, float, float]:
    """The true share behind `accepted` of `count` verdicts, and its interval.

    Rogan and Gladen (1978): accepted/count = p * sensitivity + (1 - p) * false alarms. The interval
    is that of p when all three rates are drawn from their Jeffreys posteriors, so that it grows
    with the few pictures judged and with the few that the judge was tried on.
    """
    if not 0 <= accepted <= count or count == 0:
        raise ValueError(f"{accepted} accepted of {count}")
    sensitivity, alarms = rates.right / rates.plausible, rates.wrong / rates.flawed
    value = _share(np.array(accepted / count), np.array(sensitivity), np.array(alarms))
    random = np.random.default_rng(0)  # the interval is a function of the counts

    def draw(hits: int, of: int) -> NDArray[np.float64]:
        return random.beta(hits + 0.5, of - hits + 0.5, DRAWS)

    drawn = _share(
        draw(accepted, count),
        draw(rates.right, rates.plausible),
        draw(rates.wrong, rates.flawed),
    )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(value), float(min(low, value)), float(max(high, value))


def _share(
    accepted: NDArray[np.float64], sensitivity: NDArray[np.float64], alarms: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.clip((accepted - alarms) / np.maximum(sensitivity - alarms, 1e-3), 0.0, 1.0)
