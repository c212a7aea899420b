"""Sessions: which images they hold, blind and shuffled views, and answers that survive anything."""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling import scenes
from sri_cli.labeling.scenes import prepare_session
from sri_cli.labeling.session import (
    Deck,
    Session,
    check_rater,
    read_session,
    read_sessions,
)
from sri_cli.run import Workspace
from tests.damage import damage
from tests.labeling.conftest import small_session
from tests.small_cli import start
from tests.small_data import write_images, write_run, write_small_data

# Answers one position after the other, for ever, and prints each answer once it is saved.
ANSWERING = """
import sys, itertools
from pathlib import Path
from sri_cli.labeling.session import VERDICTS, Session
session = Session(Path(sys.argv[1]), "Ann")
for n in itertools.count(int(sys.argv[2])):
    position, verdict = n % session.total, VERDICTS[n // session.total % 3]
    session.answer({position: verdict}, 1.0)
    print(position, verdict, flush=True)
"""


@pytest.fixture
def session(folder: Path) -> Session:
    return Session(folder, "Ann")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()]


def test_raters_see_the_same_images_in_different_orders(folder: Path) -> None:
    shown = {
        rater: [Session(folder, rater).image(i).tobytes() for i in range(15)]
        for rater in ("Ann", "Bert")
    }
    assert shown["Ann"] != shown["Bert"] and len(set(shown["Ann"])) == 15
    assert sorted(shown["Ann"]) == sorted(shown["Bert"])
    assert [Session(folder, "Ann").image(i).tobytes() for i in range(15)] == shown["Ann"]


def test_models_and_catch_trials_are_mixed(tmp_path: Path) -> None:
    session = Session(small_session(tmp_path, num=60), "Ann")
    models = [item.model for item in session._items]
    for i in (0, 41, 82):  # no third holds nearly all or nearly none of one model
        part = models[i : i + 41]
        assert 8 < part.count(0) < 33 and 8 < part.count(1) < 33


def test_undo_restores_the_verdict_before(session: Session, folder: Path) -> None:
    session.answer({3: "plausible"})
    session.answer({5: "unsure"})
    session.answer({3: "implausible"})
    before = (folder / "answers.jsonl").read_bytes()
    assert session.undo() == [3]
    assert (folder / "answers.jsonl").read_bytes().startswith(before)
    assert [line["kind"] for line in lines(folder)] == ["answer"] * 3 + ["undo"]
    assert session.verdicts()[3] == "plausible"
    assert session.undo(20) == [5, 3]
    assert session.undo() == [] and set(session.verdicts()) == {None}


def test_undo_reaches_other_tabs_but_no_other_rater(session: Session, folder: Path) -> None:
    other_tab, other = Session(folder, "Ann"), Session(folder, "Bert")
    session.answer({0: "plausible"})
    other_tab.answer({1: "plausible"})
    other.answer({2: "plausible"})
    assert session.undo(3) == [1, 0]
    assert other.verdicts()[2] == "plausible"


def test_an_answer_sent_twice_is_saved_once(session: Session, folder: Path) -> None:
    version = session.state()["version"]
    for _ in range(2):  # the response to the first was lost
        assert session.answer({0: "plausible"}, 1.0, version)
    assert len(lines(folder)) == 1


def test_a_process_killed_at_any_moment_has_saved_what_it_acknowledged(folder: Path) -> None:
    moments, acknowledged = random.Random(0), []
    for _ in range(4):
        count = len(acknowledged)
        # With one pipe alone communicate() returns what readline() has buffered, too.
        process = start(str(folder), str(count), code=ANSWERING, stderr=None)
        first = process.stdout.readline()
        assert first, "it ended before its first answer"
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        printed = (first + process.communicate()[0]).splitlines()
        acknowledged += [line.split() for line in printed if line.count(" ") == 1]
        session = Session(folder, "Ann")
        found = [
            [str(session._position[one["picture"]]), one["verdict"]]
            for one in session._deck.answers()
        ]
        # One more answer may be saved but not printed yet.
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) - len(acknowledged) in (0, 1)
        acknowledged = found


