"""Building blocks that several models share.

Axis legend: B batch, N batch of any kind, G groups, C channels, F features, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sri_cli.models.kernels import GroupNormRelu, update_average

FEATURES = 64  # of EMORL's encoder
EDGES = 4


def full_precision(like: Tensor) -> torch.autocast:
    """Switch autocast off: latents, recurrences and densities stay in float32."""
    return torch.autocast(like.device.type, enabled=False)


def coordinate_grid(rows: int, columns: int | None = None) -> Tensor:
    """[2, rows, columns]: the row, then the column coordinate, both in [-1, 1] with both ends."""
    columns = rows if columns is None else columns
    grid = torch.meshgrid(
        torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij"
    )
    return torch.stack(grid)


def position_code(side: int) -> Tensor:
    """[side*side, 4]: distances to the right, left, top and bottom edge, each in [0, 1].

    Width-major: the code of w = i, h = j is at row i and column j of the pixels, as in the
    published models.
    """
    near = torch.linspace(0, 1, side)
    w, h = torch.meshgrid(near, near, indexing="ij")
    return torch.stack([1 - w, w, h, 1 - h], dim=-1).flatten(0, 1)


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


def conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    """Conv3x3 without bias, GroupNorm(8), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), GroupNormRelu(8, outputs)
    )


class ConvEncoder(nn.Module):
    """EMORL's encoder: images [B,3,H,W] in [0,1] to features [B,H*W,64], row by row."""

    code: Tensor

    def __init__(self, image_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (3, FEATURES, FEATURES, FEATURES):
            layers += [nn.Conv2d(inputs, FEATURES, 5, padding=2), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.position = nn.Linear(EDGES, FEATURES)
        self.head = pixel_mlp(FEATURES)
        self.register_buffer("code", position_code(image_size), persistent=False)
        for part in (self.convolutions, self.head):
            init_small(part)

    def forward(self, images: Tensor) -> Tensor:
        centred = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        pixels = self.convolutions(centred).flatten(2).transpose(1, 2)
        # At first the convolutions add less to the position than bf16 resolves.
        with full_precision(images):
            return self.head(pixels.float() + self.position(self.code))


def pixel_mlp(features: int) -> nn.Sequential:
    """LayerNorm and two layers, the same for every pixel; for float32.

    The norm sums the gradients of its parameters over all pixels in the precision of its input: on
    a CPU bf16 loses seven eighths of the sum over 16,384 pixels.
    """
    return nn.Sequential(
        nn.LayerNorm(features),
        nn.Linear(features, features),
        nn.ReLU(),
        nn.Linear(features, features),
    )


class Lstm(nn.Module):
    """A single-layer LSTM with nn.LSTM's parameters and initialisation; states start at 0.

    torch.compile cannot trace nn.LSTM, but it can trace these plain parameters. A known sequence
    runs as one fused call in eager mode and as written-out cells when compiled.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        shapes = {
            "weight_ih_l0": (4 * hidden, inputs),
            "weight_hh_l0": (4 * hidden, hidden),
            "bias_ih_l0": (4 * hidden,),
            "bias_hh_l0": (4 * hidden,),
        }
        register_uniform(self, shapes, hidden**-0.5)

    def start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden, cell) of zeros, both [B, hidden], for `like` [B, ...]."""
        zeros = like.new_zeros(len(like), self.hidden, dtype=torch.float32)
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
        state = self.start(sequence)
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


def register_uniform(module: nn.Module, shapes: dict[str, tuple[int, ...]], bound: float) -> None:
    """Parameters by name, drawn from U(-bound, bound)."""
    for name, shape in shapes.items():
        parameter = nn.Parameter(torch.empty(shape))
        nn.init.uniform_(parameter, -bound, bound)
        module.register_parameter(name, parameter)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, same parameters, buffers and numbers, on the CPU and on GPUs.

    In training it takes the statistics over the batches of all processes of the process group, if
    there is one. They must all call it; their batches may differ in size. (PyTorch's SyncBatchNorm
    works on GPUs alone.)
    """

    @property
    def sums_over_ranks(self) -> bool:
        """Whether its statistics are those of all processes now."""
        ready = dist.is_available() and dist.is_initialized()
        return self.training and ready and dist.get_world_size() > 1

    def forward(self, input: Tensor) -> Tensor:
        if not self.sums_over_ranks:
            return super().forward(input)
        with full_precision(input):
            return self._normalise(input.float()).to(input.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        number = SumOverRanks.apply(torch.full((), float(n * h * w), device=x.device))
        mean = SumOverRanks.apply(x.sum(dim=(0, 2, 3))) / number
        centred = x - mean[:, None, None]
        # In two passes: the mean of squares minus the squared mean loses digits.
        variance = SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3))) / number
        update_average(self, mean, variance * number / (number - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None])


class SumOverRanks(torch.autograd.Function):
    """A sum over processes; the gradient of the sum of their losses sums back the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return SumOverRanks.apply(*grads)
