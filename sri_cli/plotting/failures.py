"""Verdicts on new scenes, for the figure of failures: by raters, or by the S-Acc estimate.

Axis legend: N scenes, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.device import choose_device
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.session import FOLDER
from sri_cli.labeling.statistics import rated_scenes
from sri_cli.metrics.image_metrics import TOWERS
from sri_cli.metrics.records import run_subject
from sri_cli.metrics.stack_classifiers.classifiers import open_judge
from sri_cli.plotting.grid import Pixels


class Verdicts(NamedTuple):
    """Judged scenes.

    Attributes:
        images: [N,H,W,3].
        scores: [N], the share or probability of plausible; below 0.5 a scene is broken.
        names: A line for each scene: its number and its verdict.
        notes: Who judged, and what the names mean.
    """

    images: Pixels
    scores: NDArray[np.float64]
    names: list[str]
    notes: list[str]


def judge_scenes(images: Pixels, data: str) -> Verdicts:
    """The verdicts of the network behind the S-Acc estimate on scenes of a data set."""
    plausible = open_judge(choose_device()).plausible(images).astype(np.float64)
    names = [f"{i}: {share:.2f}" for i, share in enumerate(plausible.tolist())]
    notes = [
        "Judged by the network of the S-Acc estimate; below each scene its number and the"
        " probability that all blocks touch."
    ]
    if data not in TOWERS:
        notes.append(f"The network was trained on towers of blocks, not on {data}.")
    return Verdicts(images, plausible, names, notes)


def rater_verdicts(run: TrainedRun) -> Verdicts | None:
    """The scenes of exactly these weights that any rater was sure of; None without one."""
    scenes = rated_scenes(run.workspace.runs_root / FOLDER, run_subject(run)["model"])
    votes = [list(scene.verdicts.values()) for scene in scenes]
    against = np.array([given.count("implausible") for given in votes])
    sure = against + [given.count("plausible") for given in votes]
    chosen = [i for i in range(len(scenes)) if sure[i]]
    if not chosen:
        return None
    raters = len({rater for scene in scenes for rater in scene.verdicts})
    return Verdicts(
        np.stack([scenes[i].image for i in chosen]),
        1 - against[chosen] / sure[chosen],
        [f"{scenes[i].index}: {against[i]} of {sure[i]}" for i in chosen],
        [
            f"Judged by {raters} rater{'s' * (raters > 1)}; below each scene its number and how"
            " many of those who were sure saw blocks apart."
        ],
    )
