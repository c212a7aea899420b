"""Matching: in which order SRI generates the segregated slots (paper, section 3.3).

The means m_j of the segregation posterior are matched to the means p_k of a rollout of the prior,
by Euclidean distance, without gradient. Axis legend: B batch, K slots, D slot size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FAR = 1e9  # beyond any distance of means, and finite: the Hungarian method adds distances

# (prior means [B,K,D], segregation means [B,K,D], empty slots [B,K] or None) -> order [B,K]
Matching = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def distances(prior: Tensor, slots: Tensor, empty: Tensor | None) -> Tensor:
    """||p_k - m_j||, [B,K,K] with rows k; `empty` slots fit the last positions only."""
    distance = torch.cdist(prior, slots, compute_mode="donot_use_mm_for_euclid_dist")
    if empty is None:
        return distance
    late = empty.sort(dim=1).values  # as many positions at the end as there are empty slots
    return distance.masked_fill(late[:, :, None] != empty[:, None, :], FAR)


@torch.no_grad()
def greedy_order(prior: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor:
    """o(k) = argmin over the j not taken yet of ||p_k - m_j||, for k = 1..K in turn.

    Args:
        prior: Means of the rollout's prior [B,K,D].
        slots: Means of the segregation posterior [B,K,D].
        empty: Slots that hold nothing [B,K], if any may be.

    Returns:
        The slot at each position, [B,K] of int64. Stays on the device.
    """
    distance = distances(prior, slots, empty)
    taken = torch.zeros_like(distance[:, 0], dtype=torch.bool)
    order = []
    for row in distance.unbind(dim=1):
        nearest = row.masked_fill(taken, torch.inf).argmin(dim=1, keepdim=True)
        taken = taken.scatter(1, nearest, True)
        order.append(nearest)
    return torch.cat(order, dim=1)


@torch.no_grad()
def hungarian_order(prior: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor:
    """The permutation o of least sum_k ||p_k - m_o(k)||; as `greedy_order`, but on the CPU."""
    distance = distances(prior, slots, empty)
    columns = [linear_sum_assignment(cost)[1].tolist() for cost in distance.cpu().numpy()]
    return torch.tensor(columns, dtype=torch.int64, device=prior.device)


MATCHINGS: dict[str, Matching] = {"greedy": greedy_order, "hungarian": hungarian_order}


def reorder(slots: Tensor, order: Tensor | None) -> Tensor:
    """slots [B,K,...] permuted: position k gets slot order[b, k]; unchanged without an order."""
    if order is None:
        return slots
    index = order.reshape(*order.shape, *(1 for _ in slots.shape[2:]))
    return slots.gather(1, index.expand(-1, -1, *slots.shape[2:]))
