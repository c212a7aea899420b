"""Segmentation, bound and order metrics on cases solved by hand, ARI also against scikit-learn."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction as F

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, jaccard_score
from torch import Tensor

from sri_cli.metrics.model_metrics import bits_per_dimension
from sri_cli.metrics.order import iou_over_chance, order_consistency, shuffled
from sri_cli.metrics.segmentation import (
    ari_fg,
    count_objects,
    count_slots,
    labels_of,
    mean_iou,
    msc_fg,
)

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
IOU, INFORMATION = "iou_over_chance", "mutual_information"


# Segmentation -------------------------------------------------------------------------------


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def maps(*rows: list[int]) -> Tensor:
    """Each list is one image of a single row of pixels."""
    return torch.tensor(rows)[:, None, :]


def pairs(
    instances: int = 7, slots: int = 9, images: int = 40, size: int = 9
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True maps and predictions that agree with them in half of the pixels."""
    random = np.random.default_rng(instances * slots)
    shape = images, size, size
    true = random.integers(0, instances, shape)
    agree = random.random(shape) < 0.5
    return true, np.where(agree, true % slots, random.integers(0, slots, shape))


def scores(true: Tensor, predicted: Tensor, background_labels: int = 1) -> Tensor:
    """ARI-FG and both coverings, [3,N]."""
    covering = msc_fg(true, predicted, background_labels)
    return torch.stack([ari_fg(true, predicted, background_labels), *covering])


@pytest.mark.parametrize(
    ("instances", "slots", "background"), [(7, 9, 1), (5, 1, 1), (30, 32, 4), (5, 1000, 4)]
)
def test_ari_equals_scikit_learn(
    device: torch.device, instances: int, slots: int, background: int
) -> None:
    true, predicted = pairs(instances, slots)
    expected = [
        adjusted_rand_score(t[t >= background], p[t >= background])
        for t, p in zip(true, predicted, strict=True)
    ]
    result = ari_fg(torch.tensor(true), torch.tensor(predicted, device=device), background)
    assert result.device.type == device.type and result.dtype == torch.float64
    np.testing.assert_allclose(result.cpu(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ([0, 1, 1, 2, 2], [7, 3, 3, 4, 4], 1.0),  # other names, same segments
        ([0, 0, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1], 0.0),  # all in one
        ([1, 1, 2, 2], [1, 2, 1, 2], -0.5),  # worse than chance
        ([0, 1, 1, 1], [5, 2, 2, 2], 1.0),  # one instance, whole
        ([0, 1, 1, 1], [5, 2, 2, 3], 0.0),  # one instance, cut
        ([0, 0, 0, 1], [1, 2, 3, 3], 1.0),  # a single foreground pixel
        ([1, 2, 3], [3, 1, 2], 1.0),  # no two pixels together, in neither
        ([1, 1, 2, 2], [1, 1, 2, 3], 4 / 7),  # (1 - 1/3) / (3/2 - 1/3)
        ([0, 0, 0, 1, 1, 2, 2], [1, 4, 5, 1, 1, 2, 2], 1.0),  # background does not count
    ],
)
def test_ari_by_hand(true: list[int], predicted: list[int], expected: float) -> None:
    assert ari_fg(maps(true), maps(predicted))[0] == pytest.approx(expected, abs=1e-15)


def test_no_foreground_has_no_score() -> None:
    true, predicted = maps([0, 0, 0], [0, 1, 1]), maps([1, 2, 2], [1, 2, 2])
    for score in (ari_fg(true, predicted), mean_iou(true, predicted), *msc_fg(true, predicted)):
        assert score.isnan().tolist() == [True, False]
    only_background = torch.zeros(2, 4, 4, dtype=torch.uint8)
    assert scores(only_background, only_background, background_labels=4).isnan().all()


