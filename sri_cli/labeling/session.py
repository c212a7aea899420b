"""A labelling session on disk, and the view that one rater has of it: blind and shuffled.

A session may hold scenes of several models, so it belongs to no run. It is a folder
`runs/labels/<id>/` (file names and keys are those of version 0.1):

  session.json    settings, models with their seed, and the hash and index of every image
  pictures.npz    `pictures` uint8 [N,S,S,3]
  answers.jsonl   one line per answer or undo, of all raters; lines are only ever added

Axis legend: N images, S side in pixels.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from sri_cli import __version__
from sri_cli.atomic import cannot_write, ensure_folder, list_folder, sync, write_atomic
from sri_cli.console import warn
from sri_cli.errors import SriError, pip_install
from sri_cli.rng import stream
from sri_cli.strict_json import Record, from_json, parse_lines, to_json

SCHEMA = 1
FOLDER = "labels"  # in the runs folder
FACTS, IMAGES, ANSWERS = "session.json", "pictures.npz", "answers.jsonl"
VERDICTS = ("plausible", "implausible", "unsure")
MODES = ("single", "grid")  # of the page: one image at a time, or many


class Question(NamedTuple):
    """What raters decide: the `title` of the page, when an image is plausible, and `examples`."""

    title: str
    definition: str
    examples: str


STACKS, SCENES = "stacks", "scenes"
QUESTIONS = {
    STACKS: Question(
        "Is this a plausible stack?",
        "A stack is plausible when all of its blocks touch each other. Only touching counts, not"
        " whether the stack would stand.",
        "A block that floats above the one below it, or lies beside it, makes a stack not"
        " plausible; a stack that would fall is plausible if all of its blocks touch.",
    ),
    SCENES: Question(
        "Is this a plausible scene?",
        "A scene is plausible when it has one floor, its walls meet, and every object is whole and"
        " stands on the floor.",
        "An object that floats, hangs on a wall or is torn into parts makes a scene not plausible,"
        " and so does a second floor or a wall that ends in the air. Where no wall is in view, only"
        " floor and objects count.",
    ),
}
LONGEST_NAME, LONGEST_SEC = 64, 86_400

Images = NDArray[np.uint8]


class Model(BaseModel):
    """A model, or a folder of images, whose scenes are judged.

    `weights` is a hash of the model (or of the folder's images) and identifies it wherever it
    lies; `subject` and `data` are those of a measurement, `trained_on` the data set that a run has
    learned. `seed` is None for a folder.
    """

    name: str
    weights: str
    subject: dict[str, Any]
    data: dict[str, Any] | None = None
    trained_on: str | None = None
    seed: int | None = None
    slots: int | None = None
    temperature: float | None = None


class Item(BaseModel):
    """One image: scene `index` of model number `model`, or a catch trial (`model` None).

    `catch` is the kind of catch trial, and `plausible` its known verdict.
    """

    id: str
    sha256: str
    index: int
    model: int | None
    catch: str | None = None
    plausible: bool | None = None


class Deck(BaseModel):
    """The content of session.json. Two commands with the same settings mean the same session."""

    folder: Path = Field(exclude=True)
    schema_version: int = Field(SCHEMA, alias="schema")
    sri: str = __version__
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    settings: dict[str, Any] = Field(alias="asked")
    models: list[Model]
    items: list[Item] = Field(alias="pictures")

    def load_images(self) -> Images:
        """Raises SriError unless every image has the hash of its item."""
        try:
            with np.load(self.folder / IMAGES, allow_pickle=False) as file:
                images: Images = file["pictures"]
        except Exception as error:  # of numpy, zipfile and zlib
            raise _damaged(self.folder, f"{IMAGES} cannot be read") from error
        if [image_hash(image) for image in images] != [item.sha256 for item in self.items]:
            raise _damaged(self.folder, f"{IMAGES} does not match {FACTS}")
        return images

    @property
    def question(self) -> str:
        """One of QUESTIONS."""
        return str(self.settings.get("question", STACKS))  # of version 0.1: stacks

    def answers(self) -> list[Record]:
        """All complete records of all raters, the oldest first.

        A last line that a crash cut short is skipped, and so are lines about other images.
        """
        path = self.folder / ANSWERS
        try:
            return self._parse(path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SriError(f"{path} cannot be read: {error.strerror}") from error

    @contextmanager
    def adding(self) -> Iterator[tuple[list[Record], list[Record]]]:
        """The records so far, and a list for new ones, which are on disk when the block has ended.

        Any number of threads and processes may add records; nobody else writes in between. A last
        line that a crash cut short is removed. Raises SriFailure when the disk refuses; the file is
        then as it was.
        """
        path = ensure_folder(self.folder) / ANSWERS
        is_new = not path.exists()
        new: list[Record] = []
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            # Unbuffered: a buffer would try to write a refused line again when it is closed.
            with open(descriptor, "r+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if is_new:
                    sync(self.folder)
                data = file.read()
                yield self._parse(data), new
                if new:
                    lines = "".join(to_json({"schema": SCHEMA, **one}) + "\n" for one in new)
                    _write(file, data.rfind(b"\n") + 1, lines.encode())
        except OSError as error:
            raise cannot_write(path, error) from error

    def _parse(self, data: bytes) -> list[Record]:
        ids = {item.id for item in self.items}

        def is_record(record: Record) -> bool:
            texts = (record.get(key) for key in ("rater", "kind", "picture", "time"))
            return (
                all(isinstance(text, str) for text in texts)
                and record["kind"] in ("answer", "undo")
                and record["picture"] in ids
                and record.get("verdict") in VERDICTS
            )

        return parse_lines(data[: data.rfind(b"\n") + 1], self.folder / ANSWERS, is_record)


def image_hash(image: Images) -> str:
    """SHA-256 of the pixels, row by row."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def write_session(
    labels: Path, settings: dict[str, Any], models: list[Model], items: list[Item], images: Images
) -> Path:
    """Write a session's folder, or leave it as it is where it is intact; answers are kept."""
    hashes = sorted(item.sha256 for item in items)
    named = json.dumps([settings["weights"], settings["seed"], settings["num"], hashes])
    folder = labels / hashlib.sha256(named.encode()).hexdigest()[:12]
    try:
        read_session(folder)
    except DamagedSession:  # or there is none yet
        buffer = BytesIO()
        np.savez_compressed(buffer, pictures=images)
        write_atomic(folder / IMAGES, buffer.getvalue())
        facts: dict[str, Any] = {"asked": settings, "models": models, "pictures": items}
        text = Deck(folder=folder, **facts).model_dump_json(indent=1, by_alias=True)
        write_atomic(folder / FACTS, f"{text}\n".encode())  # last: without it there is no session
    return folder


