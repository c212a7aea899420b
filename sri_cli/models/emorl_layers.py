"""The parts of EfficientMORL's hierarchy: attention layers with two memories, priors downwards.

Axis legend: B batch, K slots, D slot size, F features, N pixels. Everything runs in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sri_cli.models.distributions import Gaussian, sqrt_softplus
from sri_cli.models.layers import init_small

HIDDEN = 128
ATTENTION_EPSILON = 1e-8


class Parameters(NamedTuple):
    """Means and u [B,K,D] of a slot posterior: what layers and refinement pass on."""

    mean: Tensor
    u: Tensor

    def gaussian(self) -> Gaussian:
        """The posterior itself; no property, which torch 2.10 cannot compile."""
        return Gaussian(self.mean, sqrt_softplus(self.u))


class DualGru(nn.Module):
    """Two independent GRUs with the same input: cell 1 remembers the means, cell 2 the u.

    Weights of the gates hold rows [reset ; update], biases hold [cell 1 ; cell 2].
    """

    bias_ih: Tensor
    bias_hh: Tensor
    bias_in: Tensor
    bias_hn: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {}
        for cell in (1, 2):
            shapes |= {f"weight_{kind}_{cell}": (2 * size, size) for kind in ("ih", "hh")}
            shapes |= {f"weight_{kind}_{cell}": (size, size) for kind in ("in", "hn")}
        shapes |= {f"bias_{kind}": (4 * size,) for kind in ("ih", "hh")}
        shapes |= {f"bias_{kind}": (2 * size,) for kind in ("in", "hn")}
        bound = size**-0.5
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape))
            nn.init.uniform_(parameter, -bound, bound)
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor, state: Parameters) -> Parameters:
        """x [B,K,D] and the memories to the next memories."""
        return Parameters(self._cell(1, x, state.mean), self._cell(2, x, state.u))

    def _cell(self, cell: int, x: Tensor, memory: Tensor) -> Tensor:
        # torch.gru_cell computes the same function of rows [reset ; update ; candidate].
        def rows(gates: str, candidate: str) -> tuple[Tensor, Tensor]:
            weight = [getattr(self, f"weight_{kind}_{cell}") for kind in (gates, candidate)]
            halves = [getattr(self, f"bias_{kind}").chunk(2) for kind in (gates, candidate)]
            return torch.cat(weight), torch.cat([half[cell - 1] for half in halves])

        (w_in, b_in), (w_hidden, b_hidden) = rows("ih", "in"), rows("hh", "hn")
        flat = torch.gru_cell(x.flatten(0, 1), memory.flatten(0, 1), w_in, w_hidden, b_in, b_hidden)
        return flat.unflatten(0, x.shape[:2])


class AttentionLayer(nn.Module):
    """Slots compete for pixels; what each gathers updates its posterior."""

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(features, size, bias=False)
        self.value = nn.Linear(features, size, bias=False)
        self.mean_norm, self.u_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mean_mlp, self.u_mlp = (
            nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
            for _ in range(2)
        )
        init_small(self)
        self.gru = DualGru(size)

    def forward(
        self, slots: Tensor, state: Parameters, pixels: tuple[Tensor, Tensor]
    ) -> tuple[Parameters, Tensor]:
        """Sampled slots [B,K,D], the layer before, keys and values [B,N,D].

        Returns this layer's posterior and the log-attention [B,K,N], a softmax over slots.
        """
        keys, values = pixels
        query = self.query(self.norm(slots)) / slots.shape[-1] ** 0.5
        log_attention = torch.bmm(query, keys.transpose(1, 2)).log_softmax(dim=1)
        attention = log_attention.exp() + ATTENTION_EPSILON
        attention = attention / attention.sum(dim=-1, keepdim=True)
        mean, u = self.gru(torch.bmm(attention, values), state)
        mean = mean + self.mean_mlp(self.mean_norm(mean))
        u = u + self.u_mlp(self.u_norm(u))
        return Parameters(mean, u), log_attention


class LayerPrior(nn.Module):
    """The prior of a layer given a sample of the one above it; the same map at every layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(size, HIDDEN), nn.ELU())
        self.mean = nn.Linear(HIDDEN, size)
        self.spread = nn.Linear(HIDDEN, size)
        init_small(self)

    def forward(self, above: Tensor) -> Gaussian:
        """[B,K,D] to a Gaussian [B,K,D]."""
        hidden = self.hidden(above)
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))