@pytest.mark.parametrize(
    ("true", "predicted", "background", "mean", "scaled", "matched"),
    [
        # Instance 1: segment 8 covers 3 of its 4 px and 1 px of background. Instance 2: exact.
        ([0, 0, 1, 1, 1, 1, 2, 2], [7, 8, 8, 8, 8, 6, 9, 9], 1, F(4, 5), F(22, 30), F(4, 5)),
        # All in one: 3/6 and 2/6, and one match.
        ([0, 1, 1, 1, 2, 2], [3, 3, 3, 3, 3, 3], 1, F(5, 12), F(13, 30), F(1, 4)),
        ([0, 1, 1, 1], [0, 1, 2, 3], 1, F(1, 3), F(1, 3), F(1, 3)),  # every pixel alone
        ([1, 1, 1, 2], [0, 0, 1, 1], 1, F(7, 12), F(5, 8), F(7, 12)),  # 2/3 and 1/2
        ([1, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1], 1, F(13, 20), F(7, 10), F(13, 20)),  # 4/5, 1/2
        # Both overlap segment 0 most, 1/2 and 2/5; with segment 1 for the first: 1/4 and 2/5.
        ([1, 1, 1, 1, 2, 2, 0], [0, 0, 0, 1, 0, 0, 9], 1, F(9, 20), F(7, 15), F(13, 40)),
        ([0, 3, 3, 3], [5, 1, 1, 1], 1, F(1), F(1), F(1)),  # labels 1 and 2 nowhere
        ([0, 1, 2, 3, 4, 4, 5], [0, 0, 0, 1, 1, 1, 2], 4, F(5, 6), F(7, 9), F(5, 6)),  # 2/3 and 1
    ],
)
def test_overlaps_by_hand(
    device: torch.device,
    true: list[int],
    predicted: list[int],
    background: int,
    mean: F,
    scaled: F,
    matched: F,
) -> None:
    """Both coverings, and the IoU of the best one-to-one matching."""
    one, other = (maps(labels).to(device) for labels in (true, predicted))
    scores = [*msc_fg(one, other, background), mean_iou(one, other, background)]
    expected = [float(mean), float(scaled), float(matched)]
    assert [score.item() for score in scores] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("instances", "slots"), [(4, 3), (3, 4), (4, 4)])
def test_iou_and_best_overlap_equal_scikit_learn(instances: int, slots: int) -> None:
    """The greatest mean Jaccard index over all one-to-one matchings, and that of each's best."""
    true, predicted = pairs(instances, slots, images=10)
    matched, best = [], []
    for t, p in zip(true, predicted, strict=True):
        objects = [k for k in np.unique(t) if k]
        iou = [
            [jaccard_score((t == k).ravel(), (p == s).ravel()) for s in range(slots)]
            for k in objects
        ]
        padded = np.pad(iou, ((0, 0), (0, len(objects))))  # columns for instances without a segment
        orders = itertools.permutations(range(padded.shape[1]), len(objects))
        matched.append(max(padded[range(len(objects)), order].mean() for order in orders))
        best.append(np.max(iou, axis=1).mean())
    both = torch.tensor(true), torch.tensor(predicted)
    np.testing.assert_allclose(mean_iou(*both), matched, rtol=1e-12)
    np.testing.assert_allclose(msc_fg(*both).mean, best, rtol=1e-12)


def test_used_slots_by_hand(device: torch.device) -> None:
    """Of 2,000 px a used slot has 2 or more; where 1,750 of them are void, one is enough."""
    nothing, true = torch.zeros(2, 2, 40, 50, dtype=torch.uint8)
    predicted = torch.zeros(2, 40, 50, dtype=torch.uint8, device=device)
    predicted[:, 0, :2], predicted[:, 1, 0], predicted[:, 30] = 1, 2, 4
    true[1, 5:] = 255
    assert count_slots(predicted, nothing).tolist() == [3, 3]
    assert count_slots(predicted, true, void=255).tolist() == [3, 3]  # 0, 1, 4; 0, 1, 2
    # Of 250 px one is more than 0.1 %.
    assert count_slots(predicted[:, 1:6], nothing[:, 1:6]).tolist() == [2, 2]


