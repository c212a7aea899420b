"""Verdicts of several sessions and raters counted: each scene once, catch trials apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sri_cli.labeling.scenes import Deck, Kept, cards_of, save, sessions
from sri_cli.labeling.session import Session, open_session
from sri_cli.labeling.statistics import Caught, Tally, caught, judged_models
from tests.labeling.conftest import small_deck


def judge(session: Session, verdicts: dict[str, str]) -> None:
    """Answer the pictures named by their ids."""
    for place in range(session.total):
        card = session._card(place)
        if card.id in verdicts:
            assert session.answer(place, verdicts[card.id])


def kept(tmp_path: Path, *decks: Deck) -> list[Kept]:
    for deck in decks:
        save(tmp_path, deck)
    return sessions(tmp_path)


def everything(deck: Deck, verdict: str) -> dict[str, str]:
    return {card.id: verdict for card in deck.cards}


def test_counts_are_of_one_models_scenes_alone(tmp_path: Path) -> None:
    deck = small_deck()
    (one,) = kept(tmp_path, deck)
    said = everything(deck, "plausible") | {"m0-0": "unsure", "m0-1": "implausible"}
    judge(open_session(one.folder, "Ann"), said)
    found = judged_models([one])
    assert found["weights-0"].tally("Ann") == Tally(4, 1, 1)
    assert found["weights-1"].tally("Ann") == Tally(6, 0, 0)
    assert found["weights-0"].finished == ["Ann"]


def test_what_was_taken_back_does_not_count(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, small_deck())
    session = open_session(one.folder, "Ann")
    judge(session, {"m0-0": "implausible"})
    judge(session, {"m0-0": "plausible"})
    assert judged_models([one])["weights-0"].tally("Ann") == Tally(1, 0, 0)
    session.undo()
    assert judged_models([one])["weights-0"].tally("Ann") == Tally(0, 1, 0)
    session.undo()
    assert judged_models([one]) == {}


def test_finished_is_who_judged_all_scenes_of_the_model(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, small_deck())
    judge(open_session(one.folder, "Ann"), {f"m0-{i}": "plausible" for i in range(6)})
    judge(open_session(one.folder, "Bert"), {f"m0-{i}": "plausible" for i in range(5)})
    found = judged_models([one])["weights-0"]
    assert found.raters == ["Ann", "Bert"]
    assert found.finished == ["Ann"]
    assert found.scenes == 6


def test_a_scene_of_two_sessions_counts_once_as_it_was_judged_last(tmp_path: Path) -> None:
    alone, together = small_deck(num=4, models=1, catch=0), small_deck(num=4, models=1, catch=2)
    np.testing.assert_array_equal(alone.pictures, together.pictures[:4])
    for deck, verdict in ((together, "implausible"), (alone, "plausible")):
        folder = save(tmp_path, deck)
        judge(open_session(folder, "Ann"), everything(deck, verdict))
        judge(open_session(folder, "Bert"), {"m0-0": verdict})
    found = judged_models(sessions(tmp_path))["weights-0"]
    assert found.tally("Ann") == Tally(4, 0, 0)
    assert found.tally("Bert") == Tally(1, 0, 0)


def test_other_scenes_of_the_same_model_add_up(tmp_path: Path) -> None:
    for seed in (0, 1):
        deck = small_deck(num=4, models=1, seed=seed)
        judge(open_session(save(tmp_path, deck), "Ann"), everything(deck, "plausible"))
    assert judged_models(sessions(tmp_path))["weights-0"].tally("Ann") == Tally(8, 0, 0)


def test_scenes_that_look_alike_are_not_one(tmp_path: Path) -> None:
    # A model that draws one and the same picture for ever has drawn it that often.
    deck = small_deck(num=4, models=1, catch=0)
    pictures = deck.pictures[:1].repeat(4, axis=0)
    same = Deck(
        deck.asked,
        deck.models,
        tuple(cards_of(pictures, 0, range(4))),
        pictures,
        deck.examples,
        deck.example_pictures,
    )
    judge(open_session(save(tmp_path, same), "Ann"), everything(same, "plausible"))
    assert judged_models(sessions(tmp_path))["weights-0"].tally("Ann").judged == 4


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"catch-0": "plausible", "catch-1": "implausible", "catch-2": "implausible"}, (3, 0, 0)),
        ({"catch-0": "implausible", "catch-1": "plausible", "catch-2": "unsure"}, (0, 2, 1)),
        ({"catch-1": "implausible"}, (1, 0, 0)),
    ],
)
def test_catch_trials_tell_how_good_a_rater_is(
    tmp_path: Path, verdicts: dict[str, str], expected: tuple[int, int, int]
) -> None:
    (one,) = kept(tmp_path, small_deck())
    judge(open_session(one.folder, "Ann"), verdicts)
    assert caught([one]) == {"Ann": Caught(*expected)}
    assert judged_models([one]) == {}  # and are nobody's scenes


def test_a_catch_trial_of_two_sessions_is_one(tmp_path: Path) -> None:
    decks = [small_deck(num=6, models=2), small_deck(num=6, models=2)]
    other = decks[1]
    again = Deck(
        other.asked.__class__(("weights-0",), 0, 6, 3),
        other.models[:1],
        tuple(card for card in other.cards if card.model != 1),
        np.concatenate([other.pictures[:6], other.pictures[12:]]),
        other.examples,
        other.example_pictures,
    )
    for deck, verdict in ((decks[0], "plausible"), (again, "implausible")):
        judge(open_session(save(tmp_path, deck), "Ann"), everything(deck, verdict))
    assert caught(sessions(tmp_path)) == {"Ann": Caught(2, 1, 0)}
