"""In which order the segregated slots are imagined (paper, section 3.3).

Axis legend: B batch, K places and slots, D slot size.
"""

from __future__ import annotations

from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FAR = 1e9  # beyond any distance of means, and finite: the Hungarian method wants to add


class Matching(Protocol):
    """places, slots [B,K,D] and which slots are empty [B,K], if any may be, to an order [B,K]."""

    def __call__(self, places: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor: ...


def distances(places: Tensor, slots: Tensor, empty: Tensor | None) -> Tensor:
    """[B,K,K] Euclidean, from place (row) to slot; empty slots fit the last places only."""
    distance = torch.cdist(places, slots, compute_mode="donot_use_mm_for_euclid_dist")
    if empty is None:
        return distance
    late = empty.sort(dim=1).values  # as many places at the end as there are empty slots
    return distance.masked_fill(late[:, :, None] != empty[:, None, :], FAR)


@torch.no_grad()
def greedy_order(places: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor:
    """For each place in turn the nearest slot not taken yet.

    places, slots [B,K,D]: means of the rollout's prior and of the segregation posterior.
    Returns [B,K] of int64: the slot at each place. Stays on the device.
    """
    distance = distances(places, slots, empty)
    taken = torch.zeros_like(distance[:, 0], dtype=torch.bool)
    order = []
    for row in distance.unbind(dim=1):
        nearest = row.masked_fill(taken, torch.inf).argmin(dim=1, keepdim=True)
        taken = taken.scatter(1, nearest, True)
        order.append(nearest)
    return torch.cat(order, dim=1)


@torch.no_grad()
def hungarian_order(places: Tensor, slots: Tensor, empty: Tensor | None = None) -> Tensor:
    """The assignment of least total distance; as `greedy_order`, but by way of the host."""
    distance = distances(places, slots, empty)
    columns = [linear_sum_assignment(cost)[1].tolist() for cost in distance.cpu().numpy()]
    return torch.tensor(columns, dtype=torch.int64, device=places.device)


MATCHINGS: dict[str, Matching] = {"greedy": greedy_order, "hungarian": hungarian_order}


def reorder(slots: Tensor, order: Tensor | None) -> Tensor:
    """slots [B,K,...] permuted: place k gets slot order[b, k]; left as they are without order."""
    if order is None:
        return slots
    index = order.reshape(*order.shape, *(1 for _ in slots.shape[2:]))
    return slots.gather(1, index.expand(-1, -1, *slots.shape[2:]))