@pytest.mark.parametrize(
    "torn",
    [
        b"{",
        b'{"schema": 1, "kind": "ans',
        b"\x00\x00\x00",
        b"\x00\x00\n[1]\n",
        b'{"schema": 1}\n{"rater": 3}\n',
        b'{"schema": 1, "rater": "Ann", "kind": "answer", "picture": "none such",'
        b' "verdict": "unsure", "time": "2026-01-01T00:00:00+00:00"}\n',
    ],
)
def test_a_torn_line_is_skipped(session: Session, folder: Path, torn: bytes) -> None:
    session.answer({0: "plausible"})
    path = folder / "answers.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    assert session.verdicts()[0] == "plausible"
    session.answer({1: "unsure"})
    assert session.verdicts()[:2] == ["plausible", "unsure"]


def test_an_answer_without_its_line_end_does_not_count(session: Session, folder: Path) -> None:
    session.answer({0: "plausible"})
    session.answer({1: "unsure"})
    path = folder / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert session.verdicts()[:2] == ["plausible", None]
    session.answer({1: "implausible"})
    assert [one["verdict"] for one in lines(folder)] == ["plausible", "implausible"]


def test_threads_and_raters_share_a_file(folder: Path) -> None:
    won: list[tuple[str, int, str]] = []

    def judge_all(rater: str, verdict: str) -> None:
        session = Session(folder, rater)
        while None in (state := session.state())["verdicts"]:
            position = state["verdicts"].index(None)
            if session.answer({position: verdict}, 0.1, state["version"]):
                won.append((rater, position, verdict))

    pairs = [("Ann", "plausible"), ("Ann", "unsure"), ("Bert", "implausible")]
    threads = [threading.Thread(target=judge_all, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(folder)) == 30
    for rater in ("Ann", "Bert"):
        mine = {position: verdict for who, position, verdict in won if who == rater}
        assert Session(folder, rater).verdicts() == [mine[i] for i in range(15)]


def test_a_session_of_version_0_1_continues(folder: Path) -> None:
    facts = json.loads((folder / "session.json").read_text())
    facts |= {"session": folder.name, "sri": "0.1.0", "examples": [{"plausible": True, "why": ""}]}
    (folder / "session.json").write_text(json.dumps(facts))
    images = read_session(folder).load_images()
    np.savez(folder / "pictures.npz", pictures=images, examples=images[:1])
    line = {"schema": 1, "kind": "answer", "session": folder.name, "rater": "Ann"}
    line |= {"picture": "m0-0", "sha256": facts["pictures"][0]["sha256"], "model": "secret-0"}
    line |= {"weights": "weights-0", "seed": 0, "index": 0, "catch": None, "plausible": None}
    line |= {"verdict": "unsure", "seconds": 1.0, "time": "2026-11-01T10:00:00.000+00:00"}
    (folder / "answers.jsonl").write_text(json.dumps(line) + "\n")
    session = Session(folder, "Ann")
    position = session.verdicts().index("unsure")
    np.testing.assert_array_equal(session.image(position), images[0])
    assert session.undo() == [position]


def test_a_session_of_a_newer_version_is_refused(folder: Path) -> None:
    path = folder / "session.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(SriError, match=r"session\.json"):
        Session(folder, "Ann")


@pytest.mark.parametrize("name", ["pictures.npz", "session.json"])
@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_a_damaged_session_is_refused(folder: Path, name: str, how: str) -> None:
    damage(folder / name, how)
    with pytest.raises(SriError, match="damaged"):
        Session(folder, "Ann")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 9}', '{"schema": "x"}'])
