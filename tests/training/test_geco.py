"""GECO against its closed form (MODELS: err_ema, c, beta, loss)."""

from __future__ import annotations

import math

import pytest
import torch

from sri_cli.models.base import Objective
from sri_cli.training.geco import Geco

ELEMENTS = 3 * 64 * 64


def feed(geco: Geco, error: float, kl: float = 2.0) -> float:
    errors, kls = torch.tensor([error - 1, error + 1]), torch.tensor([kl, kl])
    loss = geco(Objective("any", errors, kls)).item()
    geco.update(errors.mean())
    return loss


def test_first_error_is_the_average_and_beta_before_weighs_the_loss() -> None:
    geco = Geco(0.5, 1e-6, 64)
    assert feed(geco, 7000.0, kl=3.0) == pytest.approx(7003.0)
    assert geco.err_ema.item() == pytest.approx(7000.0)
    gap = 0.5 * ELEMENTS - 7000.0  # negative: no speed-up
    assert geco.beta.item() == pytest.approx(math.exp(1e-6 * gap), rel=1e-6)
    assert feed(geco, 7000.0, kl=300.0) == pytest.approx(
        7000 + 300 * math.exp(1e-6 * gap), rel=1e-6
    )


def test_average_moves_by_a_hundredth() -> None:
    geco = Geco(0.5, 1e-6, 64)
    feed(geco, 7000.0)
    feed(geco, 6000.0)
    assert geco.err_ema.item() == pytest.approx(0.99 * 7000 + 0.01 * 6000)


def test_under_the_goal_the_rate_is_sped_up() -> None:
    geco = Geco(0.5, 1e-6, 64, speedup=10)
    feed(geco, 6000.0)
    assert geco.beta.item() == pytest.approx(math.exp(10 * 1e-6 * (6144 - 6000)), rel=1e-6)


def test_rate_scales_with_image_area() -> None:
    small = Geco(0.5, 1e-6, 32)
    feed(small, 1636.0)
    assert small.beta.item() == pytest.approx(math.exp(4e-6 * (1536 - 1636)), rel=1e-6)


def test_beta_stays_within_its_clamps() -> None:
    low, high = Geco(0.5, 1.0, 64, beta_min=1e-3), Geco(0.5, 1.0, 64)
    for _ in range(2):
        feed(low, 7000.0)
        feed(high, 5000.0)
    assert low.beta.item() == pytest.approx(1e-3)
    assert high.beta.item() == pytest.approx(1e10)


def test_warmup_holds_beta_while_the_average_runs() -> None:
    geco = Geco(0.5, 1e-6, 64, warmup=2, beta_start=0.5)
    feed(geco, 7000.0)
    feed(geco, 6900.0)
    assert geco.beta.item() == 0.5
    assert geco.err_ema.item() == pytest.approx(6999.0)
    feed(geco, 6900.0)
    assert geco.beta.item() < 0.5


def test_all_state_travels_in_the_state_dict() -> None:
    first, second = Geco(0.5, 1e-6, 64), Geco(0.5, 1e-6, 64)
    feed(first, 7000.0)
    second.load_state_dict(first.state_dict())
    assert feed(first, 6500.0) == feed(second, 6500.0)
    assert first.beta == second.beta


def test_gradient_is_that_of_error_plus_beta_kl() -> None:
    geco = Geco(0.5, 1e-6, 64, beta_start=0.25)
    error = torch.tensor([1.0, 2.0], requires_grad=True)
    kl = torch.tensor([3.0, 4.0], requires_grad=True)
    geco(Objective("any", error, kl)).backward()
    assert torch.equal(error.grad, torch.tensor([0.5, 0.5]))
    assert torch.equal(kl.grad, torch.tensor([0.125, 0.125]))
