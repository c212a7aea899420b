"""ARI-FG and mSC-FG on cases solved by hand, ARI against scikit-learn, on CPU and GPU."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from sri_cli.metrics.segmentation import ari_fg, labels_of, msc_fg

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def maps(*rows: list[int]) -> NDArray[np.int64]:
    """Each list is one image of a single row of pixels."""
    return np.array(rows)[:, None, :]


def pairs(
    instances: int = 7, slots: int = 9, images: int = 40, size: int = 9
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True maps and predictions that agree with them in half of the pixels."""
    random = np.random.default_rng(instances * slots)
    shape = images, size, size
    true = random.integers(0, instances, shape)
    agree = random.random(shape) < 0.5
    return true, np.where(agree, true % slots, random.integers(0, slots, shape))


def scores(
    true: Tensor,
    predicted: Tensor,
    background_labels: int = 1,
) -> Tensor:
    """ARI-FG and both coverings, [3,N]."""
    covering = msc_fg(true, predicted, background_labels)
    return torch.stack([ari_fg(true, predicted, background_labels), *covering])


@pytest.mark.parametrize("background", [1, 4])
@pytest.mark.parametrize(
    ("instances", "slots"), [(7, 9), (5, 1), (6, 2), (30, 32), (7, 32), (300, 9), (5, 1000)]
)
def test_ari_equals_scikit_learn(
    device: torch.device, instances: int, slots: int, background: int
) -> None:
    true, predicted = pairs(instances, slots)
    expected = [
        adjusted_rand_score(t[t >= background], p[t >= background])
        for t, p in zip(true, predicted, strict=True)
    ]
    found = ari_fg(torch.tensor(true), torch.tensor(predicted, device=device), background)
    assert found.device.type == device.type
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.cpu(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        ([0, 1, 1, 2, 2], [7, 3, 3, 4, 4], 1.0),  # other names, same segments
        ([0, 0, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1], 0.0),  # all in one
        ([1, 1, 2, 2], [1, 2, 1, 2], -0.5),  # worse than chance
        ([0, 1, 1, 1], [5, 2, 2, 2], 1.0),  # one instance, found whole
        ([0, 1, 1, 1], [5, 2, 2, 3], 0.0),  # one instance, cut
        ([0, 0, 0, 1], [1, 2, 3, 3], 1.0),  # a single foreground pixel
        ([1, 2, 3], [3, 1, 2], 1.0),  # no two pixels together, in neither
        ([1, 1, 2, 2], [1, 1, 2, 3], 4 / 7),  # (1 - 1/3) / (3/2 - 1/3)
    ],
)
def test_ari_by_hand(true: list[int], predicted: list[int], expected: float) -> None:
    assert ari_fg(maps(true), maps(predicted))[0] == pytest.approx(expected, abs=1e-15)
    foreground = [(t, p) for t, p in zip(true, predicted, strict=True) if t > 0]
    assert adjusted_rand_score(*zip(*foreground, strict=True)) == pytest.approx(expected)


def test_background_pixels_do_not_count() -> None:
    true = maps([0, 0, 0, 1, 1, 2, 2])
    one, other = maps([1, 1, 1, 1, 1, 2, 2]), maps([3, 4, 5, 1, 1, 2, 2])
    assert ari_fg(true, one)[0] == ari_fg(true, other)[0] == 1.0


def test_no_foreground_has_no_score() -> None:
    true, predicted = maps([0, 0, 0], [0, 1, 1]), maps([1, 2, 2], [1, 2, 2])
    assert ari_fg(true, predicted).isnan().tolist() == [True, False]
    covering = msc_fg(true, predicted)
    assert covering.mean.isnan().tolist() == covering.scaled.isnan().tolist() == [True, False]
    only_background = torch.zeros(2, 4, 4, dtype=torch.uint8)
    assert scores(only_background, only_background, background_labels=4).isnan().all()


F = Fraction


