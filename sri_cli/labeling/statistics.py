"""What raters said, gathered from all sessions of a workspace and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sri_cli.labeling.scenes import Card, Kept, Model
from sri_cli.labeling.session import live

Scene = tuple[int | None, int, str]  # seed, index, SHA-256 of the picture
Answers = dict[str, dict[str, "Answer"]]  # rater -> picture


class Answer(NamedTuple):
    """What stands at a picture, and since when (UTC, in an order that text keeps)."""

    time: str
    verdict: str


class Tally(NamedTuple):
    """Counts of one rater's verdicts."""

    plausible: int = 0
    implausible: int = 0
    unsure: int = 0

    @property
    def decided(self) -> int:
        return self.plausible + self.implausible

    @property
    def judged(self) -> int:
        return self.decided + self.unsure


class Judged:
    """All that was said of one model's scenes, in whatever sessions.

    A scene that a rater met in several sessions counts once, as it was judged last. Two scenes that
    look the same are still two: they differ in seed or index.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scenes = 0  # of its largest session
        self._finished: dict[str, int] = {}  # rater -> scenes of the largest session judged whole
        self._answers: dict[str, dict[Scene, Answer]] = {}

    def add(
        self, model: Model, cards: Sequence[Card], answers: dict[str, dict[str, Answer]]
    ) -> None:
        """A session later than those before: `model` is as it was then, `cards` are its scenes."""
        self.model = model
        self.scenes = max(self.scenes, len(cards))
        for rater, said in answers.items():
            here = [card for card in cards if card.id in said]
            if here:
                self._keep(self._answers.setdefault(rater, {}), here, said)
            if len(here) == len(cards):
                self._finished[rater] = max(self._finished.get(rater, 0), len(cards))

    def _keep(
        self, mine: dict[Scene, Answer], cards: Sequence[Card], said: dict[str, Answer]
    ) -> None:
        for card in cards:
            scene = (self.model.seed, card.index, card.sha256)
            mine[scene] = max(mine.get(scene, said[card.id]), said[card.id])

    @property
    def raters(self) -> list[str]:
        """Who judged any of the scenes."""
        return sorted(self._answers)

    @property
    def finished(self) -> list[str]:
        """Who judged a whole session, as large as anybody did: their figures make the model's. One
        that only tried a few scenes spoils no figure of a hundred."""
        most = max(self._finished.values(), default=0)
        return sorted(rater for rater, scenes in self._finished.items() if scenes == most)

    def verdicts(self, rater: str) -> dict[Scene, str]:
        """What one rater said of each scene."""
        return {scene: answer.verdict for scene, answer in self._answers[rater].items()}

    def tally(self, rater: str) -> Tally:
        """The same counted."""
        return Tally(**Counter(self.verdicts(rater).values()))


def judged_models(sessions: Sequence[Kept]) -> dict[str, Judged]:
    """Weights -> what was said of that model; `sessions` follow one another in time."""
    found: dict[str, Judged] = {}
    for kept in sessions:
        answers = answers_of(kept)
        for number, model in enumerate(kept.models):
            cards = [card for card in kept.cards if card.model == number]
            found.setdefault(model.weights, Judged(model)).add(model, cards, answers)
    return {weights: judged for weights, judged in found.items() if judged.raters}


def answers_of(kept: Kept) -> Answers:
    """What stands in a session."""
    records = kept.log.read()
    return {
        rater: {
            answer["picture"]: Answer(answer["time"], answer["verdict"])
            for answer in live(records, rater)
        }
        for rater in dict.fromkeys(record["rater"] for record in records)
    }


class Caught(NamedTuple):
    """How one rater did on pictures whose verdict is known."""

    right: int
    wrong: int
    unsure: int


def caught(sessions: Sequence[Kept]) -> dict[str, Caught]:
    """Rater -> catch trials, each picture once, as it was judged last."""
    found: dict[str, dict[str, tuple[Answer, bool]]] = {}
    for kept in sessions:
        trials = {card.id: card for card in kept.cards if card.model is None}
        for rater, said in answers_of(kept).items():
            for picture in said.keys() & trials.keys():
                card, answer = trials[picture], said[picture]
                wanted = "plausible" if card.plausible else "implausible"
                now = (answer, answer.verdict == wanted)
                mine = found.setdefault(rater, {})
                mine[card.sha256] = max(mine.get(card.sha256, now), now)
    return {rater: _caught(list(mine.values())) for rater, mine in found.items()}


def _caught(answers: Sequence[tuple[Answer, bool]]) -> Caught:
    right = sum(is_right for _, is_right in answers)
    unsure = sum(answer.verdict == "unsure" for answer, _ in answers)
    return Caught(right, len(answers) - right - unsure, unsure)