def test_void_pixels_count_nowhere(device: torch.device) -> None:
    """As if an image had no such pixels, neither in an instance nor in a segment that covers it."""
    true, predicted = maps([0, 1, 1, 2, 2], [0, 1, 1, 1, 0]), maps([5, 5, 6, 7, 7], [5, 5, 6, 6, 5])
    rim, covered = maps([255] * 3, [255] * 3), maps([5, 6, 7], [5, 6, 7])
    true_void, predicted_void = (
        torch.cat(pair, dim=2).to(device) for pair in ((true, rim), (predicted, covered))
    )
    for metric in (ari_fg, msc_fg, mean_iou):
        with_void, without = metric(true_void, predicted_void, void=255), metric(true, predicted)
        torch.testing.assert_close(with_void, without, rtol=0, atol=0, check_device=False)
    assert count_objects(true_void, 1, 255).tolist() == [2, 1]
    assert count_objects(true_void).tolist() == [3, 2]  # a label like any other
    assert count_objects(true_void, 2, 255).tolist() == [1, 0]
    only_void = maps([0, 255, 255])
    assert ari_fg(only_void, only_void, void=255).isnan().all()


def test_neither_batches_nor_chunks_change_a_score(device: torch.device) -> None:
    """600 images of 64x64 are more than are processed together."""
    arrays = pairs(images=600, size=64)
    arrays[0][::50] = 0  # some without foreground
    true, predicted = (torch.tensor(array, device=device) for array in arrays)
    whole = scores(true, predicted)
    assert whole.shape == (3, 600) and whole.isnan().sum() == 3 * 12
    parts = [scores(*some) for some in zip(true.split(37), predicted.split(37), strict=True)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-14, equal_nan=True)


def test_strongest_slot_of_soft_masks(device: torch.device) -> None:
    masks = torch.tensor([[[[0.2, 0.6]], [[0.8, 0.4]]]])
    assert labels_of(masks).tolist() == [[[1, 0]]]
    equal = torch.zeros(5, 32, 8, 8, device=device)
    equal[:, 3:] = 0.5
    assert (labels_of(equal.bfloat16()) == 3).all()
    assert labels_of(equal[:0]).shape == (0, 8, 8)


# The bound ----------------------------------------------------------------------------------


def test_bits_per_dimension() -> None:
    # -log N(0; 0, 1) = 0.5 log 2 pi per dimension, unnormalised 0: both are the same bits.
    expected = 0.5 * math.log2(2 * math.pi)
    constant = 0.5 * math.log(2 * math.pi) * 3 * 8**2
    assert bits_per_dimension(constant, 8, normalised=True) == pytest.approx(expected)
    assert bits_per_dimension(0.0, 8, normalised=False) == pytest.approx(expected)
    # The recipes' target 0.5655 nats per element are 0.816 bits; the paper reports 0.829.
    nats = 0.5655 * 3 * 64**2
    assert bits_per_dimension(nats, 64, normalised=True) == pytest.approx(0.816, abs=5e-4)


# Order consistency --------------------------------------------------------------------------


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
    scenes = bands(scenes=200, jitter=3)
    mixed = shuffled(scenes)
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
    matrix = iou_over_chance(masks.reshape(2, 3, -1))
    assert matrix[0, 1] == pytest.approx(same - chance, rel=1e-6)


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_intervals_of_few_scenes_contain_the_value(count: int) -> None:
    same = order_consistency(bands(1).repeat(count, axis=0))  # nothing varies
    other = order_consistency(bands(count, jitter=4))
    apart = bands(1).repeat(count, axis=0)
    apart[0] = shuffled(bands(20))[7]  # one scene agrees with none of the others
    for result in (same, other, order_consistency(apart)):
        for one in result.values():
            assert one["low"] <= one["value"] <= one["high"]
    assert same[IOU]["high"] - same[IOU]["low"] < 1e-5
    two = order_consistency(bands(2))
    assert two[IOU] == {"value": pytest.approx(0.75), "low": None, "high": None}


@pytest.mark.parametrize("measure", [IOU, INFORMATION])
def test_the_interval_is_that_of_the_jackknife(measure: str) -> None:
    masks = bands(8, jitter=2)
    whole = order_consistency(masks)[measure]
    without = [order_consistency(np.delete(masks, i, 0))[measure]["value"] for i in range(8)]
    reach = 2.364624 * math.sqrt(7 / 8 * np.square(without - np.mean(without)).sum())  # t of 7
    assert whole["value"] - whole["low"] == pytest.approx(reach, rel=1e-3)
    assert whole["high"] - whole["value"] == pytest.approx(reach, rel=1e-3)
