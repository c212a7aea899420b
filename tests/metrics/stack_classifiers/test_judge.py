"""The estimated S-Acc: its correction, its interval, and the shipped judge on real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.metrics.stack_classifiers.checking import Verdicts, coverage
from sri_cli.metrics.stack_classifiers.judge import Rates, corrected_share, open_judge

BY_EYE = Path(__file__).parent / "by_eye.npz"
PERFECT = Rates(right=10_000, plausible=10_000, wrong=0, flawed=10_000)


def test_a_perfect_judge_needs_no_correction():
    value, low, high = corrected_share(80, 100, PERFECT)
    assert value == pytest.approx(0.8)
    # Jeffreys' interval of 80 of 100, from tables of the beta distribution.
    assert (low, high) == (pytest.approx(0.7138, abs=0.004), pytest.approx(0.8690, abs=0.004))


def test_an_erring_judge_is_corrected_by_its_rates():
    # Of 1000 pictures 600 are plausible: 0.9 * 600 + 0.2 * 400 = 620 are called so.
    rates = Rates(right=900, plausible=1000, wrong=200, flawed=1000)
    value, low, high = corrected_share(620, 1000, rates)
    assert value == pytest.approx(0.6)
    assert low < 0.6 < high
    assert high - low > 0.06  # wider than that of a perfect judge, which knows it to 3 points


def test_fewer_accepted_than_false_alarms_is_none_and_more_than_possible_is_all():
    rates = Rates(right=900, plausible=1000, wrong=200, flawed=1000)
    assert corrected_share(10, 100, rates)[0] == 0.0
    assert corrected_share(100, 100, rates)[0] == 1.0


def test_counts_that_cannot_be_are_refused():
    for accepted, count in ((-1, 10), (11, 10), (0, 0)):
        with pytest.raises(ValueError, match="accepted"):
            corrected_share(accepted, count, PERFECT)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    flaw = np.repeat([0, 1], 4000)
    plausible = np.where(flaw == 0, random.random(8000) < 0.85, random.random(8000) < 0.15)
    # The rates are counted on other pictures than are judged.
    counted = Rates(int(random.binomial(1000, 0.85)), 1000, int(random.binomial(1000, 0.15)), 1000)
    held = coverage(Verdicts(plausible, flaw), counted, count=100, trials=300)
    assert min(held.values()) > 0.9


@pytest.mark.parametrize("look", ["original", "demo"])
@pytest.mark.parametrize("side", [64, 32])
def test_the_shipped_judge_tells_whole_stacks_from_flawed_ones(look, side):
    scenes = [simulate_labelled_tower(i, size_px=side, preset=look, seed=77) for i in range(96)]
    belief = open_judge().plausible(np.concatenate([scene.images for scene in scenes]))
    truth = np.array([scene.plausible for scene in scenes])
    assert ((belief > 0.5) == truth).mean() > 0.75


def test_the_shipped_judge_agrees_with_the_eye_on_generated_scenes():
    """240 scenes of six systems, judged by eye, shuffled, before this judge was made: 76 %."""
    eye = np.load(BY_EYE)
    belief = open_judge().plausible(eye["images"])
    agreement = ((belief > 0.5) == eye["plausible"].astype(bool)).mean()
    assert agreement > 0.75


def test_verdicts_do_not_depend_on_how_pictures_come():
    images = np.load(BY_EYE)["images"][:20]
    judge = open_judge()
    together = judge.plausible(images)
    apart = np.concatenate([judge.plausible(images[i : i + 7]) for i in range(0, 20, 7)])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    np.testing.assert_allclose(judge.plausible(images[::-1])[::-1], together, atol=1e-5)
    assert len(judge.plausible(images[:0])) == 0
