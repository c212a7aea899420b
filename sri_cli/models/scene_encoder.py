"""Relate: q(s | z_1:K), the scene posterior of segregated slots (paper, section 3.2).

Axis legend: B batch, K slots (indices i, j), D slot size, S scene size. No positional encoding:
the result does not depend on the order of the slots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.distributions import Gaussian, sqrt_softplus
from sri_cli.models.layers import full_precision, init_small

SET_LAYERS = 3


class SetAttention(nn.Module):
    """Attention whose values are relations between two slots:

    v_ij = MLP([x_i ; x_i - x_j]),  a_ij = softmax_j(q_i . k_j / sqrt(D)),  y_i = sum_j a_ij v_ij,
    out = x + MLP(LayerNorm(x + y)).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.relation = nn.Sequential(nn.Linear(2 * size, size), nn.GELU(), nn.Linear(size, size))
        self.norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, x: Tensor, empty: Tensor | None = None) -> Tensor:
        """[B,K,D] to [B,K,D]; `empty` slots [B,K] are not attended to."""
        k, d = x.shape[1:]
        own = x[:, :, None].expand(-1, -1, k, -1)
        values = self.relation(torch.cat([own, own - x[:, None]], dim=-1))
        logits = torch.bmm(self.query(x) / d**0.5, self.key(x).transpose(1, 2))
        if empty is not None:
            logits = logits.masked_fill(empty[:, None, :], -torch.inf)
        gathered = (logits.softmax(dim=-1)[..., None] * values).sum(dim=2)
        return x + self.mlp(self.norm(x + gathered))


class SceneEncoder(nn.Module):
    """q(s | z) = N(mean(h), sqrt_softplus(spread(h))^2), h = GELU(W sum_k SetAttention(z)_k)."""

    def __init__(self, slot_size: int, scene_size: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(SetAttention(slot_size) for _ in range(SET_LAYERS)))
        self.project = nn.Sequential(nn.Linear(slot_size, scene_size), nn.GELU())
        self.mean = nn.Linear(scene_size, scene_size)
        self.spread = nn.Linear(scene_size, scene_size)
        init_small(self)

    def forward(self, slots: Tensor, empty: Tensor | None = None) -> Gaussian:
        """Sampled slots [B,K,D] to a Gaussian [B,S]; `empty` slots [B,K] do not count."""
        with full_precision(slots):
            for block in self.blocks:
                slots = block(slots, empty)
            if empty is not None:
                slots = slots.masked_fill(empty[..., None], 0.0)
            hidden = self.project(slots.sum(dim=1))
            return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))
