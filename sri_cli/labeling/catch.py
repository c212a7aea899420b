"""Pictures whose verdict is known: catch trials, mixed in unseen, and the examples beside them.

Axis legend: N pictures, S side in pixels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import DataFile
from sri_cli.data.simulate.flaws import FLAWS, LabelledTower, simulate_labelled_tower
from sri_cli.labeling.scenes import Card, Example, digest

Look = Literal["original", "demo"]
REAL, SOUND = "real", "sound"
FLAWED = ("floating", "gapped")
_STREAM = 2  # other random numbers than scenes of the same seed have
_EXAMPLES_SEED, _EXAMPLES_FIRST = 1_000_003, 10_000  # no catch trial is among them
_LARGE = 0.05  # share of an example's pixels that show blocks


class Trials(NamedTuple):
    """Pictures uint8 [N,S,S,3] and what they are."""

    pictures: NDArray[np.uint8]
    cards: list[Card]


class Examples(NamedTuple):
    """The same six for all of one look and size: uint8 [6,S,S,3], and what to see in them."""

    pictures: NDArray[np.uint8]
    words: list[Example]


def catch_trials(count: int, seed: int, size_px: int, look: Look, data: DataFile | None) -> Trials:
    """`count` of them, about as many plausible as not; (seed, index) fix each.

    Of ten, four are test images of `data` (None: there are no stacks to take them from) and one
    is a sound simulated stack, so that neither kind tells the verdict; five have blocks that
    float or lie beside the stack.
    """
    flawed = count // 2
    real = 0 if data is None else min((count - flawed) * 4 // 5, data.counts["test"])
    trials = [*_simulated(flawed, count - flawed - real, seed, size_px, look)]
    if data is not None:
        random = np.random.default_rng((seed, _STREAM))
        for index in np.sort(random.choice(data.counts["test"], real, replace=False)):
            picture = np.array(data.split("test").images[index])
            trials.append((picture, REAL, int(index)))
    cards = [
        Card(f"catch-{kind}-{index}", digest(picture), index, None, kind, kind not in FLAWED)
        for picture, kind, index in trials
    ]
    empty = np.empty((0, size_px, size_px, 3), np.uint8)
    return Trials(np.stack([picture for picture, _, _ in trials]) if trials else empty, cards)


def _simulated(
    flawed: int, sound: int, seed: int, size_px: int, look: Look
) -> Iterator[tuple[NDArray[np.uint8], str, int]]:
    simulate = functools.partial(simulate_labelled_tower, size_px=size_px, preset=look, seed=seed)
    wanted = [_index(FLAWED[i % 2], i // 2) for i in range(flawed)] + [2 * i for i in range(sound)]
    for index in wanted:
        judged = simulate(index)
        yield judged.images[0], judged.flaw or SOUND, index


def _index(flaw: str, number: int) -> int:
    """Which scene is the `number`-th with a flaw (flaws.py)."""
    return 2 * (FLAWS.index(flaw) + len(FLAWS) * number) + 1


def examples(size_px: int, look: Look) -> Examples:
    """Three plausible stacks, one of which would fall, and three that are none."""
    simulate = functools.partial(
        simulate_labelled_tower, size_px=size_px, preset=look, seed=_EXAMPLES_SEED
    )
    standing = _large(simulate, None, stable=1)
    falling = _large(simulate, None, stable=0)
    floating, gapped = (_large(simulate, flaw) for flaw in FLAWED)
    found = [
        (next(standing), True, "all blocks touch"),
        (next(falling), True, "all blocks touch; that it would fall does not count"),
        (next(standing), True, "all blocks touch"),
        (next(floating), False, "a block floats above the one below it"),
        (next(gapped), False, "a block is beside the one below it, with a gap"),
        (next(floating), False, "a block floats above the one below it"),
    ]
    pictures = np.stack([judged.images[0] for judged, _, _ in found])
    return Examples(pictures, [Example(plausible, why) for _, plausible, why in found])


def _large(
    simulate: Callable[[int], LabelledTower], flaw: str | None, stable: int = -1
) -> Iterator[LabelledTower]:
    """Stacks that are no small thing in the picture; of sound ones those that stand (1) or would
    fall (0)."""
    for number in itertools.count(_EXAMPLES_FIRST):
        judged = simulate(_index(flaw, number) if flaw else 2 * number)
        if judged.factors["stable"][0] == stable and (judged.masks > 0).mean() >= _LARGE:
            yield judged
