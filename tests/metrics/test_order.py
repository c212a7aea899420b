"""Order consistency: 0 without order, high with it, intervals that hold the value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sri_cli.metrics.order import iou_over_chance, order_consistency, report, shuffled


def bands(scenes: int = 30, slots: int = 4, size: int = 16, jitter: int = 0) -> np.ndarray:
    """Slot k owns the k-th horizontal band, moved up or down by up to `jitter` rows."""
    random = np.random.default_rng(0)
    rows = np.arange(size) * slots // size
    masks = np.zeros((scenes, slots, size, size))
    for scene in masks:
        owner = np.roll(rows, random.integers(-jitter, jitter + 1))
        scene[owner, np.arange(size), :] = 1
    return masks


def test_perfect_order_by_hand() -> None:
    result = order_consistency(bands())
    # Equal bands: IoU 1; permuted, one pair of slots in four is the same band: 1/4.
    assert result.iou.value == pytest.approx(1 - 1 / 4)
    # I = H(slot) = log 4; the position has log 256.
    assert result.information.value == pytest.approx(
        2 * math.log(4) / (math.log(4) + math.log(256)), rel=1e-4
    )


def test_shuffled_slots_have_no_order() -> None:
    result = order_consistency(shuffled(bands(scenes=200)))
    assert result.iou.low < 0 < result.iou.high
    assert abs(result.iou.value) < 0.02
    assert result.information.value < 0.02


def test_shuffling_keeps_the_scenes() -> None:
    masks = bands(jitter=3)
    mixed = shuffled(masks)
    assert not np.array_equal(mixed, masks)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), np.sort(masks, axis=1))


def test_chance_is_the_mean_over_all_permutations() -> None:
    masks = np.random.default_rng(3).dirichlet(np.ones(3), (2, 5, 5)).transpose(0, 3, 1, 2)
    a, b = masks.reshape(2, 3, -1)

    def iou(x: np.ndarray, y: np.ndarray) -> float:
        return (x * y).sum() / (x + y - x * y).sum()

    chance = np.mean(
        [[iou(a[k], b[p[k]]) for k in range(3)] for p in itertools.permutations(range(3))]
    )
    same = np.mean([iou(a[k], b[k]) for k in range(3)])
    pairs = iou_over_chance(masks.reshape(2, 3, -1))
    assert pairs[0, 1] == pytest.approx(same - chance, rel=1e-6)


def test_more_jitter_is_less_order() -> None:
    values = [order_consistency(bands(jitter=j)) for j in (0, 2, 4, 8)]
    ious = [value.iou.value for value in values]
    informations = [value.information.value for value in values]
    assert ious == sorted(ious, reverse=True)
    assert informations == sorted(informations, reverse=True)


def test_intervals_hold_the_value_and_shrink() -> None:
    few, many = order_consistency(bands(20, jitter=4)), order_consistency(bands(320, jitter=4))
    for small, large in zip(few, many, strict=True):
        assert small.low <= small.value <= small.high
        assert 0 < large.high - large.low < small.high - small.low


def test_bootstrap_interval_matches_theory() -> None:
    # The spread over fresh sets of scenes is what the interval claims to know.
    sets = np.array_split(bands(1200, jitter=4), 30)
    values = [order_consistency(masks, rounds=2).iou.value for masks in sets]
    interval = order_consistency(sets[0]).iou
    assert (interval.high - interval.low) / 3.92 == pytest.approx(np.std(values), rel=0.5)


def test_an_empty_slot_is_no_agreement() -> None:
    masks = np.concatenate([bands(), np.zeros((30, 1, 16, 16))], axis=1)
    assert order_consistency(masks).iou.value == pytest.approx(4 / 5 - 4 / 25)


def test_one_slot_has_no_order() -> None:
    result = order_consistency(np.ones((5, 1, 4, 4)))
    assert result.iou.value == pytest.approx(0, abs=1e-6) and result.information.value == 0


def test_report_is_repeatable_and_has_both() -> None:
    first, second = report(bands(jitter=2)), report(bands(jitter=2))
    assert first == second
    for which in ("model", "shuffled"):
        assert set(first[which]) == {"iou_over_chance", "mutual_information"}


def test_a_single_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        order_consistency(np.ones((1, 2, 4, 4)))
