"""Order consistency: 0 without order, high with it, intervals that hold the value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sri_cli.metrics.order import iou_over_chance, order_consistency, report, shuffled

IOU, INFORMATION = "iou_over_chance", "mutual_information"


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
    assert result[IOU]["value"] == pytest.approx(1 - 1 / 4)
    # I = H(slot) = log 4; the position has log 256.
    information = 2 * math.log(4) / (math.log(4) + math.log(256))
    assert result[INFORMATION]["value"] == pytest.approx(information, rel=1e-4)
    # An empty slot agrees with none.
    masks = np.concatenate([bands(), np.zeros((30, 1, 16, 16))], axis=1)
    assert order_consistency(masks)[IOU]["value"] == pytest.approx(4 / 5 - 4 / 25)


def test_shuffled_slots_have_no_order() -> None:
    mixed = shuffled(bands(scenes=200, jitter=3))
    scenes = bands(scenes=200, jitter=3)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), np.sort(scenes, axis=1))
    result = order_consistency(mixed)
    assert result[IOU]["low"] < 0 < result[IOU]["high"]
    assert abs(result[IOU]["value"]) < 0.02 and result[INFORMATION]["value"] < 0.02
    one = order_consistency(np.ones((5, 1, 4, 4)))  # one slot has no order
    assert one[IOU]["value"] == pytest.approx(0, abs=1e-6) and one[INFORMATION]["value"] == 0


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


@pytest.mark.parametrize("measure", [IOU, INFORMATION])
def test_more_jitter_is_less_order(measure: str) -> None:
    values = [order_consistency(bands(jitter=j))[measure]["value"] for j in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=True)


def test_intervals_hold_the_value_and_shrink() -> None:
    few, many = (order_consistency(bands(count, jitter=4)) for count in (20, 320))
    for measure in (IOU, INFORMATION):
        small, large = few[measure], many[measure]
        assert small["low"] <= small["value"] <= small["high"]
        assert 0 < large["high"] - large["low"] < small["high"] - small["low"]
    # The spread over fresh sets of scenes is what the interval claims to know.
    sets = np.array_split(bands(1200, jitter=4), 30)
    values = [order_consistency(masks, rounds=2)[IOU]["value"] for masks in sets]
    interval = order_consistency(sets[0])[IOU]
    assert (interval["high"] - interval["low"]) / 3.92 == pytest.approx(np.std(values), rel=0.5)


def test_report_is_repeatable_and_has_both() -> None:
    first, second = report(bands(jitter=2)), report(bands(jitter=2))
    assert first == second and first["model"][IOU]["value"] > first["shuffled"][IOU]["value"]
    with pytest.raises(ValueError):
        order_consistency(np.ones((1, 2, 4, 4)))
