"""Matching: in which order SRI generates the segregated slots (paper, section 3.3).

The means m_j of the segregation posterior are matched to the means p_k of a rollout of the prior,
by Euclidean distance: without gradient, or in training by a relaxation of the permutation (future
work of the paper). Axis legend: B batch, K slots, D slot size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SINKHORN_STEPS = 20  # of normalisation in training
HARD_STEPS, HARD_TEMPERATURE = 200, 0.02  # where the order is hard
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
    from scipy.optimize import linear_sum_assignment  # a fifth of the time of a short command

    distance = distances(prior, slots, empty).nan_to_num(nan=FAR, posinf=FAR)  # SciPy refuses them
    columns = [linear_sum_assignment(cost)[1].tolist() for cost in distance.cpu().numpy()]
    return torch.tensor(columns, dtype=torch.int64, device=prior.device)


def relaxed_order(prior: Tensor, slots: Tensor, temperature: Tensor, uniform: Tensor) -> Tensor:
    """A sample of the Gumbel-Sinkhorn relaxation of the matching, with gradient.

        P = Sinkhorn((G - C) / temperature),   C_kj = ||p_k - m_j||,   G_kj ~ Gumbel

    with rows and columns that sum to about 1; P m are the means in generation order. The lower the
    temperature, the closer P is to a permutation (Mena et al., 2018, arXiv:1802.08665).

    Args:
        prior: Means of the rollout's prior [B,K,D].
        slots: Means of the segregation posterior [B,K,D].
        temperature: Above 0, a scalar.
        uniform: [B,K,K] from [0,1), for the Gumbel noise.

    Returns:
        [B,K,K], rows k, columns j.
    """
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    return sinkhorn((gumbel - distances(prior, slots, None)) / temperature, SINKHORN_STEPS).exp()


def sinkhorn(logits: Tensor, steps: int) -> Tensor:
    """The logarithm of exp(logits) [B,K,K] with rows and columns normalised in turn `steps` times.

    The rows come last, so that they sum to 1 exactly.
    """
    for _ in range(steps):
        logits = logits.log_softmax(dim=1).log_softmax(dim=2)
    return logits


@torch.no_grad()
def sinkhorn_order(prior: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor:
    """The permutation that Sinkhorn without noise comes to at a low temperature.

    As `greedy_order`, and close to `hungarian_order` without leaving the device: the largest entry
    is taken first, then the largest of the rows and columns that are left.
    """
    logits = -distances(prior, slots, empty) / HARD_TEMPERATURE
    weights = sinkhorn(logits, HARD_STEPS)
    k = weights.shape[1]
    order = torch.zeros_like(weights[:, 0], dtype=torch.int64)
    for _ in range(k):
        best = weights.flatten(1).argmax(dim=1, keepdim=True)
        row, column = best // k, best % k
        order = order.scatter(1, row, column)
        weights = weights.scatter(1, row[..., None].expand(-1, 1, k), -torch.inf)
        weights = weights.scatter(2, column[..., None].expand(-1, k, 1), -torch.inf)
    return order


MATCHINGS: dict[str, Matching] = {
    "greedy": greedy_order,
    "hungarian": hungarian_order,
    "sinkhorn": sinkhorn_order,
}


def reorder(slots: Tensor, order: Tensor | None) -> Tensor:
    """slots [B,K,...] permuted: position k gets slot order[b, k]; unchanged without an order."""
    if order is None:
        return slots
    index = order.reshape(*order.shape, *(1 for _ in slots.shape[2:]))
    return slots.gather(1, index.expand(-1, -1, *slots.shape[2:]))