@pytest.mark.parametrize(
    ("true", "predicted", "background", "mean", "scaled"),
    [
        # Instance 1: segment 8 covers 3 of its 4 px and 1 px of background. Instance 2: exact.
        ([0, 0, 1, 1, 1, 1, 2, 2], [7, 8, 8, 8, 8, 6, 9, 9], 1, F(4, 5), F(22, 30)),
        ([0, 1, 1, 1, 2, 2], [3, 3, 3, 3, 3, 3], 1, F(5, 12), F(13, 30)),  # all in one: 3/6 and 2/6
        ([0, 1, 1, 1], [0, 1, 2, 3], 1, F(1, 3), F(1, 3)),  # every pixel alone
        ([1, 1, 1, 2], [0, 0, 1, 1], 1, F(7, 12), F(5, 8)),  # 2/3 and 1/2
        ([0, 3, 3, 3], [5, 1, 1, 1], 1, F(1), F(1)),  # labels 1 and 2 nowhere
        ([0, 1, 2, 3, 4, 4, 5], [0, 0, 0, 1, 1, 1, 2], 4, F(5, 6), F(7, 9)),  # 2/3 and 1
    ],
)
def test_covering_by_hand(
    device: torch.device,
    true: list[int],
    predicted: list[int],
    background: int,
    mean: Fraction,
    scaled: Fraction,
) -> None:
    one, other = (torch.tensor(maps(labels), device=device) for labels in (true, predicted))
    covering = msc_fg(one, other, background)
    assert covering.mean.item() == pytest.approx(float(mean), abs=1e-15)
    assert covering.scaled.item() == pytest.approx(float(scaled), abs=1e-15)


def test_neither_batches_nor_chunks_change_a_score(device: torch.device) -> None:
    """600 images of 64x64 are more than are looked at together."""
    arrays = pairs(images=600, size=64)
    arrays[0][::50] = 0  # some without foreground
    true, predicted = (torch.tensor(array, device=device) for array in arrays)
    whole = scores(true, predicted)
    assert whole.shape == (3, 600)
    assert whole.isnan().sum() == 3 * 12
    parts = [scores(*some) for some in zip(true.split(37), predicted.split(37), strict=True)]
    one = scores(true[599:], predicted[599:])
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-14, equal_nan=True)
    torch.testing.assert_close(one, whole[:, 599:], rtol=0, atol=1e-14)


def test_any_kind_of_labels() -> None:
    arrays = pairs()
    true, predicted = (torch.tensor(array) for array in arrays)
    expected = scores(true, predicted)
    for kind in (torch.uint8, torch.uint16, torch.int32):
        assert torch.equal(scores(true.to(kind), predicted.to(kind)), expected)
    assert torch.equal(scores(true.to(torch.uint8), predicted), expected)
    for array in ("uint8", "uint16", "int64"):
        one, other = (labels.astype(array) for labels in arrays)
        one.setflags(write=False)
        assert torch.equal(ari_fg(one, other), expected[0])
    assert torch.equal(ari_fg(arrays[0][:, ::-1], arrays[1][:, ::-1]), expected[0])
    true, predicted = true > 3, predicted > 3
    assert torch.equal(scores(true, predicted), scores(true.long(), predicted.long()))


def test_strongest_slot_of_soft_masks(device: torch.device) -> None:
    masks = np.array([[[[0.2, 0.6]], [[0.8, 0.4]]]])
    assert labels_of(masks).tolist() == [[[1, 0]]]
    many = torch.rand(5, 32, 8, 8, device=device)
    assert torch.equal(labels_of(many), many.argmax(dim=1))
    equal = torch.zeros(5, 32, 8, 8, device=device)
    equal[:, 3:] = 0.5
    assert (labels_of(equal.bfloat16()) == 3).all()


def test_no_images(device: torch.device) -> None:
    none = torch.zeros(0, 4, 4, dtype=torch.uint8, device=device)
    assert scores(none, none).shape == (3, 0)
    assert labels_of(torch.zeros(0, 9, 4, 4, device=device)).shape == (0, 4, 4)


def test_maps_that_are_no_segmentations() -> None:
    with pytest.raises(ValueError):
        msc_fg(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int))
    with pytest.raises(ValueError):
        ari_fg(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
    for true, predicted in (([-1, 1, 1], [0, 1, 1]), ([0, 1, 1], [0, -2, 1])):
        with pytest.raises(ValueError, match="-"):
            ari_fg(maps(true), maps(predicted))
