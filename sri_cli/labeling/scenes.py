"""The pictures of a session as they lie on disk, and what each of them is.

A session is a folder `labels/<id>/` among the runs: it may hold scenes of several models, so that
it belongs to none of their folders, and it moves with them.

  session.json    what was asked for, the models, and per picture its hash, seed and index
  pictures.npz    `pictures` uint8 [N,S,S,3] and `examples` uint8 [E,S,S,3]
  answers.jsonl   store.py

Axis legend: N pictures, E examples, S side in pixels.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import cannot_write, ensure_folder, list_folder, sync_folder, write_atomic
from sri_cli.errors import SriError
from sri_cli.labeling.store import SCHEMA, AnswerLog, check_schema

FOLDER = "labels"  # of the runs folder
FACTS, PICTURES, ANSWERS = "session.json", "pictures.npz", "answers.jsonl"

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Model:
    """Whose scenes are judged. `weights` tells models apart wherever they lie: a hash of the
    model, or of a folder's pictures; `subject` and `data` are as in a measurement. `seed` is None
    for pictures that another tool drew."""

    name: str
    weights: str
    subject: dict[str, Any]
    data: dict[str, Any] | None = None
    seed: int | None = None
    slots: int | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Card:
    """One picture: scene `index` of model number `model`, or a catch trial (`model` None), of
    which it is known whether it is plausible."""

    id: str
    sha256: str
    index: int
    model: int | None
    catch: str | None = None  # real, sound, floating, gapped
    plausible: bool | None = None


@dataclass(frozen=True)
class Example:
    """Why a simulated picture is plausible, or is not."""

    plausible: bool
    why: str


@dataclass(frozen=True)
class Asked:
    """What makes two commands mean the same session; `weights` in alphabetical order, `data` the
    hash of a data file that was named for the catch trials."""

    weights: tuple[str, ...]
    seed: int
    num: int
    catch: int
    data: str | None = None


@dataclass(frozen=True)
class Deck:
    """All pictures of a session in the order of the file, which no rater sees."""

    asked: Asked
    models: tuple[Model, ...]
    cards: tuple[Card, ...]
    pictures: Pictures
    examples: tuple[Example, ...]
    example_pictures: Pictures

    @property
    def id(self) -> str:
        """Hash of the models' weights, seed, number and all pictures."""
        hashes = sorted(card.sha256 for card in self.cards)
        words = json.dumps([self.asked.weights, self.asked.seed, self.asked.num, hashes])
        return hashlib.sha256(words.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Kept:
    """A session folder's session.json, read."""

    folder: Path
    time: str  # of its beginning, UTC
    asked: Asked
    models: tuple[Model, ...]
    cards: tuple[Card, ...]
    examples: tuple[Example, ...]

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def log(self) -> AnswerLog:
        """Its answers."""
        return AnswerLog(self.folder / ANSWERS)


def digest(picture: Pictures) -> str:
    """SHA-256 of a picture's pixels, row by row."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def save(labels: Path, deck: Deck) -> Path:
    """Write the session's folder whole, or leave the one that is there already."""
    folder = labels / deck.id
    ensure_folder(labels)
    beside = labels / f".{deck.id}.{os.getpid()}.tmp"
    try:
        beside.mkdir()
        write_atomic(beside / PICTURES, _archive(deck))
        write_atomic(beside / FACTS, (json.dumps(_facts(deck), indent=1) + "\n").encode())
        os.rename(beside, folder)
        sync_folder(labels)
    except OSError as error:
        # Another command with the same pictures was faster.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _archive(deck: Deck) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pictures=deck.pictures, examples=deck.example_pictures)
    return buffer.getvalue()


def _facts(deck: Deck) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "session": deck.id,
        "sri": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": asdict(deck.asked),
        "models": [asdict(model) for model in deck.models],
        "pictures": [asdict(card) for card in deck.cards],
        "examples": [asdict(example) for example in deck.examples],
    }


def read(folder: Path) -> Kept:
    """A session's facts. SriError for a file that is damaged or of a newer sri."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_bytes())
        check_schema(path, int(facts["schema"]))
        asked = {**facts["asked"], "weights": tuple(facts["asked"]["weights"])}
        return Kept(
            folder,
            str(facts["time"]),
            Asked(**asked),
            tuple(Model(**model) for model in facts["models"]),
            tuple(Card(**card) for card in facts["pictures"]),
            tuple(Example(**example) for example in facts["examples"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{FACTS} cannot be read") from error


def sessions(labels: Path) -> list[Kept]:
    """All sessions of a workspace, the oldest first."""
    folders = [path for path in list_folder(labels) if not path.name.startswith(".")]
    kept = [read(folder) for folder in folders if (folder / FACTS).exists()]
    return sorted(kept, key=lambda one: one.time)


def find(labels: Path, asked: Asked) -> Kept | None:
    """The session that was begun by a command that asked for the same."""
    return next((kept for kept in sessions(labels) if kept.asked == asked), None)


def load(folder: Path) -> Deck:
    """A session with its pictures, every one of them checked by its hash."""
    kept = read(folder)
    try:
        with np.load(folder / PICTURES, allow_pickle=False) as file:
            pictures, examples = file["pictures"], file["examples"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(folder, f"{PICTURES} cannot be read") from error
    if [digest(picture) for picture in pictures] != [card.sha256 for card in kept.cards]:
        raise _damaged(folder, "its pictures are not those that were judged")
    return Deck(kept.asked, kept.models, kept.cards, pictures, kept.examples, examples)


def cards_of(pictures: Pictures, model: int, indices: Sequence[int]) -> list[Card]:
    """What the scenes of one model are."""
    return [
        Card(f"m{model}-{index}", digest(picture), int(index), model)
        for picture, index in zip(pictures, indices, strict=True)
    ]


def _damaged(folder: Path, what: str) -> SriError:
    return SriError(
        f"the session {folder} is damaged: {what}",
        "its answers are kept; move the folder away to begin anew",
    )