def read_session(folder: Path) -> Deck:
    """Raises SriError where session.json was written by a newer version, DamagedSession where it
    cannot be read."""
    try:
        facts = from_json((folder / FACTS).read_bytes())
        if facts["schema"] > SCHEMA:
            raise SriError(
                f"{folder / FACTS} was written by a newer sri (schema {facts['schema']})",
                pip_install("--upgrade", "sri-cli"),
            )
        deck = Deck(folder=folder, **facts)
        if deck.question not in QUESTIONS or type(deck.settings.get("seed")) is not int:
            raise ValueError("settings")
        return deck
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{FACTS} cannot be read") from error


def read_sessions(labels: Path) -> list[Deck]:
    """All sessions in the folder `labels`, the oldest first; what cannot be read is noted."""
    decks = []
    for path in list_folder(labels):
        if not (path / FACTS).exists():
            continue
        try:
            decks.append(read_session(path))
        except SriError as error:
            warn(f"Note: {error.message}; it is skipped")
    return sorted(decks, key=lambda deck: deck.time)


class DamagedSession(SriError):
    """A session of which a file is missing, cut or changed."""


def _write(file: Any, start: int, data: bytes) -> None:
    """Write all of `data` at byte `start` and sync it, or restore the file."""
    try:
        file.truncate(start)
        file.seek(start)
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(start)
        raise


def standing_answers(records: Sequence[Record], rater: str) -> list[Record]:
    """The answers of a rater that were not undone, the oldest first; of two answers for the same
    image the later one counts."""
    answers: list[Record] = []
    for record in records:
        if record.get("rater") != rater:
            continue
        if record["kind"] == "answer":
            answers.append(record)
        elif record["kind"] == "undo" and answers:
            answers.pop()
    return answers


