"""Which of a model's scenes people judged broken: the verdicts of `sri label-sacc`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.scenes import Kept, Pictures, load, sessions
from sri_cli.labeling.statistics import Answer, Scene, answers_of
from sri_cli.metrics.records import run_subject
from sri_cli.plotting.figure_failures import Judged

Verdicts = dict[str, Answer]  # rater -> what stands


def judged_by_raters(labels: Path, trained: TrainedRun) -> Judged | None:
    """The scenes of these very weights that anybody was sure of, as their sessions kept them.

    A scene is broken when most of those that were sure say so. None where nobody judged any.
    """
    weights = run_subject(trained)["model"]
    pictures: dict[Scene, Pictures] = {}
    verdicts: dict[Scene, Verdicts] = {}
    for kept in sessions(labels):
        if any(model.weights == weights for model in kept.models):
            for scene, picture, said in judged_scenes(kept, weights):
                pictures[scene] = picture
                mine = verdicts.setdefault(scene, {})
                # As each judged it last, in whatever session.
                mine |= {rater: max(answer, mine.get(rater, answer)) for rater, answer in said}
    counts = {scene: Counter(a.verdict for a in said.values()) for scene, said in verdicts.items()}
    sure = {scene: n["plausible"] + n["implausible"] for scene, n in counts.items()}
    chosen = sorted((scene for scene in counts if sure[scene]), key=lambda scene: scene[1])
    if not chosen:
        return None
    against = np.array([counts[scene]["implausible"] for scene in chosen])
    share = (against / [sure[scene] for scene in chosen]).astype(np.float32)
    raters = len({rater for said in verdicts.values() for rater in said})
    return Judged(
        np.stack([pictures[scene] for scene in chosen]),
        -share,
        share > 0.5,
        [f"{s[1]}: {n} of {sure[s]}" for s, n in zip(chosen, against.tolist(), strict=True)],
        f"{raters} rater{'s' * (raters > 1)}",
        "how many of those that were sure saw blocks apart",
    )


def judged_scenes(
    kept: Kept, weights: str
) -> Iterator[tuple[Scene, Pictures, list[tuple[str, Answer]]]]:
    """The model's scenes in a session, their pictures, and who said what."""
    said = answers_of(kept)
    for card, picture in zip(kept.cards, load(kept.folder).pictures, strict=True):
        if card.model is None or kept.models[card.model].weights != weights:
            continue
        answers = [(rater, mine[card.id]) for rater, mine in said.items() if card.id in mine]
        yield (kept.models[card.model].seed, card.index, card.sha256), picture, answers
