"""-ELBO adds what the model names, bits count the normalised likelihood."""

from __future__ import annotations

import math

import pytest
import torch

from sri_cli.metrics.elbo import bits_per_dimension, negative_elbo
from sri_cli.models.base import Losses, Objective


def test_only_the_bound_counts() -> None:
    terms = {
        name: torch.tensor([value])
        for name, value in zip("abcd", (5.0, 1.0, 0.5, 99.0), strict=True)
    }
    objective = Objective("x", terms["a"], terms["b"])
    losses = Losses((objective,), terms, bound=("a", "b", "c"))
    assert negative_elbo(losses).tolist() == [6.5]


def test_bits_of_a_standard_normal_at_its_mean() -> None:
    # -log N(0; 0, 1) = 0.5 log 2 pi per dimension, unnormalised 0: both are the same bits.
    dimensions = 3 * 8**2
    wanted = 0.5 * math.log2(2 * math.pi)
    constant = 0.5 * math.log(2 * math.pi) * dimensions
    assert bits_per_dimension(constant, 8, normalised=True) == pytest.approx(wanted)
    assert bits_per_dimension(0.0, 8, normalised=False) == pytest.approx(wanted)


def test_published_scale() -> None:
    # The recipes' target 0.5655 nats per element are 0.816 bits; the paper reports 0.829.
    nats = 0.5655 * 3 * 64**2
    assert bits_per_dimension(nats, 64, normalised=True) == pytest.approx(0.816, abs=5e-4)