def test_a_broken_session_does_not_block_the_others(
    folder: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = small_session(folder.parent, seed=1)
    (folder / "session.json").write_text(content)
    assert [deck.folder for deck in read_sessions(folder.parent)] == [other]
    assert str(folder) in capsys.readouterr().err


def test_a_broken_session_is_written_again_and_keeps_its_answers(folder: Path) -> None:
    Session(folder, "Ann").answer({2: "unsure"})
    for name in ("session.json", "pictures.npz"):
        (folder / name).write_bytes(b"")
    assert small_session(folder.parent) == folder
    assert Session(folder, "Ann").verdicts()[2] == "unsure"


def test_changed_pixels_are_refused(folder: Path) -> None:
    images = read_session(folder).load_images()
    images[4, 3, 2, 1] ^= 1
    np.savez(folder / "pictures.npz", pictures=images)
    with pytest.raises(SriError, match="does not match"):
        Session(folder, "Ann")


@pytest.mark.parametrize("name", ["Béa", "o'neil@x.org", "Ann B. C", "x" * 64])
def test_rater_names(name: str) -> None:
    assert check_rater(name) == name
    assert check_rater("Be\u0301a") == "Béa"  # composed and decomposed are one name


@pytest.mark.parametrize("name", ["", " Ann", "A  B", "a/b", "a\nb", "a\u200bb", "x" * 65])
def test_names_that_could_be_confused_are_refused(name: str) -> None:
    with pytest.raises(SriError, match="--rater"):
        check_rater(name)


# Which images `sri label-sacc` shows


def begin(workspace: Workspace, *runs: str, folders: tuple[Path, ...] = (), **how: int) -> Path:
    return prepare_session(workspace, runs, folders, **{"num": 4, "catch": 4, **how})


def drawn(workspace: Workspace, *runs: str, **how) -> tuple[Deck, np.ndarray]:
    deck = read_session(begin(workspace, *runs, **how))
    return deck, deck.load_images()


def test_scenes_are_those_of_sri_sample(workspace: Workspace, trained: TrainedRun) -> None:
    deck, images = drawn(workspace, "tiny", num=5, seed=3, catch=0)
    scenes = sample_scenes(trained.model, 5, 3, 1.0, seed=3)
    np.testing.assert_array_equal(images, np.concatenate([quantise(s.image) for s in scenes]))
    assert [item.index for item in deck.items] == list(range(5))


def test_the_same_settings_continue_a_session(workspace: Workspace) -> None:
    first = begin(workspace, "tiny", "other")
    written = (first / "pictures.npz").stat().st_mtime_ns
    shutil.rmtree(workspace.data_root)
    (workspace.runs_root / "tiny").rename(workspace.runs_root / "renamed")
    assert begin(workspace, "other", "renamed") == first
    assert (first / "pictures.npz").stat().st_mtime_ns == written
    others = [begin(workspace, "renamed")]
    others += [
        begin(workspace, "renamed", "other", **how)
        for how in ({"seed": 1}, {"num": 5}, {"catch": 3})
    ]
    assert len({first, *others}) == 5


def test_real_catch_trials_are_from_the_data_of_the_run(workspace: Workspace) -> None:
    deck, _ = drawn(workspace, "tiny", num=2, catch=10)
    total = DataFile(workspace.data_path("demo-towers", 32)).counts["test"]
    real = [item.index for item in deck.items if item.catch == "real"]
    assert len({*real}) == 4 and max(real) < total


def test_a_folder_beside_a_run(workspace: Workspace, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "theirs", 6)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    deck, images = drawn(workspace, "tiny", folders=(folder,))
    number = next(i for i, model in enumerate(deck.models) if model.name == "theirs")
    mine = [i for i, item in enumerate(deck.items) if item.model == number]
    assert len(mine) == 4
    for i in mine:
        file = folder / f"{deck.items[i].index}.png"
        np.testing.assert_array_equal(images[i], np.asarray(Image.open(file)))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_folders_of_one_name_get_different_names(workspace: Workspace, tmp_path: Path) -> None:
    folders = tuple(write_images(tmp_path / f"{i}" / "same", 3, seed=i) for i in range(2))
    deck, images = drawn(workspace, folders=folders, catch=0)
    assert len({model.name for model in deck.models}) == 2
    assert len(images) == 6, "all where there are fewer than --num"


@pytest.mark.parametrize("is_here", [True, False])
def test_catch_trials_look_like_the_data_of_the_run_also_without_its_file(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, is_here: bool
) -> None:
    looks, draw = [], scenes.catch_trials
    monkeypatch.setattr(
        scenes, "catch_trials", lambda *words: looks.append(words[3]) or draw(*words)
    )
    if not is_here:
        workspace.data_path("demo-towers", 32).unlink()
    deck, _ = drawn(workspace, "tiny", num=2, catch=10)
    assert looks == ["demo"]
    assert ("real" in {item.catch for item in deck.items}) == is_here


def test_other_data_than_stacks_gives_a_warning(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    sprites = write_small_data(workspace.data_root / "multi-dsprites-32.h5")
    write_run(workspace.runs_root / "sprites", data="multi-dsprites")
    for name in ("sprites", "tiny"):  # whatever the real images are
        prepare_session(workspace, [name], (), num=2, catch=2, data=str(sprites))
        assert ("Warning" in capsys.readouterr().err) == (name == "sprites")


def test_a_run_is_needed(empty: Workspace) -> None:
    with pytest.raises(SriError, match="runs"):
        begin(empty)