class Session:
    """A session as one rater sees it: images by position 0 .. total-1 in the rater's own order.

    Everything public here may reach the page: nothing of it depends on which model an image is
    of or on whether it is a catch trial. Any number of threads and processes may have the same
    session open; the state is on disk.
    """

    def __init__(self, folder: Path, rater: str) -> None:
        """Raises SriError for a damaged folder, or one of a newer version."""
        self._deck = deck = read_session(folder)
        self.rater, self.total = rater, len(deck.items)
        self.question = QUESTIONS[deck.question]
        # A page of another session may still be open in a tab, at the same address.
        self.id = hashlib.sha256(f"{deck.folder.resolve()}/{rater}".encode()).hexdigest()[:16]
        order = shuffled(self.total, deck.settings["seed"], rater)
        self._items, self._images = [deck.items[i] for i in order], deck.load_images()[order]
        self._position = {item.id: i for i, item in enumerate(self._items)}

    def image(self, position: int) -> Images:
        """[S,S,3]."""
        return self._images[position]

    def verdicts(self) -> list[str | None]:
        """The verdict at each position, None where there is none; read from disk."""
        return self._verdicts(self._deck.answers())

    def state(self) -> dict[str, Any]:
        """`verdicts`, and `version`, which changes with every answer and undo."""
        records = self._deck.answers()
        return {"verdicts": self._verdicts(records), "version": self._version(records)}

    def answer(
        self,
        verdicts: Mapping[int, str],
        seconds: float | None = None,
        version: int | None = None,
        mode: str = MODES[0],
    ) -> bool:
        """Save verdicts by position; they are on disk when this returns.

        Args:
            verdicts: position -> one of VERDICTS. A verdict that stands already is not written
                again.
            seconds: time that each of the answers took.
            version: the `version` of the state that the rater saw. If it has changed since (in
                another tab), nothing is written and the result is False. None: no check.
            mode: one of MODES, in which the rater saw the images.

        Raises:
            IndexError, TypeError, ValueError: for arguments that are out of range.
        """
        if not all(0 <= position < self.total for position in verdicts):
            raise IndexError(f"positions are 0 .. {self.total - 1}")
        if not set(verdicts.values()) <= set(VERDICTS):
            raise ValueError(f"verdicts are {', '.join(VERDICTS)}")
        if mode not in MODES:
            raise ValueError(f"modes are {', '.join(MODES)}")
        if seconds is not None and not 0 <= seconds <= LONGEST_SEC:
            raise ValueError(f"seconds are 0 .. {LONGEST_SEC}")
        with self._deck.adding() as (records, new):
            standing = self._verdicts(records)
            changed = {at: verdict for at, verdict in verdicts.items() if standing[at] != verdict}
            if changed and version not in (None, self._version(records)):
                return False
            more = {"seconds": seconds, "mode": mode}
            new += [self._record("answer", at, changed[at], **more) for at in changed]
        return True

    def undo(self, count: int = 1, version: int | None = None) -> list[int] | None:
        """Take back the rater's last answers; the verdicts before them stand again.

        Returns the positions, the last answer first (fewer than `count` when no answers are
        left), or None where `version` is no longer current.
        """
        if count < 1:
            raise ValueError("count is at least 1")
        with self._deck.adding() as (records, new):
            if version not in (None, self._version(records)):
                return None
            last = standing_answers(records, self.rater)[::-1][:count]
            positions = [self._position[one["picture"]] for one in last]
            for position, one in zip(positions, last, strict=True):
                new.append(self._record("undo", position, one["verdict"]))
        return positions

    def _verdicts(self, records: Sequence[Record]) -> list[str | None]:
        verdicts: list[str | None] = [None] * self.total
        for answer in standing_answers(records, self.rater):
            verdicts[self._position[answer["picture"]]] = answer["verdict"]
        return verdicts

    def _version(self, records: Sequence[Record]) -> int:
        return sum(record.get("rater") == self.rater for record in records)

    def _record(self, kind: str, position: int, verdict: str, **more: Any) -> Record:
        item = self._items[position]
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        about = {"rater": self.rater, "picture": item.id, "sha256": item.sha256}
        return {"kind": kind, **about, "verdict": verdict, **more, "time": time}


def shuffled(total: int, seed: int, rater: str) -> list[int]:
    """Which item each position shows: all raters see the same images, each in another order."""
    words = hashlib.sha256(rater.encode()).digest()
    random = stream(seed, *np.frombuffer(words, np.uint32).tolist())
    return [int(item) for item in random.permutation(total)]


def check_rater(name: str) -> str:
    """The normalised name. Raises SriError for one that could be confused with another."""
    name = unicodedata.normalize("NFC", name)
    if len(name) <= LONGEST_NAME and re.fullmatch(r"[\w.@+'-]+( [\w.@+'-]+)*", name):
        return name
    raise SriError(
        f"--rater {name!r} is not a valid name",
        f"use 1 to {LONGEST_NAME} letters, digits, single spaces and . _ - @ + '",
    )


def _damaged(folder: Path, what: str) -> DamagedSession:
    return DamagedSession(
        f"the session {folder} is damaged: {what}",
        "its answers are still there; move the folder away to start a new session",
    )
