"""Slots to images: the broadcast decoder of GENESIS-v2 and SRI, and the two of EMORL.

Axis legend: B batch, K slots, N = B*K, D slot size, H W pixels. All slots of all images are
decoded as one batch; every decoder takes slots [B,K,D], any K, and returns a `Scene`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Scene
from sri_cli.models.kernels import ConvTranspose2d, Elu, GroupNormRelu, broadcast_elu, norm_head
from sri_cli.models.layers import EDGES, coordinate_grid, init_small, position_code

UPSAMPLING = 16  # four transposed convolutions of stride 2
CHANNELS = 64  # of EMORL's decoders
OUTPUTS = 4  # red, green, blue, mask logit
MARGIN_PX = 10  # taken away again by five valid 3x3 convolutions
KERNEL = 5  # of a doubling


def doubling(inputs: int, outputs: int) -> ConvTranspose2d:
    """A transposed convolution that doubles the side."""
    return ConvTranspose2d(inputs, outputs, KERNEL, stride=2, padding=2, output_padding=1)


def double(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a `doubling` with these parameters does."""
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=2, output_padding=1)


def doubling_taps(grid: int) -> Tensor:
    """[taps, pixels]: how often each tap of a `doubling` of a grid of ones reaches each pixel."""
    taps = torch.eye(KERNEL**2).view(1, -1, KERNEL, KERNEL)
    return double(torch.ones(1, 1, grid, grid), taps)[0].flatten(1)


def double_broadcast(slots: Tensor, weight: Tensor, taps: Tensor, rest: Tensor) -> Tensor:
    """A `doubling` of slots [N,D] that are the same at every pixel, plus `rest` [1,C,H,W].

    It is a linear map of the slot, one for each pixel: weight [D,C,5,5] summed over the taps that
    reach the pixel.
    """
    channels, rows, columns = rest.shape[1:]
    maps = (weight.flatten(2) @ taps).permute(2, 1, 0).flatten(0, 1)  # [H*W*C,D]
    x = F.linear(slots, maps, rest.permute(0, 2, 3, 1).flatten())
    return x.view(-1, rows, columns, channels).permute(0, 3, 1, 2)


class SlotDecoder(nn.Module):
    """Decodes slots one by one and blends them: masks are a softmax over slots."""

    def decode(self, slots: Tensor) -> Tensor:
        """[N,D] to colours and mask logits [N,4,H,W], before any squashing."""
        raise NotImplementedError

    def forward(self, slots: Tensor) -> Scene:
        decoded = self.decode(slots.flatten(0, 1))
        # One plane per channel: colours and logits go separate ways.
        planes = decoded.to(torch.float32, memory_format=torch.contiguous_format)
        rgb, logits = planes.unflatten(0, slots.shape[:2]).split([3, 1], dim=2)
        return Scene(self.colours(rgb), logits.log_softmax(dim=1))

    def colours(self, rgb: Tensor) -> Tensor:
        """The first three of the outputs to colours."""
        return rgb.sigmoid()


class BroadcastDecoder(SlotDecoder):
    """GENESIS-v2's and SRI's decoder: [slot ; row ; column] on a grid of H/16, four doublings."""

    grid: Tensor
    taps: Tensor

    def __init__(self, image_size: int, slot_size: int, channels: int) -> None:
        super().__init__()
        side = image_size // UPSAMPLING
        layers: list[nn.Module] = []
        for inputs in (slot_size + 2, channels, channels, channels):
            layers += [
                doubling(inputs, channels),
                GroupNormRelu(8, channels),
                nn.Identity(),  # checkpoints count the ReLU as a layer
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, OUTPUTS, 1))
        self.register_buffer("grid", coordinate_grid(side), persistent=False)
        self.register_buffer("taps", doubling_taps(side), persistent=False)

    def decode(self, slots: Tensor) -> Tensor:
        first = self.layers[0]
        assert isinstance(first, ConvTranspose2d)
        weight, grid_weight = first.weight.split([slots.shape[1], len(self.grid)])
        grid = double(self.grid[None], grid_weight, first.bias)
        *doublings, norm, _, head = self.layers[1:]
        assert isinstance(norm, GroupNormRelu) and isinstance(head, nn.Conv2d)
        x = double_broadcast(slots, weight, self.taps, grid)
        for layer in doublings:
            x = layer(x)
        return norm_head(x, norm, head)


class PositionedDecoder(SlotDecoder):
    """EMORL's decoders: the slot at every pixel of a grid, plus a projection of its position."""

    code: Tensor
    convolutions: nn.Sequential

    def __init__(self, grid: int, slot_size: int) -> None:
        super().__init__()
        self.grid = grid
        self.position = nn.Linear(EDGES, slot_size)
        self.register_buffer("code", position_code(grid), persistent=False)

    def positions(self) -> Tensor:
        """The projected position code, [1,D,grid,grid]."""
        return self.position(self.code).T.unflatten(1, (self.grid, self.grid))[None]


class IodineDecoder(PositionedDecoder):
    """Five valid 3x3 convolutions over a grid of H+10; images of any size."""

    def __init__(self, image_size: int, slot_size: int) -> None:
        super().__init__(image_size + MARGIN_PX, slot_size)
        widths = [slot_size, CHANNELS, CHANNELS, CHANNELS, CHANNELS, OUTPUTS]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            # In place, or every activation would be stored twice for the gradient.
            layers += [nn.Conv2d(inputs, outputs, 3), Elu()]
        self.convolutions = nn.Sequential(*layers[:-1])
        init_small(self)

    def decode(self, slots: Tensor) -> Tensor:
        # A valid convolution of a constant is a linear map of it, and the positions are the same
        # for every slot: the first layer costs next to nothing.
        first, _, *later = self.convolutions
        assert isinstance(first, nn.Conv2d)
        constant = F.linear(slots, first.weight.sum(dim=(2, 3)))
        x = broadcast_elu(constant, first(self.positions()))
        for layer in later:
            x = layer(x)
        return x


class BigDecoder(PositionedDecoder):
    """Four doublings of a grid of H/16, and two layers. Slot-VAE derives its decoder from it."""

    taps: Tensor

    def __init__(
        self,
        image_size: int,
        slot_size: int,
        channels: int = CHANNELS,
        activation: Callable[..., nn.Module] = nn.ReLU,
        small: bool = True,
    ) -> None:
        """`small`: as in `init_small`; False: PyTorch's own initial weights."""
        super().__init__(image_size // UPSAMPLING, slot_size)
        layers: list[nn.Module] = []
        for inputs in (slot_size, channels, channels, channels):
            layers += [doubling(inputs, channels), activation(inplace=True)]
        layers += [ConvTranspose2d(channels, channels, 5, padding=2), activation(inplace=True)]
        self.convolutions = nn.Sequential(*layers, ConvTranspose2d(channels, OUTPUTS, 3, padding=1))
        self.register_buffer("taps", doubling_taps(self.grid), persistent=False)
        if small:
            init_small(self)

    def decode(self, slots: Tensor) -> Tensor:
        first = self.convolutions[0]
        assert isinstance(first, ConvTranspose2d)
        x = double_broadcast(slots, first.weight, self.taps, first(self.positions()))
        return self.convolutions[1:](x)


DECODERS: dict[str, type[IodineDecoder] | type[BigDecoder]] = {
    "iodine": IodineDecoder,
    "big": BigDecoder,
}
