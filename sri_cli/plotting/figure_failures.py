"""Random scenes that were judged broken: those that a system still fails at.

Axis legend: N scenes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.device import choose_device
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.generated import TOWERS
from sri_cli.metrics.stack_classifiers.judge import open_judge
from sri_cli.plotting.figure_scenes import drawn, title_of
from sri_cli.plotting.grid import Picture
from sri_cli.plotting.sheet import Panels
from sri_cli.plotting.sheet_blocks import grid_panels

SCENES = 200  # that are drawn and judged


class Judged(NamedTuple):
    """Scenes [N,H,W,3] and the verdicts on them.

    `score` [N]: the lower, the surer that a scene is broken; `broken` [N]; what each is `told` by,
    and what that `means`.
    """

    images: Picture
    score: NDArray[np.float32]
    broken: NDArray[np.bool_]
    told: list[str]
    by: str
    means: str


def judged(trained: TrainedRun, slots: int, temperature: float, seed: int) -> Judged:
    """Scenes 0 .. 199 of a seed and the verdicts of the S-Acc estimate's network on them."""
    images = drawn(trained, SCENES, slots, temperature, seed).images
    belief = open_judge(choose_device()).plausible(images)
    words = [f"{i}: {share:.2f}" for i, share in enumerate(belief.tolist())]
    network, means = "the network of the S-Acc estimate", "the belief that all blocks touch"
    return Judged(images, belief, belief <= 0.5, words, network, means)


def failure_block(found: Judged, trained: TrainedRun, num: int, columns: int) -> Panels | None:
    """The scenes that are broken most surely; None where none is."""
    worst = np.argsort(found.score, kind="stable")[: min(num, int(found.broken.sum()))]
    if len(worst) == 0:
        return None
    caption = f"{title_of(trained)}; {found.broken.sum()} of {len(found.images)} judged broken"
    return grid_panels(found.images[worst], caption, columns, [found.told[i] for i in worst])


def notes_of(found: Judged, trained: TrainedRun) -> list[str]:
    """What is to be said of the verdicts."""
    notes = [f"Judged by {found.by}; below each scene its number and {found.means}."]
    data = trained.recipe.data
    if data not in TOWERS:
        notes.append(f"It was made for towers of blocks, and says little of {data}.")
    return notes
