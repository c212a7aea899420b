"""Layers that several models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.norm import GroupNorm


def full_precision(like: Tensor) -> torch.autocast:
    """Switch autocast off: latents, recurrences and densities stay in float32."""
    return torch.autocast(like.device.type, enabled=False)


def conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    """Conv3x3 without bias, GroupNorm(8), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        GroupNorm(8, outputs),
        nn.ReLU(),
    )


def coordinate_grid(rows: int, columns: int | None = None) -> Tensor:
    """[2, rows, columns]: the row, then the column coordinate, both in [-1, 1] with both ends."""
    columns = rows if columns is None else columns
    grid = torch.meshgrid(
        torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij"
    )
    return torch.stack(grid)


def init_small(module: nn.Module) -> None:
    """Xavier normal, gain 0.02, zero bias: every Linear and convolution inside (SRI and EMORL)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_normal_(layer.weight, gain=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_default(module: nn.Module) -> None:
    """PyTorch's own initial weights for every Linear and convolution inside."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.reset_parameters()


class Lstm(nn.Module):
    """A single-layer LSTM with nn.LSTM's parameters and initialisation; states start at 0.

    nn.LSTM itself cannot be traced by torch.compile; its weights as plain parameters can. A known
    sequence runs as one fused call in eager mode and as written-out cells when compiled.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        bound = hidden**-0.5
        shapes = {
            "weight_ih_l0": (4 * hidden, inputs),
            "weight_hh_l0": (4 * hidden, hidden),
            "bias_ih_l0": (4 * hidden,),
            "bias_hh_l0": (4 * hidden,),
        }
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape))
            nn.init.uniform_(parameter, -bound, bound)
            self.register_parameter(name, parameter)

    def start(self, batch: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden, cell) of zeros, both [batch, hidden]."""
        zeros = like.new_zeros(batch, self.hidden, dtype=torch.float32)
        return zeros, zeros

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: x [B, inputs] and the state to the next state; the output is its first part."""
        if not torch.compiler.is_compiling():
            return torch.lstm_cell(
                x, state, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0
            )
        hidden, cell = state
        gates = nn.functional.linear(x, self.weight_ih_l0, self.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, self.weight_hh_l0, self.bias_hh_l0)
        admit, keep, candidate, emit = gates.chunk(4, dim=-1)
        cell = keep.sigmoid() * cell + admit.sigmoid() * candidate.tanh()
        return emit.sigmoid() * cell.tanh(), cell

    def forward(self, sequence: Tensor) -> Tensor:
        """Outputs [B, T, hidden] for a known sequence [B, T, inputs]."""
        state = self.start(len(sequence), sequence)
        # A GPU's own LSTM rounds to TF32; recurrences stay in float32.
        if not torch.compiler.is_compiling() and sequence.device.type == "cpu":
            start = tuple(part[None] for part in state)
            weights = [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]
            return torch.lstm(sequence, start, weights, True, 1, 0.0, self.training, False, True)[0]
        outputs = []
        for x in sequence.unbind(dim=1):
            state = self.step(x, state)
            outputs.append(state[0])
        return torch.stack(outputs, dim=1)
