"""What raters answered about each model in all sessions of a workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sri_cli.labeling.session import STACKS, Deck, Images, Model, read_sessions, standing_answers

UNKNOWN_MODE = "unknown"  # of answers of version 0.1

Scene = tuple[int | None, int, str]  # seed, index, SHA-256 of the image
Tally = Counter[str]  # number of each verdict
CATCH = Model(name="catch trials", weights="catch", subject={"kind": "catch"})


class Answer(NamedTuple):
    """A rater's last answer about a scene; `mode` of the page, `time` in UTC."""

    time: str
    verdict: str
    mode: str


@dataclass
class Ratings:
    """All answers about one model.

    A scene that a rater judged in several sessions counts once, with the last answer. Scenes that
    look the same but differ in seed or index are different scenes.
    """

    model: Model
    scenes: int = 0  # in its largest session
    question: str = STACKS
    answers: dict[str, dict[Scene, Answer]] = field(default_factory=dict)  # by rater
    # Rater -> number of scenes in the largest session in which the rater judged all of them.
    completed: dict[str, int] = field(default_factory=dict)
    # Rater -> the scenes of all sessions that the rater judged to the end.
    whole: dict[str, set[Scene]] = field(default_factory=dict)

    @property
    def finished(self) -> list[str]:
        """The raters whose mean is the model's figure: those who completed the most scenes, so
        that one who tried a few does not change a figure of a hundred."""
        most = max(self.completed.values(), default=0)
        return sorted(rater for rater, scenes in self.completed.items() if scenes == most)

    def verdicts(self, rater: str) -> dict[Scene, str]:
        return {scene: one.verdict for scene, one in self.answers.get(rater, {}).items()}

    def tally(self, rater: str, mode: str | None = None) -> Tally:
        """Of the answers in a mode of the page; None: of all."""
        answers = self.answers.get(rater, {}).values()
        return Counter(one.verdict for one in answers if mode in (None, one.mode))

    def final_tally(self, rater: str) -> Tally:
        """Of the scenes of the sessions that the rater judged to the end."""
        answers, whole = self.answers.get(rater, {}), self.whole.get(rater, set())
        return Counter(one.verdict for scene, one in answers.items() if scene in whole)

    def has_finished(self, rater: str) -> bool:
        """Whether the rater is one of `finished` and has begun nothing else."""
        return rater in self.finished and self.answers[rater].keys() == self.whole[rater]

    def modes(self, rater: str) -> list[str]:
        return sorted({one.mode for one in self.answers.get(rater, {}).values()})


def collect_ratings(decks: Iterable[Deck]) -> dict[str, Ratings]:
    """Weights -> answers of every model with at least one; `decks` are in order of time.

    Catch trials are collected under CATCH.
    """
    collected: dict[str, Ratings] = {}
    for deck in decks:
        records = deck.answers()
        raters = dict.fromkeys(record["rater"] for record in records)
        given = {
            rater: {
                one["picture"]: Answer(
                    one["time"], one["verdict"], str(one.get("mode", UNKNOWN_MODE))
                )
                for one in standing_answers(records, rater)
            }
            for rater in raters
        }
        for number, model in [*enumerate(deck.models), (None, CATCH)]:
            items = [item for item in deck.items if item.model == number]
            ratings = collected.setdefault(model.weights, Ratings(model))
            ratings.model, ratings.scenes = model, max(ratings.scenes, len(items))
            ratings.question = deck.question if records else ratings.question
            for rater, answers in given.items():
                judged = [item for item in items if item.id in answers]
                scenes = {item.id: (model.seed, item.index, item.sha256) for item in judged}
                if len(judged) == len(items):
                    ratings.completed[rater] = max(len(items), ratings.completed.get(rater, 0))
                    ratings.whole.setdefault(rater, set()).update(scenes.values())
                for item in judged:
                    scene, new = scenes[item.id], answers[item.id]
                    known = ratings.answers.setdefault(rater, {})
                    known[scene] = max(known.get(scene, new), new)  # by time
    return {weights: ratings for weights, ratings in collected.items() if ratings.answers}


@dataclass(frozen=True)
class RatedScene:
    """A scene of a model, image uint8 [S,S,3], with the verdict of each rater who judged it."""

    seed: int | None
    index: int
    image: Images
    verdicts: dict[str, str]


def rated_scenes(labels: Path, weights: str) -> list[RatedScene]:
    """The scenes of a model that any rater judged, by seed and index."""
    decks = [d for d in read_sessions(labels) if any(m.weights == weights for m in d.models)]
    ratings = collect_ratings(decks).get(weights)
    if ratings is None:
        return []
    rated: dict[Scene, RatedScene] = {}
    for deck in decks:
        for item, image in zip(deck.items, deck.load_images(), strict=True):
            if item.model is None or deck.models[item.model].weights != weights:
                continue
            scene = (deck.models[item.model].seed, item.index, item.sha256)
            answers = ratings.answers.items()
            verdicts = {rater: own[scene].verdict for rater, own in answers if scene in own}
            if verdicts:
                rated[scene] = RatedScene(scene[0], item.index, image, verdicts)
    return [rated[scene] for scene in sorted(rated, key=lambda scene: (scene[0] or 0, *scene[1:]))]
