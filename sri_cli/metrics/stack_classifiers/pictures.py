"""Simulated pictures for the two networks, with what they are to say of them.

Half of each set is as original ShapeStacks towers look, half as the demo's. Picture `i` of a seed
is a function of both alone. Validation uses another seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.parallel import parallel_map
from sri_cli.data.simulate.flaws import FLAWS, LabelledTower, simulate_labelled_tower
from sri_cli.data.simulate.towers import simulate_tower
from sri_cli.data.source import Scenario
from sri_cli.metrics.stack_classifiers.network import COLOURS, PLACES, SHAPES, SIDE
from sri_cli.metrics.stack_classifiers.training import IGNORED, Pictures

VIEWS = 2  # of a tower of the original look
Advance = Callable[[int], None]
Look = Literal["original", "demo"]


def factor_pictures(
    count: int, seed: int, workers: int = 1, advance: Advance = lambda done: None
) -> Pictures:
    """`count` pictures of towers as the data sets have them, half stable in the original look."""
    items = [("original", i) for i in range(count // 2 // VIEWS)]
    items += [("demo", i) for i in range(count - VIEWS * len(items))]
    made: list[Scenario] = _made(_Tower(seed), items, workers, advance)
    return Pictures(
        np.concatenate([s.images for s in made]),
        np.concatenate([s.masks for s in made if s.masks is not None]),
        factor_targets({key: np.concatenate([s.factors[key] for s in made]) for key in _FACTORS}),
    )


def touching_pictures(
    count: int, seed: int, workers: int = 1, advance: Advance = lambda done: None
) -> Pictures:
    """`count` pictures of stacks, half of them whole and half with a flaw of each kind in turn."""
    looks = [(look, i) for look in ("original", "demo") for i in range(count // 2)]
    made: list[LabelledTower] = _made(_Stack(seed), looks, workers, advance)
    flaws = [0 if scene.flaw is None else 1 + FLAWS.index(scene.flaw) for scene in made]
    return Pictures(
        np.concatenate([scene.images for scene in made]),
        np.concatenate([scene.masks for scene in made]),
        {"flaw": np.array(flaws, np.int64)},
    )


def _made(make: Any, items: list[Any], workers: int, advance: Advance) -> list[Any]:
    """Of each item what `make` makes of it, in order."""
    found = []
    for _, one in parallel_map(make, ((None, item) for item in items), workers, per_task=16):
        found.append(one)
        advance(len(one.images))
    return found


_FACTORS = ("height", "shapes", "colours", "stable", "wall_texture")


class _Tower:
    """Pickled into worker processes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, item: tuple[Look, int]) -> Scenario:
        look, index = item
        views = VIEWS if look == "original" else 1
        return simulate_tower(index, size_px=SIDE, views=views, preset=look, seed=self.seed)


class _Stack:
    """Pickled into worker processes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, item: tuple[Look, int]) -> LabelledTower:
        look, index = item
        return simulate_labelled_tower(index, size_px=SIDE, preset=look, seed=self.seed)


def factor_targets(factors: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """What the simulator knows of N pictures, as classes. Demo towers are all stable, which would
    teach a look and no physics: of them stability is not asked."""
    shapes, colours = factors["shapes"].astype(np.int64), factors["colours"].astype(np.int64)
    demo = factors["wall_texture"] < 0
    stable = np.where(demo, IGNORED, factors["stable"]).astype(np.int64)
    return {
        "height": factors["height"].astype(np.int64) - 1,
        "shapes": np.where(shapes < 0, SHAPES, shapes)[:, :PLACES],
        "colours": np.where(colours < 0, COLOURS, colours)[:, :PLACES],
        "stable": stable,
    }
