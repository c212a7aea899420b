"""Slots to images: the broadcast decoder of GENESIS-v2 and SRI, and the two of EMORL.

Axis legend: B batch, K slots, N = B*K, D slot size, H W pixels. All slots of all images are
decoded as one batch; every decoder takes slots [B,K,D], any K, and returns a `Scene`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sri_cli.models.base import Scene
from sri_cli.models.kernels import ConvTranspose2d, GroupNormRelu
from sri_cli.models.layers import EDGES, coordinate_grid, init_small, position_code

UPSAMPLING = 16  # four transposed convolutions of stride 2
DECODED_AT_ONCE = 512  # slots; half a GB of activations a layer at 64 px
CHANNELS = 64  # of EMORL's decoders
OUTPUTS = 4  # red, green, blue, mask logit
MARGIN_PX = 10  # taken away again by five valid 3x3 convolutions


def in_parts(decode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """decode(x) for x [N,...]; without gradients in parts, to bound memory."""
    if torch.is_grad_enabled():
        return decode(x)
    return torch.cat([decode(part) for part in x.split(DECODED_AT_ONCE)])


def grid_side(image_size: int) -> int:
    """H/16; ValueError for an `image_size` that 16 does not divide."""
    if image_size % UPSAMPLING:
        raise ValueError(f"image size {image_size} is not a multiple of {UPSAMPLING}")
    return image_size // UPSAMPLING


class SlotDecoder(nn.Module):
    """Decodes slots one by one and blends them: masks are a softmax over slots."""

    def decode(self, slots: Tensor) -> Tensor:
        """[N,D] to colours and mask logits [N,4,H,W], before any squashing."""
        raise NotImplementedError

    def forward(self, slots: Tensor) -> Scene:
        decoded = in_parts(lambda part: self.decode(part).float(), slots.flatten(0, 1))
        rgb, logits = decoded.unflatten(0, slots.shape[:2]).split([3, 1], dim=2)
        return Scene(rgb.sigmoid(), logits.log_softmax(dim=1))


class BroadcastDecoder(SlotDecoder):
    """GENESIS-v2's and SRI's decoder: [slot ; row ; column] on a grid of H/16, four doublings."""

    grid: Tensor

    def __init__(self, image_size: int, slot_size: int, channels: int) -> None:
        """Raises ValueError for an `image_size` that 16 does not divide."""
        super().__init__()
        side = grid_side(image_size)
        layers: list[nn.Module] = []
        for inputs in (slot_size + 2, channels, channels, channels):
            layers += [
                ConvTranspose2d(inputs, channels, 5, stride=2, padding=2, output_padding=1),
                GroupNormRelu(8, channels),
                nn.Identity(),  # checkpoints count the ReLU as a layer
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, OUTPUTS, 1))
        self.register_buffer("grid", coordinate_grid(side), persistent=False)

    def decode(self, slots: Tensor) -> Tensor:
        grid = self.grid.expand(len(slots), -1, -1, -1)
        broadcast = slots[:, :, None, None].expand(-1, -1, *grid.shape[2:])
        x = torch.cat([broadcast, grid], dim=1)
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class PositionedDecoder(SlotDecoder):
    """EMORL's decoders: the slot at every pixel of a grid, plus a projection of its position."""

    code: Tensor

    def __init__(self, grid: int, slot_size: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.grid = grid
        self.position = nn.Linear(EDGES, slot_size)
        self.convolutions = nn.Sequential(*layers)
        self.register_buffer("code", position_code(grid), persistent=False)
        init_small(self)

    def positions(self) -> Tensor:
        """The projected position code, [1,D,grid,grid]."""
        return self.position(self.code).T.unflatten(1, (self.grid, self.grid))[None]

    def decode(self, slots: Tensor) -> Tensor:
        x = slots[:, :, None, None] + self.positions()
        return self.convolutions(x.contiguous(memory_format=torch.channels_last))


class IodineDecoder(PositionedDecoder):
    """Five valid 3x3 convolutions over a grid of H+10; images of any size."""

    def __init__(self, image_size: int, slot_size: int, channels: int = CHANNELS) -> None:
        widths = [slot_size, channels, channels, channels, channels, OUTPUTS]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            # In place, or every activation would be stored twice for the gradient.
            layers += [nn.Conv2d(inputs, outputs, 3), nn.ELU(inplace=True)]
        super().__init__(image_size + MARGIN_PX, slot_size, layers[:-1])

    def decode(self, slots: Tensor) -> Tensor:
        # A valid convolution of a constant is a linear map of it, and the positions are the same
        # for every slot: the first layer costs next to nothing.
        first, *later = self.convolutions
        assert isinstance(first, nn.Conv2d)
        constant = nn.functional.linear(slots, first.weight.sum(dim=(2, 3)))
        x = constant[:, :, None, None] + first(self.positions())
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in later:
            x = layer(x)
        return x


class BigDecoder(PositionedDecoder):
    """Four doublings of a grid of H/16."""

    def __init__(self, image_size: int, slot_size: int, channels: int = CHANNELS) -> None:
        """Raises ValueError for an `image_size` that 16 does not divide."""
        layers: list[nn.Module] = []
        for inputs in (slot_size, channels, channels, channels):
            doubling = ConvTranspose2d(inputs, channels, 5, 2, padding=2, output_padding=1)
            layers += [doubling, nn.ReLU()]
        layers += [ConvTranspose2d(channels, channels, 5, padding=2), nn.ReLU()]
        layers += [ConvTranspose2d(channels, OUTPUTS, 3, padding=1)]
        super().__init__(grid_side(image_size), slot_size, layers)


DECODERS: dict[str, type[IodineDecoder] | type[BigDecoder]] = {
    "iodine": IodineDecoder,
    "big": BigDecoder,
}
