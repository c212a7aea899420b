"""ARI-FG and mSC-FG on cases solved by hand, and ARI against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from sri_cli.metrics.segmentation import ari_fg, contingency, labels_of, msc_fg


def maps(*rows: list[int]) -> np.ndarray:
    """Each list is one image of a single row of pixels."""
    return np.array(rows)[:, None, :]


def test_ari_equals_scikit_learn() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 5, (40, 9, 9))
    predicted = np.where(random.random((40, 9, 9)) < 0.5, true, random.integers(0, 7, (40, 9, 9)))
    for background in (1, 2):
        wanted = [
            adjusted_rand_score(t[t >= background], p[t >= background])
            for t, p in zip(true, predicted, strict=True)
        ]
        np.testing.assert_allclose(ari_fg(true, predicted, background), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("true", "predicted", "wanted"),
    [
        ([0, 1, 1, 2, 2], [7, 3, 3, 4, 4], 1.0),  # other names, same segments
        ([0, 0, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1], 0.0),  # all in one
        ([1, 1, 2, 2], [1, 2, 1, 2], -0.5),  # worse than chance
        ([0, 1, 1, 1], [5, 2, 2, 2], 1.0),  # one instance, found whole
        ([0, 1, 1, 1], [5, 2, 2, 3], 0.0),  # one instance, cut
        ([0, 0, 0, 1], [1, 2, 3, 3], 1.0),  # a single foreground pixel
    ],
)
def test_ari_by_hand(true: list[int], predicted: list[int], wanted: float) -> None:
    assert ari_fg(maps(true), maps(predicted))[0] == pytest.approx(wanted)


def test_background_pixels_do_not_count() -> None:
    true = maps([0, 0, 0, 1, 1, 2, 2])
    one, other = maps([1, 1, 1, 1, 1, 2, 2]), maps([3, 4, 5, 1, 1, 2, 2])
    assert ari_fg(true, one)[0] == ari_fg(true, other)[0] == 1.0


def test_no_foreground_has_no_score() -> None:
    true, predicted = maps([0, 0, 0], [0, 1, 1]), maps([1, 2, 2], [1, 2, 2])
    assert ari_fg(true, predicted).isnan().tolist() == [True, False]
    covering = msc_fg(true, predicted)
    assert covering.mean.isnan().tolist() == covering.scaled.isnan().tolist() == [True, False]


def test_covering_by_hand() -> None:
    # Instance 1 (4 px): best segment covers 3 of them and 1 px of background, IoU 3/5.
    # Instance 2 (2 px): segment 9 is exactly it, IoU 1.
    true = maps([0, 0, 1, 1, 1, 1, 2, 2])
    predicted = maps([7, 8, 8, 8, 8, 6, 9, 9])
    covering = msc_fg(true, predicted)
    assert covering.mean[0] == pytest.approx((3 / 5 + 1) / 2)
    assert covering.scaled[0] == pytest.approx((4 * 3 / 5 + 2 * 1) / 6)


def test_covering_ignores_absent_labels() -> None:
    true = np.concatenate([maps([0, 1, 1, 1]), maps([0, 3, 3, 3])])  # label 2 nowhere
    assert msc_fg(true, true).mean.tolist() == [1.0, 1.0]


def test_contingency_counts() -> None:
    table = contingency(maps([0, 1, 1, 1]), maps([2, 2, 0, 0]))
    assert table.tolist() == [[[0, 0, 1], [2, 0, 1]]]


def test_argmax_of_soft_masks() -> None:
    masks = np.array([[[[0.2, 0.6]], [[0.8, 0.4]]]])
    assert labels_of(masks).tolist() == [[[1, 0]]]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[N,H,W\]"):
        contingency(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int))
