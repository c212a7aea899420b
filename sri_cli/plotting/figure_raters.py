"""Which of a model's scenes people judged broken: the verdicts of `sri label-sacc`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.statistics import rated_scenes
from sri_cli.metrics.records import run_subject
from sri_cli.plotting.figure_failures import Judged


def judged_by_raters(labels: Path, trained: TrainedRun) -> Judged | None:
    """The scenes of these very weights that any rater was sure of.

    A scene is broken when most of those that were sure say so. None where nobody judged any.
    """
    scenes = rated_scenes(labels, run_subject(trained)["model"])
    votes = [list(scene.verdicts.values()) for scene in scenes]
    against = np.array([given.count("implausible") for given in votes])
    sure = against + [given.count("plausible") for given in votes]
    chosen = [i for i in range(len(scenes)) if sure[i]]
    if not chosen:
        return None
    share = (against[chosen] / sure[chosen]).astype(np.float32)
    raters = len({rater for scene in scenes for rater in scene.verdicts})
    return Judged(
        np.stack([scenes[i].image for i in chosen]),
        -share,
        share > 0.5,
        [f"{scenes[i].index}: {against[i]} of {sure[i]}" for i in chosen],
        f"{raters} rater{'s' * (raters > 1)}",
        "how many of those that were sure saw blocks apart",
    )
