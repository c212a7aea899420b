"""EfficientMORL's GECO against its closed form (MODELS: C_ema, b, loss)."""

from __future__ import annotations

import math

import pytest
import torch

from sri_cli.models.base import Objective
from sri_cli.training.geco import EmorlGeco

GOAL = -2.206 * 3 * 16 * 16  # -1694.2
WEIGHT = math.log1p(math.exp(0.55))  # softplus of where beta starts


def geco(warmup: int = 0, lr: float = 1e-6) -> EmorlGeco:
    return EmorlGeco(-2.206, lr, 16, warmup=warmup)


def objective(error: float, kl: float = 2.0, earlier: tuple[float, ...] = ()) -> Objective:
    """Two images around the given means; earlier passes of the same KL."""

    def pair(mean: float) -> tuple[torch.Tensor, torch.Tensor]:
        errors, kls = torch.tensor([mean - 1, mean + 1]), torch.tensor([kl, kl])
        return errors.requires_grad_(), kls.requires_grad_()

    return Objective("any", *pair(error), tuple(pair(mean) for mean in earlier))


def feed(running: EmorlGeco, given: Objective) -> torch.Tensor:
    """The loss; the multiplier moves after it."""
    loss = running(given)
    running.update(given.error.detach().mean())
    return loss


def started(gap_ema: float, beta: float = 0.55, lr: float = 1e-6) -> EmorlGeco:
    """In the midst of a training."""
    running = geco(lr=lr)
    running.seen.fill_(5)
    running.gap_ema.fill_(gap_ema)
    running.beta.fill_(beta)
    return running


def test_the_warm_up_minimises_error_plus_kl() -> None:
    warming = geco(warmup=2)
    for error in (3000.0, 2000.0):
        assert warming.error_weight().item() == 1.0
        loss = feed(warming, given := objective(error, kl=7.0))
        assert loss.item() == pytest.approx(error + 7.0)
        loss.backward()
        assert given.error.grad.tolist() == given.kl.grad.tolist() == [0.5, 0.5]
        assert warming.beta.item() == pytest.approx(0.55)
    assert warming.error_weight().item() == pytest.approx(WEIGHT)


def test_the_average_starts_when_the_warm_up_ends() -> None:
    warming = geco(warmup=1)
    feed(warming, objective(3000.0))
    feed(warming, objective(2000.0))
    assert warming.gap_ema.item() == pytest.approx(GOAL - 2000)
    feed(warming, objective(1000.0))
    expected = 0.99 * (GOAL - 2000) + 0.01 * (GOAL - 1000)
    assert warming.gap_ema.item() == pytest.approx(expected)


def test_the_average_gives_the_value_and_the_gap_the_gradient() -> None:
    loss = feed(started(gap_ema=-500.0), given := objective(1000.0, kl=30.0))
    assert loss.item() == pytest.approx(30 + WEIGHT * 500, rel=1e-5)
    loss.backward()
    assert given.error.grad.tolist() == pytest.approx([WEIGHT / 2, WEIGHT / 2])
    assert given.kl.grad.tolist() == [0.5, 0.5]


def test_passes_are_weighed_by_their_number() -> None:
    """I = 2: 5/3, 4/3 and 1."""
    running = started(gap_ema=-500.0)
    loss = feed(running, given := objective(1000.0, kl=30.0, earlier=(3000.0, 2000.0)))
    assert loss.item() == pytest.approx(4 * (30 + WEIGHT * 500), rel=1e-5)
    loss.backward()
    kls = [kl.grad[0].item() for _, kl in given.earlier] + [given.kl.grad[0].item()]
    assert kls == pytest.approx([5 / 6, 4 / 6, 1 / 2])
    errors = [error.grad[0].item() for error, _ in given.earlier] + [given.error.grad[0].item()]
    assert errors == pytest.approx([WEIGHT * share for share in kls])
    # The last pass alone moves the average.
    assert running.gap_ema.item() == pytest.approx(0.99 * -500 + 0.01 * (GOAL - 1000))


def test_one_refinement_weighs_two_and_three_halves() -> None:
    loss = feed(started(gap_ema=0.0), objective(1000.0, kl=30.0, earlier=(3000.0,)))
    assert loss.item() == pytest.approx((2 + 1.5) * 30, rel=1e-5)


def test_beta_rises_by_the_gap_and_the_loss_still_sees_the_old_one() -> None:
    running = started(gap_ema=-500.0, lr=1e-4)
    loss = feed(running, objective(1000.0))
    average = 0.99 * -500 + 0.01 * (GOAL - 1000)
    assert running.beta.item() == pytest.approx(0.55 - 1e-4 * average)
    assert loss.item() == pytest.approx(2 + WEIGHT * 500, rel=1e-5)
    assert running.error_weight().item() > WEIGHT


def test_beyond_the_goal_beta_falls_ten_times_as_fast() -> None:
    running = started(gap_ema=200.0, beta=0.8)
    feed(running, objective(GOAL - 200))
    assert running.beta.item() == pytest.approx(0.8 - 10 * 1e-6 * 200, rel=1e-6)


def test_beta_never_falls_below_where_it_began() -> None:
    running = started(gap_ema=200.0, lr=1.0, beta=0.8)
    feed(running, objective(GOAL - 200))
    assert running.beta.item() == pytest.approx(0.55)


def test_all_state_travels_in_the_state_dict() -> None:
    first, second = geco(warmup=1, lr=1e-4), geco(warmup=1, lr=1e-4)
    for error in (3000.0, 2000.0):
        feed(first, objective(error))
    second.load_state_dict(first.state_dict())
    assert feed(first, objective(1500.0)).item() == feed(second, objective(1500.0)).item()
    assert torch.equal(first.beta, second.beta)


def test_the_log_has_the_average_error_and_the_weight_of_the_kl() -> None:
    report = started(gap_ema=-500.0).report()
    assert report["err_ema"].item() == pytest.approx(GOAL + 500)
    assert report["beta"].item() == pytest.approx(1 / WEIGHT)
