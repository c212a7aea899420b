"""A session of two small models' scenes and three catch trials, on disk, for any rater."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from sri_cli.labeling.session import (
    Item,
    Model,
    Session,
    image_hash,
    open_session,
    write_session,
)
from tests.small_client import Client, serving

SIDE = 16


def small_session(
    labels: Path,
    num: int = 6,
    seed: int = 0,
    models: int = 2,
    catch: int = 3,
    subjects: Mapping[int, Model] | None = None,
) -> Path:
    """Write a session of noise; models are called secret-0, secret-1 unless `subjects` has them."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (models * num + catch, SIDE, SIDE, 3), dtype=np.uint8)
    items = [
        Item(id=f"m{i // num}-{i % num}", sha256=image_hash(image), index=i % num, model=i // num)
        for i, image in enumerate(images[: models * num])
    ]
    for i, image in enumerate(images[models * num :]):
        kind = ("real", "floating", "gapped")[i % 3]
        item = {"id": f"catch-{i}", "index": i, "model": None, "catch": kind}
        items.append(Item(**item, sha256=image_hash(image), plausible=kind == "real"))
    named = subjects or {i: secret_model(i, seed) for i in range(models)}
    weights = [named[i].weights for i in range(models)]
    return write_session(
        labels,
        {"weights": weights, "seed": seed, "num": num, "catch": catch, "data": None},
        [named[i] for i in range(models)],
        items,
        images,
    )


def secret_model(number: int, seed: int) -> Model:
    weights, run = f"weights-{number}", f"runs/secret-{number}"
    subject = {"kind": "run", "run": run, "model": weights}
    facts = {"name": f"secret-{number}", "weights": weights, "subject": subject, "seed": seed}
    return Model(**facts, slots=5, temperature=1.0)


def judge(folder: Path, rater: str, verdict: Callable[[Item], str]) -> Session:
    """Answer every image; those that `verdict` returns "" for are left."""
    session = open_session(folder, rater)
    for position in range(session.total):
        if given := verdict(session._item(position)):
            session.answer({position: given}, 1.0)
    return session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a session: 15 images."""
    return small_session(tmp_path / "labels")


@pytest.fixture
def stranger(folder: Path) -> Iterator[Client]:
    """A client of a running server of that session, without the token."""
    with serving(open_session(folder, "ada")) as client:
        yield client


@pytest.fixture
def client(stranger: Client) -> Client:
    """One that has exchanged its token."""
    assert stranger.enter().status == 303
    return stranger
