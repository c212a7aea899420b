"""Answers survive whatever ends the program, and nobody's is lost or kept twice."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sri_cli.errors import SriError, SriFailure
from sri_cli.labeling.session import VERDICTS, Session, open_session
from sri_cli.labeling.store import AnswerLog
from tests.labeling.terminals import ROOT

# Answers one place after the other, for ever, and says each answer after it was kept.
ANSWERING = """
import sys, itertools
from pathlib import Path
from sri_cli.labeling.session import VERDICTS, open_session
session = open_session(Path(sys.argv[1]), "Ann")
for n in itertools.count(int(sys.argv[2])):
    place, verdict = n % session.total, VERDICTS[n // session.total % 3]
    session.answer(place, verdict, 1.0)
    print(place, verdict, flush=True)
"""
# Answers all that nobody has answered, and says of which the answer was its own.
RACING = """
import sys
from pathlib import Path
from sri_cli.labeling.session import open_session
session = open_session(Path(sys.argv[1]), "Ann")
print("ready", flush=True)
sys.stdin.readline()
print(*(p for p in range(session.total) if session.answer(p, sys.argv[2], 1.0, None)))
"""


def python(code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kept(folder: Path) -> list[tuple[int, str]]:
    """Places and verdicts of all whole lines, in order."""
    session = open_session(folder, "Ann")
    records = AnswerLog(folder / "answers.jsonl").read()
    return [(session._place[record["picture"]], record["verdict"]) for record in records]


def test_killed_at_any_moment_it_has_every_answer_that_it_acknowledged(
    session_folder: Path,
) -> None:
    moments = random.Random(0)
    acknowledged: list[tuple[int, str]] = []
    for _ in range(20):
        process = python(ANSWERING, str(session_folder), str(len(kept(session_folder))))
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        said = [line.split() for line in (first + rest).splitlines() if line.count(" ") == 1]
        acknowledged += [(int(place), verdict) for place, verdict in said]
        found = kept(session_folder)
        # What was kept but not yet said stands as well: at most one answer.
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) - len(acknowledged) in (0, 1)
        acknowledged = found
    assert len(acknowledged) > 40


@pytest.mark.parametrize("torn", [b"{", b'{"schema": 1, "kind": "ans', b"\x00\x00\x00"])
def test_a_torn_line_is_passed_over_and_taken_away(session_folder: Path, torn: bytes) -> None:
    session = open_session(session_folder, "Ann")
    assert session.answer(0, "plausible")
    path = session_folder / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert session.verdicts()[0] == "plausible"
    assert session.answer(1, "unsure")
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0] == whole
    assert [json.loads(line)["verdict"] for line in lines] == ["plausible", "unsure"]


def test_an_answer_without_its_line_end_was_never_given(session_folder: Path) -> None:
    session = open_session(session_folder, "Ann")
    session.answer(0, "plausible")
    session.answer(1, "unsure")
    path = session_folder / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert session.verdicts()[:2] == ["plausible", None]
    assert session.answer(1, "implausible", expected=None)
    assert session.verdicts()[:2] == ["plausible", "implausible"]


def test_a_spoilt_line_spoils_no_other(session_folder: Path) -> None:
    session = open_session(session_folder, "Ann")
    session.answer(0, "plausible")
    path = session_folder / "answers.jsonl"
    path.write_bytes(path.read_bytes() + b"\x00\x00\n[1]\n")
    session.answer(1, "unsure")
    assert session.verdicts()[:2] == ["plausible", "unsure"]


def test_two_processes_answer_each_picture_once(session_folder: Path) -> None:
    racers = [python(RACING, str(session_folder), verdict) for verdict in VERDICTS[:2]]
    for racer in racers:
        assert racer.stdout is not None and racer.stdin is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [{int(place) for place in racer.communicate()[0].split()} for racer in racers]
    total = open_session(session_folder, "Ann").total
    assert won[0] | won[1] == set(range(total))
    assert not won[0] & won[1]
    assert sorted(place for place, _ in kept(session_folder)) == list(range(total))
    for place, verdict in kept(session_folder):
        assert place in won[VERDICTS.index(verdict)]


def test_it_waits_for_another_that_is_writing_and_sees_what_that_wrote(
    open_as: Callable[[str], Session], session_folder: Path
) -> None:
    mine, path = open_as("Ann"), session_folder / "answers.jsonl"
    open_as("Ann").answer(0, "plausible")
    line = path.read_bytes()
    open_as("Ann").undo()  # so that nothing stands at place 0
    outcome: list[bool] = []
    with open(path, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=lambda: outcome.append(mine.answer(0, "unsure", 1.0, None))
        )
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not outcome
        other.write(line)  # the other answers the same picture
    thread.join(10)
    assert outcome == [False]
    assert mine.verdicts()[0] == "plausible"


def test_threads_and_raters_share_a_file(open_as: Callable[[str], Session]) -> None:
    sessions = {rater: open_as(rater) for rater in ("Ann", "Bert", "Cleo")}

    def judge(rater: str) -> None:
        for place in range(sessions[rater].total):
            assert sessions[rater].answer(place, "plausible", 0.1, None)

    threads = [threading.Thread(target=judge, args=(rater,)) for rater in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in sessions.values():
        assert session.verdicts() == ["plausible"] * session.total


def test_a_full_disk_is_told_and_loses_nothing(
    session_folder: Path, largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    session = open_session(session_folder, "Ann")
    session.answer(0, "plausible")
    path = session_folder / "answers.jsonl"
    before = path.read_bytes()
    with largest_file(len(before) + 100), pytest.raises(SriFailure, match="answers.jsonl"):
        session.answer(1, "plausible")
    assert path.read_bytes() == before
    assert session.answer(1, "plausible")


def test_a_place_that_takes_no_file_is_told(session_folder: Path) -> None:
    (session_folder / "answers.jsonl").mkdir()
    with pytest.raises(SriError, match="answers.jsonl"):
        open_session(session_folder, "Ann")


@pytest.mark.parametrize("name", ["answers.jsonl", "session.json"])
def test_a_file_of_a_newer_sri_is_left_alone(session_folder: Path, name: str) -> None:
    open_session(session_folder, "Ann").answer(0, "plausible")
    path = session_folder / name
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    before = path.read_bytes()
    with pytest.raises(SriError, match="newer sri"):
        open_session(session_folder, "Ann").answer(1, "plausible")
    assert path.read_bytes() == before
