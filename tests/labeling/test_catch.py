"""Pictures whose verdict is known: real ones and simulated ones, each from (seed, index)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sri_cli.data.dataset import DataFile
from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.labeling.catch import catch_trials, examples


@pytest.fixture
def data(tmp_path: Path, write_small_data: Callable[..., Path]) -> DataFile:
    return DataFile(write_small_data(tmp_path / "demo-towers-16.h5", size=16))


def test_ten_are_half_plausible_and_of_every_kind(data: DataFile) -> None:
    trials = catch_trials(10, 0, 16, "demo", data)
    kinds = [card.catch for card in trials.cards]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"floating": 3, "gapped": 2, "sound": 1, "real": 4}
    assert trials.pictures.shape == (10, 16, 16, 3) and trials.pictures.dtype == np.uint8
    assert sum(bool(card.plausible) for card in trials.cards) == 5
    assert len({card.id for card in trials.cards}) == 10


def test_each_picture_is_what_its_index_says(data: DataFile) -> None:
    trials = catch_trials(10, 3, 16, "demo", data)
    for picture, card in zip(trials.pictures, trials.cards, strict=True):
        if card.catch == "real":
            expected = data.split("test").images[card.index]
        else:
            judged = simulate_labelled_tower(card.index, size_px=16, preset="demo", seed=3)
            assert (judged.flaw or "sound") == card.catch
            assert judged.plausible == card.plausible
            expected = judged.images[0]
        np.testing.assert_array_equal(picture, expected)


def test_the_seed_chooses_them(data: DataFile) -> None:
    first, again, other = (catch_trials(6, seed, 16, "demo", data) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.pictures, again.pictures)
    assert not {c.sha256 for c in first.cards} & {
        c.sha256 for c in other.cards if c.catch != "real"
    }


def test_without_real_stacks_there_are_simulated_ones() -> None:
    trials = catch_trials(10, 0, 16, "original", None)
    kinds = [card.catch for card in trials.cards]
    assert kinds.count("sound") == 5 and "real" not in kinds


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_any_number(data: DataFile, count: int) -> None:
    trials = catch_trials(count, 0, 16, "demo", data)
    assert len(trials.pictures) == len(trials.cards) == count
    assert len({card.id for card in trials.cards}) == count


@pytest.mark.parametrize("look", ["original", "demo"])
def test_examples_show_what_counts_and_what_does_not(look: str) -> None:
    shown = examples(32, look)  # type: ignore[arg-type]
    assert shown.pictures.shape == (6, 32, 32, 3)
    assert [one.plausible for one in shown.words] == [True] * 3 + [False] * 3
    assert sum("would fall" in one.why for one in shown.words) == 1
    assert len({picture.tobytes() for picture in shown.pictures}) == 6
    trials = catch_trials(10, 0, 32, look, None)  # type: ignore[arg-type]
    assert not {p.tobytes() for p in shown.pictures} & {p.tobytes() for p in trials.pictures}
