"""Greedy against best orders, on costs small enough to add up by hand."""

from __future__ import annotations

import pytest
import torch

from sri_cli.metrics.matching import compare_orders, order_cost, synthetic_means
from sri_cli.models.matching import distances, greedy_order, hungarian_order


def test_a_cost_is_the_sum_over_places() -> None:
    costs = torch.tensor([[[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]]])
    assert order_cost(costs, torch.tensor([[0, 1, 2]])).tolist() == [273]
    assert order_cost(costs, torch.tensor([[2, 0, 1]])).tolist() == [140]


def test_where_the_first_place_takes_what_the_second_needs() -> None:
    # The first place takes slot 0 for 1 and leaves 10 to the second; the best is 2 + 3.
    costs = torch.tensor([[[1.0, 2.0], [3.0, 10.0]]])
    greedy, best = torch.tensor([[0, 1]]), torch.tensor([[1, 0]])
    assert compare_orders(costs, greedy, best) == {
        "images": 1,
        "images_differ": 1.0,
        "places_differ": 1.0,
        "excess_percent": pytest.approx(100 * (11 / 5 - 1)),
    }


def test_shares_and_means_are_over_all_images() -> None:
    costs = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 10.0, 9.0], [9.0, 9.0, 4.0]]]).expand(4, 3, 3)
    best = torch.tensor([[1, 0, 2]]).repeat(4, 1)
    greedy = best.clone()
    greedy[3] = torch.tensor([0, 1, 2])  # 15 instead of 9
    found = compare_orders(costs, greedy, best)
    assert found["images_differ"] == 1 / 4
    assert found["places_differ"] == pytest.approx(2 / 12)
    assert found["excess_percent"] == pytest.approx(100 * (15 / 9 - 1) / 4)


def test_equal_costs_are_no_excess() -> None:
    costs = torch.zeros(1, 2, 2)
    found = compare_orders(costs, torch.tensor([[0, 1]]), torch.tensor([[1, 0]]))
    assert found["images_differ"] == 1 and found["excess_percent"] == 0


def test_both_methods_on_a_line() -> None:
    """Places at 0 and 2, slots at 1 and -1.5: greedy 1 + 3.5, best 1.5 + 1."""
    places, slots = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[1.0], [-1.5]]])
    greedy, best = greedy_order(places, slots), hungarian_order(places, slots)
    assert greedy.tolist() == [[0, 1]] and best.tolist() == [[1, 0]]
    found = compare_orders(distances(places, slots, None), greedy, best)
    assert found["excess_percent"] == pytest.approx(80)


def test_made_up_slots_are_places_in_another_order() -> None:
    places, slots = synthetic_means(50, 7, 64, 0.0, seed=3)
    order = hungarian_order(places, slots)
    assert torch.equal(slots.gather(1, order[:, :, None].expand(-1, -1, 64)), places)
    assert len({tuple(row) for row in order.tolist()}) > 40
    assert places.std() == pytest.approx(1, abs=0.02)


def test_noise_is_relative_to_the_places() -> None:
    places, slots = synthetic_means(200, 5, 64, 0.5, seed=0)
    order = hungarian_order(places, slots)
    rest = slots.gather(1, order[:, :, None].expand(-1, -1, 64)) - places
    assert rest.std() == pytest.approx(0.5, rel=0.02)


def test_means_belong_to_the_seed() -> None:
    one, again, other = (synthetic_means(4, 5, 8, None, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    places, slots = one
    assert not torch.isclose(places[:, :, None], slots[:, None]).all(dim=-1).any()
