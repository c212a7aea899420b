"""Both GECOs against their closed forms (training/geco.py)."""

from __future__ import annotations

import math

import pytest
import torch

from sri_cli.models.base import Objective
from sri_cli.training.geco import EmorlGeco, Geco

EMORL_GOAL = -2.206 * 3 * 16 * 16  # -1694.2
WEIGHT = math.log1p(math.exp(0.55))  # softplus of the initial beta


def objective(error: float, kl: float = 2.0, earlier: tuple[float, ...] = ()) -> Objective:
    """Two images around the given means; earlier passes of the same KL."""

    def pair(mean: float) -> tuple[torch.Tensor, torch.Tensor]:
        errors, kls = torch.tensor([mean - 1, mean + 1]), torch.tensor([kl, kl])
        return errors.requires_grad_(), kls.requires_grad_()

    return Objective("any", *pair(error), tuple(pair(mean) for mean in earlier))


def feed(geco: Geco | EmorlGeco, given: Objective) -> torch.Tensor:
    """The loss of a step, then the update."""
    loss = geco(given)
    geco.update(given.error.detach().mean())
    return loss


def emorl(warmup: int = 0, lr: float = 1e-6) -> EmorlGeco:
    return EmorlGeco(-2.206, lr, 16, warmup=warmup)


def started(gap_ema: float, beta: float = 0.55, lr: float = 1e-6) -> EmorlGeco:
    """EMORL's in the middle of a training."""
    geco = emorl(lr=lr)
    geco.seen.fill_(5)
    geco.gap_ema.fill_(gap_ema)
    geco.beta.fill_(beta)
    return geco


def test_the_loss_has_the_beta_before_and_the_average_starts_with_the_first_error() -> None:
    geco = Geco(0.5, 1e-6, 64)
    assert feed(geco, objective(7000.0, kl=3.0)).item() == pytest.approx(7003.0)
    assert geco.err_ema.item() == pytest.approx(7000.0)
    beta = math.exp(1e-6 * (6144 - 7000))
    assert geco.beta.item() == pytest.approx(beta, rel=1e-6)
    loss = geco(given := objective(6000.0, kl=300.0))
    assert loss.item() == pytest.approx(6000 + 300 * beta, rel=1e-6)
    loss.backward()
    geco.update(given.error.detach().mean())
    assert geco.err_ema.item() == pytest.approx(0.99 * 7000 + 0.01 * 6000)
    assert given.error.grad.tolist() == [0.5, 0.5]
    assert given.kl.grad.tolist() == pytest.approx([beta / 2, beta / 2])


@pytest.mark.parametrize(
    ("size", "error", "exponent"),
    [(64, 6000.0, 10 * 1e-6 * (6144 - 6000)), (32, 1636.0, 4e-6 * (1536 - 1636))],
)
def test_the_rate_is_sped_up_below_the_goal_and_scales_with_the_area(
    size: int, error: float, exponent: float
) -> None:
    geco = Geco(0.5, 1e-6, size)
    feed(geco, objective(error))
    assert geco.beta.item() == pytest.approx(math.exp(exponent), rel=1e-6)


def test_beta_stays_within_its_bounds() -> None:
    low, high = Geco(0.5, 1.0, 64, beta_min=1e-3), Geco(0.5, 1.0, 64)
    for _ in range(2):
        feed(low, objective(7000.0))
        feed(high, objective(5000.0))
    assert low.beta.item() == pytest.approx(1e-3)
    assert high.beta.item() == pytest.approx(1e10)
    geco = started(gap_ema=200.0, lr=1.0, beta=0.8)
    feed(geco, objective(EMORL_GOAL - 200))
    assert geco.beta.item() == pytest.approx(0.55)


def test_warm_up_holds_beta_while_the_average_runs() -> None:
    geco = Geco(0.5, 1e-6, 64, warmup=2, beta_start=0.5)
    feed(geco, objective(7000.0))
    feed(geco, objective(6900.0))
    assert geco.beta.item() == 0.5
    assert geco.err_ema.item() == pytest.approx(6999.0)
    feed(geco, objective(6900.0))
    assert geco.beta.item() < 0.5


def test_emorls_warm_up_minimises_error_plus_kl_and_then_starts_the_average() -> None:
    geco = emorl(warmup=2)
    for error in (3000.0, 2000.0):
        assert geco.error_weight().item() == 1.0
        loss = feed(geco, given := objective(error, kl=7.0))
        assert loss.item() == pytest.approx(error + 7.0)
        loss.backward()
        assert given.error.grad.tolist() == given.kl.grad.tolist() == [0.5, 0.5]
        assert geco.beta.item() == pytest.approx(0.55)
    assert geco.error_weight().item() == pytest.approx(WEIGHT)
    feed(geco, objective(1500.0))
    assert geco.gap_ema.item() == pytest.approx(EMORL_GOAL - 1500)
    feed(geco, objective(1000.0))
    expected = 0.99 * (EMORL_GOAL - 1500) + 0.01 * (EMORL_GOAL - 1000)
    assert geco.gap_ema.item() == pytest.approx(expected)


def test_emorls_passes_are_weighted_and_the_average_gives_the_value() -> None:
    """I = 2 refinements: weights 5/3, 4/3 and 1."""
    geco = started(gap_ema=-500.0)
    loss = feed(geco, given := objective(1000.0, kl=30.0, earlier=(3000.0, 2000.0)))
    assert loss.item() == pytest.approx(4 * (30 + WEIGHT * 500), rel=1e-5)
    loss.backward()
    kls = [kl.grad[0].item() for _, kl in given.earlier] + [given.kl.grad[0].item()]
    assert kls == pytest.approx([5 / 6, 4 / 6, 1 / 2])
    errors = [error.grad[0].item() for error, _ in given.earlier] + [given.error.grad[0].item()]
    assert errors == pytest.approx([WEIGHT * share for share in kls])
    # The last pass alone moves the average.
    assert geco.gap_ema.item() == pytest.approx(0.99 * -500 + 0.01 * (EMORL_GOAL - 1000))


def test_emorls_beta_moves_by_the_average_and_ten_times_as_fast_beyond_the_goal() -> None:
    rising = started(gap_ema=-500.0, lr=1e-4)
    loss = feed(rising, objective(1000.0))
    average = 0.99 * -500 + 0.01 * (EMORL_GOAL - 1000)
    assert rising.beta.item() == pytest.approx(0.55 - 1e-4 * average)
    assert loss.item() == pytest.approx(2 + WEIGHT * 500, rel=1e-5)
    falling = started(gap_ema=200.0, beta=0.8)
    feed(falling, objective(EMORL_GOAL - 200))
    assert falling.beta.item() == pytest.approx(0.8 - 10 * 1e-6 * 200, rel=1e-6)
    report = started(gap_ema=-500.0).report()
    assert report["err_ema"].item() == pytest.approx(EMORL_GOAL + 500)
    assert report["beta"].item() == pytest.approx(1 / WEIGHT)
