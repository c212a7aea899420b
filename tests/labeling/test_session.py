"""A rater's way through a session: blind, shuffled, taken up again, taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sri_cli.errors import SriError
from sri_cli.labeling.scenes import find, load, read, save
from sri_cli.labeling.session import DEFINITION, Session, open_session
from tests.labeling.conftest import small_deck

Open = Callable[[str], Session]


def test_raters_see_the_same_pictures_in_different_orders(open_as: Open) -> None:
    shown = {
        rater: [open_as(rater).picture(place).tobytes() for place in range(15)]
        for rater in ("Ann", "Bert")
    }
    assert shown["Ann"] != shown["Bert"]
    assert sorted(shown["Ann"]) == sorted(shown["Bert"])
    assert len(set(shown["Ann"])) == 15


def test_a_session_goes_on_with_the_very_same_pictures(open_as: Open) -> None:
    before = open_as("Ann")
    shown = [before.picture(place).copy() for place in range(before.total)]
    for place in (0, 1, 2, 4):
        before.answer(place, "plausible")
    after = open_as("Ann")
    for place, picture in enumerate(shown):
        np.testing.assert_array_equal(after.picture(place), picture)
    assert after.next_place() == 3
    assert after.verdicts() == before.verdicts()


def test_models_and_catch_trials_are_mixed(session_folder: Path) -> None:
    # Of 60 scenes of each model, no third of the way holds nearly all or nearly none of one.
    deck = small_deck(num=60)
    session = Session(deck, read(session_folder).log, "Ann")
    models = [session._card(place).model for place in range(session.total)]
    for start in (0, 41, 82):
        part = models[start : start + 41]
        assert 8 < part.count(0) < 33 and 8 < part.count(1) < 33


def test_nothing_public_tells_what_a_picture_is(open_as: Open) -> None:
    session = open_as("Ann")
    assert {name for name in vars(session) if not name.startswith("_")} == {"rater", "total"}
    session.answer(0, "plausible", 1.0)
    told = [session.verdicts(), session.next_place(), session.seconds_left(), session.undo()]
    told += [session.rater, session.total, repr(session), str(session), DEFINITION]
    told += [words for _, *words in session.examples()]
    public = {name for name in dir(session) if not name.startswith("_")}
    assert public == {
        *("rater", "total", "picture", "verdicts", "answer", "undo"),
        *("next_place", "seconds_left", "examples"),
    }
    for secret in ("secret", "weights", "catch", "floating", "gapped", "real", "m0", "m1"):
        assert secret not in json.dumps(told)
    assert all(
        type(session.picture(place)) is np.ndarray and session.picture(place).shape == (16, 16, 3)
        for place in range(session.total)
    )


def test_undo_takes_back_one_answer_after_another(open_as: Open) -> None:
    session = open_as("Ann")
    session.answer(3, "plausible")
    session.answer(5, "unsure")
    session.answer(3, "implausible")
    assert session.undo() == 3
    assert session.verdicts()[3] == "plausible"  # what stood there before
    assert session.undo() == 5
    assert session.verdicts()[5] is None
    assert session.undo() == 3
    assert session.undo() is None
    assert set(session.verdicts()) == {None}


def test_undo_is_a_line_of_its_own(open_as: Open, session_folder: Path) -> None:
    session = open_as("Ann")
    session.answer(3, "plausible")
    before = (session_folder / "answers.jsonl").read_bytes()
    session.undo()
    after = (session_folder / "answers.jsonl").read_bytes()
    assert after.startswith(before)
    kinds = [json.loads(line)["kind"] for line in after.splitlines()]
    assert kinds == ["answer", "undo"]


def test_undo_reaches_answers_of_another_tab_but_of_no_other_rater(open_as: Open) -> None:
    tab, other_tab, other = open_as("Ann"), open_as("Ann"), open_as("Bert")
    tab.answer(0, "plausible")
    other_tab.answer(1, "plausible")
    other.answer(2, "plausible")
    assert tab.undo() == 1
    assert tab.undo() == 0
    assert tab.undo() is None
    assert other.verdicts()[2] == "plausible"


def test_a_stale_tab_changes_nothing(open_as: Open) -> None:
    tab, stale = open_as("Ann"), open_as("Ann")
    assert tab.answer(0, "plausible", 1.0, None)
    assert not stale.answer(0, "implausible", 1.0, None)
    assert stale.verdicts()[0] == "plausible"
    assert stale.answer(0, "implausible", 1.0, "plausible")
    assert not tab.answer(0, "unsure", 1.0, "plausible")
    assert tab.verdicts()[0] == "implausible"


def test_a_verdict_that_stands_is_not_kept_twice(open_as: Open, session_folder: Path) -> None:
    session = open_as("Ann")
    for _ in range(3):
        assert session.answer(0, "plausible")
    assert len((session_folder / "answers.jsonl").read_bytes().splitlines()) == 1


def test_an_answer_is_a_line_that_stands_for_itself(open_as: Open, session_folder: Path) -> None:
    session = open_as("Béa O'Neill")
    session.answer(0, "plausible", 2.5)
    (line,) = (session_folder / "answers.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["schema"] == 1 and record["session"] == session_folder.name
    assert record["rater"] == "Béa O'Neill" and record["verdict"] == "plausible"
    assert record["seconds"] == 2.5 and record["time"].endswith("+00:00")
    card = next(card for card in read(session_folder).cards if card.id == record["picture"])
    assert (record["sha256"], record["index"]) == (card.sha256, card.index)
    if card.model is not None:
        assert record["weights"] == f"weights-{card.model}" and record["seed"] == 0
    else:
        assert record["catch"] == card.catch


def test_time_left_is_by_the_median(open_as: Open) -> None:
    session = open_as("Ann")
    assert session.seconds_left() is None
    for place, seconds in enumerate((2.0, 3.0, 600.0)):  # the rater had a coffee
        session.answer(place, "plausible", seconds)
    assert session.seconds_left() == 3.0 * 12


def test_verdicts_and_places_that_there_are_not(open_as: Open, session_folder: Path) -> None:
    session = open_as("Ann")
    with pytest.raises(ValueError, match="maybe"):
        session.answer(0, "maybe")
    for place in (-1, 15):
        with pytest.raises(IndexError):
            session.answer(place, "plausible")
    assert not (session_folder / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("", "empty"),
        (" Ann", "blanks"),
        ("Ann  B", "blanks"),
        ("Ann\n", "blanks"),
        ("../Ann", "'/'"),
        ("Ann\x00", "x00"),
        ("<b>", "'<', '>'"),
        ("Ann\N{RIGHT-TO-LEFT OVERRIDE}", "u202e"),
        ("\udcff", "udcff"),
        ("A" * 65, "65 characters"),
    ],
)
def test_odd_names_are_told(session_folder: Path, name: str, wrong: str) -> None:
    with pytest.raises(SriError, match="--rater") as told:
        open_session(session_folder, name)
    assert wrong in told.value.message


def test_one_name_written_in_two_ways_is_one_rater(open_as: Open) -> None:
    open_as("Jos\N{LATIN SMALL LETTER E WITH ACUTE}").answer(0, "plausible")
    assert open_as("Jose\N{COMBINING ACUTE ACCENT}").verdicts()[0] == "plausible"


def test_pictures_that_were_changed_are_refused(session_folder: Path) -> None:
    with np.load(session_folder / "pictures.npz") as file:
        pictures, examples = file["pictures"], file["examples"]
    pictures[4, 3, 2, 1] ^= 1
    np.savez(session_folder / "pictures.npz", pictures=pictures, examples=examples)
    with pytest.raises(SriError, match="not those that were judged"):
        open_session(session_folder, "Ann")


@pytest.mark.parametrize("name", ["pictures.npz", "session.json"])
@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_a_damaged_session_is_told(
    session_folder: Path, damage: Callable[[Path, str], None], name: str, how: str
) -> None:
    damage(session_folder / name, how)
    with pytest.raises(SriError, match="damaged"):
        open_session(session_folder, "Ann")


def test_a_session_is_found_by_what_was_asked(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    folders = [save(labels, small_deck(seed=seed)) for seed in (0, 1)]
    assert len(set(folders)) == 2
    for seed, folder in enumerate(folders):
        found = find(labels, small_deck(seed=seed).asked)
        assert found is not None and found.folder == folder
    assert find(labels, small_deck(num=5).asked) is None
    assert find(labels, small_deck(models=1).asked) is None


def test_the_same_session_begun_twice_is_one(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    folder = save(labels, small_deck())
    open_session(folder, "Ann").answer(0, "plausible")
    assert save(labels, small_deck()) == folder
    assert open_session(folder, "Ann").verdicts()[0] == "plausible"
    assert [path.name for path in labels.iterdir()] == [folder.name]
    assert load(folder).id == folder.name
