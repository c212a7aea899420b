"""One rater's way through the pictures of a session: shuffled, and nothing told of what they are.

Whatever the page or the terminal may know is public here; which model a picture is of, and whether
it is a catch trial, is not.
"""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sri_cli.errors import SriError
from sri_cli.labeling.scenes import ANSWERS, Card, Deck, load
from sri_cli.labeling.store import AnswerLog, Record

VERDICTS = ("plausible", "implausible", "unsure")
DEFINITION = (
    "A stack is plausible when all of its blocks touch each other. Touching is what counts, not"
    " whether the stack would stand."
)
LONGEST_NAME = 64


class Session:
    """The pictures of a session in the order of one rater; places are 0 .. total-1.

    Any number of threads and processes may have the same one open: what counts is on disk.
    """

    def __init__(self, deck: Deck, log: AnswerLog, rater: str) -> None:
        self.rater, self.total = rater, len(deck.cards)
        self._deck, self._log = deck, log
        self._order = shuffled(self.total, deck.asked.seed, rater)
        self._place = {deck.cards[card].id: place for place, card in enumerate(self._order)}

    def picture(self, place: int) -> NDArray[np.uint8]:
        """[S,S,3]."""
        return self._deck.pictures[self._order[place]]

    def verdicts(self) -> list[str | None]:
        """By place, read anew from the disk; None where there is no answer."""
        return self._verdicts(self._answers())

    def answer(
        self,
        place: int,
        verdict: str,
        seconds: float | None = None,
        expected: str | None = "unset",
    ) -> bool:
        """Keep an answer; it is on the disk when this returns.

        `expected`: the verdict that the caller saw at that place (None: no answer). Where another
        tab has changed it since, nothing is written and the answer is False; "unset" asks for no
        such check. A verdict that stands already is not written again.
        """
        if verdict not in VERDICTS:
            raise ValueError(f"{verdict!r} is none of {VERDICTS}")
        card = self._card(place)
        fits = True

        def make(records: list[Record]) -> Record | None:
            nonlocal fits
            stands = self._verdicts(live(records, self.rater))[place]
            fits = expected in ("unset", stands)
            if not fits or stands == verdict:
                return None
            return self._record("answer", card, verdict=verdict, seconds=seconds)

        self._log.append(make)
        return fits

    def undo(self) -> int | None:
        """Take back the last answer of this rater, whichever tab it came from: what stood at its
        place before stands again. Its place; None when there is nothing left to take back."""
        undone = None

        def make(records: list[Record]) -> Record | None:
            nonlocal undone
            answers = live(records, self.rater)
            if not answers:
                return None
            undone = self._place[answers[-1]["picture"]]
            return self._record("undo", self._card(undone), verdict=answers[-1]["verdict"])

        self._log.append(make)
        return undone

    def next_place(self) -> int | None:
        """The first picture without an answer; None when all is done."""
        verdicts = self.verdicts()
        return verdicts.index(None) if None in verdicts else None

    def seconds_left(self) -> float | None:
        """By the median time of an answer so far; None while there is none."""
        answers = self._answers()
        known = [answer["seconds"] for answer in answers if answer.get("seconds") is not None]
        return median(known) * self._verdicts(answers).count(None) if known else None

    def examples(self) -> list[tuple[NDArray[np.uint8], bool, str]]:
        """Six simulated pictures [S,S,3], each with whether it is plausible and why, in words."""
        pairs = zip(self._deck.example_pictures, self._deck.examples, strict=True)
        return [(picture, example.plausible, example.why) for picture, example in pairs]

    def _card(self, place: int) -> Card:
        if not 0 <= place < self.total:
            raise IndexError(f"place {place} of {self.total}")
        return self._deck.cards[self._order[place]]

    def _answers(self) -> list[Record]:
        return live(self._log.read(), self.rater)

    def _verdicts(self, answers: list[Record]) -> list[str | None]:
        found: list[str | None] = [None] * self.total
        for answer in answers:
            found[self._place[answer["picture"]]] = answer["verdict"]
        return found

    def _record(self, kind: str, card: Card, **what: object) -> Record:
        """A line that can be understood without session.json."""
        model = None if card.model is None else self._deck.models[card.model]
        return {
            "kind": kind,
            "session": self._deck.id,
            "rater": self.rater,
            "picture": card.id,
            "sha256": card.sha256,
            "model": model and model.name,
            "weights": model and model.weights,
            "seed": self._deck.asked.seed if model is None else model.seed,
            "index": card.index,
            "catch": card.catch,
            "plausible": card.plausible,
            **what,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }


def open_session(folder: Path, rater: str) -> Session:
    """The session in `folder` as `rater` sees it, with what was answered before.

    SriError for a folder that is damaged or of a newer sri, or a name that cannot be kept.
    """
    session = Session(load(folder), AnswerLog(folder / ANSWERS), checked_rater(rater))
    session.verdicts()  # a file that cannot be read is told now
    return session


def shuffled(total: int, seed: int, rater: str) -> list[int]:
    """Which picture of the file each place shows: raters see the same ones in different orders."""
    words = hashlib.sha256(rater.encode()).digest()
    random = np.random.default_rng((seed, *np.frombuffer(words, np.uint32).tolist()))
    return [int(card) for card in random.permutation(total)]


def live(records: list[Record], rater: str) -> list[Record]:
    """The answers of a rater that were not taken back, oldest first; a later one of the same
    picture stands for an earlier."""
    answers: list[Record] = []
    for record in records:
        if record.get("rater") != rater:
            continue
        if record["kind"] == "answer":
            answers.append(record)
        elif record["kind"] == "undo" and answers:
            answers.pop()
    return answers


def checked_rater(name: str) -> str:
    """The name as it is kept; SriError for one that could be taken for another."""
    name = unicodedata.normalize("NFC", name)
    wrong = None
    if not name or name != " ".join(name.split()):
        wrong = "is empty, or has blanks at an end or in a row"
    elif len(name) > LONGEST_NAME:
        wrong = f"has {len(name)} characters, {LONGEST_NAME} at most"
    elif odd := sorted({sign for sign in name if not (sign.isalnum() or sign in " ._-@+'")}):
        wrong = f"has {', '.join(ascii(sign) for sign in odd)} in it"
    if wrong is None:
        return name
    raise SriError(
        f"--rater {name!r}: the name {wrong}", "letters, digits, blanks and . _ - @ + ' are taken"
    )
