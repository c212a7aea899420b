"""A session of two small models' scenes and three catch trials, on disk, for any rater."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sri_cli.labeling.scenes import Asked, Card, Deck, Example, Model, cards_of, digest, save
from sri_cli.labeling.session import Session, open_session
from tests.small_client import Client, labelling

SIDE = 16


def small_deck(num: int = 6, seed: int = 0, models: int = 2, catch: int = 3) -> Deck:
    """Pictures of noise, of `models` models with secret names and `catch` catch trials."""
    random = np.random.default_rng(seed)
    count = models * num + catch
    pictures = random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    weights = tuple(f"weights-{model}" for model in range(models))
    cards = []
    for model in range(models):
        cards += cards_of(pictures[model * num : (model + 1) * num], model, range(num))
    for index, picture in enumerate(pictures[models * num :]):
        kind = ("real", "floating", "gapped")[index % 3]
        cards.append(
            Card(f"catch-{index}", digest(picture), index, None, kind, plausible=kind == "real")
        )
    return Deck(
        Asked(weights, seed, num, catch),
        tuple(_model(model, weights[model], seed) for model in range(models)),
        tuple(cards),
        pictures,
        tuple(Example(i < 3, f"because of {i}") for i in range(6)),
        random.integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8),
    )


def _model(number: int, weights: str, seed: int) -> Model:
    subject = {"kind": "run", "run": f"runs/secret-{number}", "model": weights}
    return Model(f"secret-{number}", weights, subject, None, seed, 5, 1.0)


@pytest.fixture
def session_folder(tmp_path: Path) -> Path:
    """The folder of a session: 15 pictures."""
    return save(tmp_path / "labels", small_deck())


@pytest.fixture
def open_as(session_folder: Path) -> Callable[[str], Session]:
    """(rater) -> that session, opened anew."""
    return lambda rater: open_session(session_folder, rater)


@pytest.fixture
def stranger(open_as: Callable[[str], Session]) -> Iterator[Client]:
    """A client of a running server of that session that does not have the token."""
    with labelling(open_as("ada")) as client:
        yield client


@pytest.fixture
def client(stranger: Client) -> Client:
    """One that was let in."""
    assert stranger.enter().status == 303
    return stranger


@pytest.fixture
def save_session(tmp_path: Path) -> Callable[[int], Path]:
    """(scenes of each of the two models) -> the folder of a new session."""
    return lambda num: save(tmp_path / "labels", small_deck(num))
