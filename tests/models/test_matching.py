"""Matching slots to positions."""

from __future__ import annotations

import pytest
import torch

from sri_cli.models.matching import MATCHINGS, greedy_order, hungarian_order, reorder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MATCHINGS)
def test_an_order_is_a_permutation(name: str) -> None:
    order = MATCHINGS[name](torch.randn(50, 9, 5), torch.randn(50, 9, 5))
    assert (order.sort(dim=1).values == torch.arange(9)).all()


def test_greedy_takes_the_nearest_left_and_hungarian_the_least_total() -> None:
    prior = torch.tensor([[[0.0], [1.0]]])
    slots = torch.tensor([[[0.6], [-5.0]]])
    assert greedy_order(prior, slots).tolist() == [[0, 1]]  # 0.6 + 6 = 6.6
    assert hungarian_order(prior, slots).tolist() == [[1, 0]]  # 5 + 0.4 = 5.4


def test_greedy_is_hungarian_where_every_position_has_a_slot_of_its_own() -> None:
    prior = 10 * torch.randn(50, 9, 16)
    truth = torch.stack([torch.randperm(9) for _ in range(50)])
    slots = torch.empty_like(prior).scatter(1, truth[..., None].expand(-1, -1, 16), prior)
    slots = slots + 0.1 * torch.randn_like(slots)
    assert torch.equal(greedy_order(prior, slots), truth)
    assert torch.equal(hungarian_order(prior, slots), truth)


def test_hungarian_never_costs_more_than_greedy() -> None:
    prior, slots = torch.randn(50, 6, 4), torch.randn(50, 6, 4)

    def cost(order: torch.Tensor) -> torch.Tensor:
        return (prior - reorder(slots, order)).norm(dim=-1).sum(dim=1)

    best, greedy = cost(hungarian_order(prior, slots)), cost(greedy_order(prior, slots))
    assert (best <= greedy + 1e-5).all() and (best < greedy - 1e-3).any()


def test_identical_slots_still_make_a_permutation() -> None:
    same = torch.zeros(2, 5, 3)
    for match in MATCHINGS.values():
        assert (match(same, same).sort(dim=1).values == torch.arange(5)).all()


@pytest.mark.parametrize("name", MATCHINGS)
def test_empty_slots_come_last_and_change_nothing_before(name: str) -> None:
    match = MATCHINGS[name]
    prior, slots = torch.randn(20, 7, 4), torch.randn(20, 7, 4)
    empty = torch.zeros(20, 7, dtype=torch.bool)
    empty[:, [1, 4]] = True
    empty[0] = False  # of each image its own number
    order = match(prior, slots, empty)
    assert (order.sort(dim=1).values == torch.arange(7)).all()
    assert torch.equal(order[0], match(prior[:1], slots[:1])[0])
    assert reorder(empty, order)[1:].tolist() == [[False] * 5 + [True] * 2] * 19
    there = torch.tensor([0, 2, 3, 5, 6])
    alone = match(prior[1:, :5], slots[1:, there])
    assert torch.equal(order[1:, :5], there[alone])


def test_matching_sends_no_gradient() -> None:
    slots = torch.randn(1, 3, 2, requires_grad=True)
    assert not greedy_order(torch.randn(1, 3, 2), slots).requires_grad
    reorder(slots, greedy_order(torch.randn(1, 3, 2), slots)).sum().backward()
    assert torch.equal(slots.grad, torch.ones(1, 3, 2))
