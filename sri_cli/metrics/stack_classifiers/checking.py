"""How good the two networks are on pictures that they have not learned from.

Axis legend: N pictures, P places of a stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.data.simulate.flaws import FLAWS
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.frechet import Moments, Statistics, frechet_distance, with_root
from sri_cli.metrics.stack_classifiers.corruptions import (
    BLUR,
    NOISE,
    SHARES,
    Ordering,
    blurred,
    exchanged,
    noisy,
    ordering,
    replaced,
)
from sri_cli.metrics.stack_classifiers.judge import COARSE, Rates, corrected_share, kind_of
from sri_cli.metrics.stack_classifiers.model_like import coarse
from sri_cli.metrics.stack_classifiers.network import SIDE, StackNet
from sri_cli.metrics.stack_classifiers.training import IGNORED, Pictures, prepare

BATCH = 256
Advance = Callable[[int], None]
Extract = Callable[[NDArray[np.uint8], Advance], NDArray[np.float32]]


def factor_accuracy(network: StackNet, pictures: Pictures) -> dict[str, float]:
    """Share of right answers of each output, places without a block left out."""
    said: dict[str, list[NDArray[np.int64]]] = {name: [] for name in pictures.targets}
    with torch.inference_mode():
        for start in range(0, len(pictures.images), BATCH):
            outputs = network(to_tensor(pictures.images[start : start + BATCH]))
            for name, logits in outputs.items():
                wanted = pictures.targets[name]
                flat = logits.reshape(len(logits), *wanted.shape[1:], -1)
                said[name].append(flat.argmax(-1).numpy())
    blocks = np.arange(6) <= pictures.targets["height"][:, None]
    found = {}
    for name, parts in said.items():
        right = np.concatenate(parts) == pictures.targets[name]
        asked = blocks if right.ndim == 2 else pictures.targets[name] != IGNORED
        found[name] = float(right[asked].mean())
    return found


class Verdicts(NamedTuple):
    """plausible bool [N], what the judge said; flaw int64 [N], what there is (0: none)."""

    plausible: NDArray[np.bool_]
    flaw: NDArray[np.int64]

    @property
    def rates(self) -> Rates:
        """The counts that an estimate is corrected by."""
        sound = self.flaw == 0
        right, wrong = self.plausible[sound].sum(), self.plausible[~sound].sum()
        return Rates(int(right), int(sound.sum()), int(wrong), int((~sound).sum()))

    @property
    def found(self) -> dict[str, float]:
        """Share of the pictures of each flaw that were called one."""
        return {
            name: float(1 - self.plausible[self.flaw == kind].mean())
            for kind, name in enumerate(("none", *FLAWS, "mush"))
            if kind and (self.flaw == kind).any()
        }


def verdicts(network: StackNet, pictures: Pictures, seed: int, small: bool) -> Verdicts:
    """On pictures drawn over as in training, at 64 pixels or (`small`) as 32 show them."""
    said, flaws = [], []
    for start in range(0, len(pictures.images), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(pictures.images)))
        random = torch.Generator().manual_seed(seed * 1_000_003 + start)
        images, targets = prepare("touching", pictures, chosen, random)
        with torch.inference_mode():
            logits = network(coarse(images, COARSE) if small else images)["plausible"]
        said.append(logits.argmax(1).bool().numpy())
        flaws.append(targets["flaw"].numpy())
    return Verdicts(np.concatenate(said), np.concatenate(flaws))


def verdicts_by_kind(network: StackNet, pictures: Pictures, seed: int) -> dict[str, Verdicts]:
    """By look and fineness, as `judge.kind_of` names them; the original look comes first."""
    half = len(pictures.images) // 2
    found = {}
    for demo, part in enumerate((slice(None, half), slice(half, None))):
        targets = {name: wanted[part] for name, wanted in pictures.targets.items()}
        own = Pictures(pictures.images[part], pictures.masks[part], targets)
        for side in (SIDE, COARSE):
            kind = kind_of(bool(demo), side)
            found[kind] = verdicts(network, own, seed, side == COARSE)
    return found


def coverage(seen: Verdicts, rates: Rates, count: int, trials: int = 400) -> dict[float, float]:
    """How often the interval holds the true share: share -> part of the trials.

    Each trial judges `count` of the pictures `seen`, which must not be those that the rates were
    counted on.
    """
    random = np.random.default_rng(0)
    sound, flawed = seen.plausible[seen.flaw == 0], seen.plausible[seen.flaw != 0]
    found = {}
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        held = 0
        for _ in range(trials):
            good = random.binomial(count, share)
            accepted = random.choice(sound, good).sum() + random.choice(flawed, count - good).sum()
            _, low, high = corrected_share(int(accepted), count, rates)
            held += low <= share <= high
        found[share] = held / trials
    return found


def damages(
    sound: Pictures, flawed: dict[str, NDArray[np.uint8]], seed: int = 0
) -> dict[str, list[NDArray[np.uint8]]]:
    """Growing damage to the same pictures, least first; `flawed` replace ever more of them."""
    images = sound.images
    apart = exchanged(images, sound.masks, seed)
    sets = {
        "noise": [noisy(images, sigma, seed) for sigma in NOISE],
        "blur": [blurred(images, sigma) for sigma in BLUR],
    }
    for name, others in {"exchanged blocks": apart, **flawed}.items():
        sets[name] = [replaced(images, others, share) for share in SHARES]
    return sets


def orderings(
    extract: Extract,
    num_features: int,
    reference: NDArray[np.uint8],
    undamaged: NDArray[np.uint8],
    damaged: dict[str, list[NDArray[np.uint8]]],
    advance: Advance = lambda done: None,
) -> dict[str, Ordering]:
    """How the Frechet distance to `reference` answers to each kind of damage, none at first."""

    def statistics(images: NDArray[np.uint8]) -> Statistics:
        moments = Moments(num_features)
        moments.add(extract(images, advance))
        return moments.statistics()

    real = with_root(statistics(reference))
    least = frechet_distance(real, statistics(undamaged))
    return {
        name: ordering([least, *(frechet_distance(real, statistics(level)) for level in levels)])
        for name, levels in damaged.items()
    }
