"""stack-FD: the shipped features, and that a distance in them feels damage."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.errors import SriFailure
from sri_cli.metrics.frechet import Moments, frechet_distance
from sri_cli.metrics.stack_classifiers import network
from sri_cli.metrics.stack_classifiers.corruptions import (
    blurred,
    exchanged,
    noisy,
    ordering,
    replaced,
)
from sri_cli.metrics.stack_classifiers.features import StackFeatures

COUNT = 200


@pytest.fixture(scope="module")
def stacks():
    scenes = [
        simulate_labelled_tower(2 * i, size_px=64, preset="original", seed=5)
        for i in range(2 * COUNT)
    ]
    images = np.concatenate([scene.images for scene in scenes])
    return images, np.concatenate([scene.masks for scene in scenes])


def distance(extract, one, other):
    found = []
    for images in (one, other):
        moments = Moments(extract.size)
        moments.add(extract(images))
        found.append(moments.statistics())
    return frechet_distance(*found)


def test_the_shipped_files_are_small():
    folder = resources.files("sri_cli.metrics.stack_classifiers")
    for which in network.SHIPPED:
        assert len(folder.joinpath(f"{which}.safetensors").read_bytes()) < 4 * 2**20


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setitem(network.SHIPPED, "factors", "0" * 64)
    with pytest.raises(SriFailure, match=r"factors\.safetensors are damaged"):
        network.open_shipped("factors")


def test_equal_sets_have_no_distance(stacks):
    images = stacks[0][:COUNT]
    assert distance(StackFeatures(), images, images[::-1]) == pytest.approx(0, abs=1e-3)


def test_damage_is_felt(stacks):
    images, masks = stacks
    extract, real, own = StackFeatures(), images[:COUNT], images[COUNT:]
    unharmed = distance(extract, real, own)
    for damaged in (
        noisy(own, 16),
        blurred(own, 1.0),
        replaced(own, exchanged(own, masks[COUNT:]), 1.0),
    ):
        assert distance(extract, real, damaged) > 1.5 * unharmed


def test_features_do_not_depend_on_how_pictures_come(stacks):
    images, extract = stacks[0][:30], StackFeatures()
    together = extract(images)
    assert together.shape == (30, extract.size)
    apart = np.concatenate([extract(images[i : i + 11]) for i in range(0, 30, 11)])
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_an_exchanged_block_leaves_the_background(stacks):
    images, masks = stacks[0][:20], stacks[1][:20]
    changed = exchanged(images, masks, seed=1)
    never = (masks == 0).all(axis=0)  # no giver has a block there
    assert (changed[:, never] == images[:, never]).all()
    assert (changed != images).any(axis=(1, 2, 3)).mean() > 0.9


def test_an_ordering_counts_pairs():
    assert ordering([1.0, 2.0, 3.0]).concordant == 1
    assert ordering([3.0, 2.0, 1.0]).concordant == 0
    assert ordering([1.0, 3.0, 2.0]).concordant == pytest.approx(2 / 3)


def test_replacing_needs_enough_others():
    pictures = np.zeros((10, 8, 8, 3), np.uint8)
    assert (replaced(pictures, pictures[:3] + 1, 0.3)[:3] == 1).all()
    with pytest.raises(ValueError, match="4 pictures to replace, 3"):
        replaced(pictures, pictures[:3], 0.4)
