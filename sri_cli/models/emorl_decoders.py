"""EfficientMORL's decoders, also of what is built on it.

Axis legend: B batch, K slots, N = B*K, D slot size, F channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.base import Scene
from sri_cli.models.convolution import EDGES, position_code
from sri_cli.models.decoders import UPSAMPLING, in_parts
from sri_cli.models.layers import init_small

CHANNELS = 64
OUTPUTS = 4  # red, green, blue, mask logit
MARGIN_PX = 10  # five valid 3x3 convolutions take it away again


class PositionedDecoder(nn.Module):
    """A slot at every place of a grid plus a projection of the place, then convolutions.

    Slots [B,K,D] to a `Scene`; any K.
    """

    code: Tensor

    def __init__(self, grid: int, slot_size: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.grid = grid
        self.position = nn.Linear(EDGES, slot_size)
        self.convolutions = nn.Sequential(*layers)
        self.register_buffer("code", position_code(grid), persistent=False)
        init_small(self)

    def places(self) -> Tensor:
        """The projected position code, [1,D,grid,grid]."""
        return self.position(self.code).T.unflatten(1, (self.grid, self.grid))[None]

    def decode(self, slots: Tensor) -> Tensor:
        """[N,D] to [N,4,H,W]: colours and mask logit, before any squashing."""
        x = slots[:, :, None, None] + self.places()
        return self.convolutions(x.contiguous(memory_format=torch.channels_last))

    def forward(self, slots: Tensor) -> Scene:
        decoded = in_parts(lambda part: self.decode(part).float(), slots.flatten(0, 1))
        decoded = decoded.unflatten(0, slots.shape[:2])
        rgb, logits = decoded.split([3, 1], dim=2)
        return Scene(rgb.sigmoid(), logits.log_softmax(dim=1))


class IodineDecoder(PositionedDecoder):
    """Five valid 3x3 convolutions over a grid of H+10; images of any size."""

    def __init__(self, image_size: int, slot_size: int, channels: int = CHANNELS) -> None:
        widths = [slot_size, channels, channels, channels, channels, OUTPUTS]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            # In place, or every activation would be kept twice for the gradient.
            layers += [nn.Conv2d(inputs, outputs, 3), nn.ELU(inplace=True)]
        super().__init__(image_size + MARGIN_PX, slot_size, layers[:-1])

    def decode(self, slots: Tensor) -> Tensor:
        # A valid convolution of a constant is a linear map of it, and the places are the same for
        # every slot: the first layer costs next to nothing.
        first, *later = self.convolutions
        assert isinstance(first, nn.Conv2d)
        constant = nn.functional.linear(slots, first.weight.sum(dim=(2, 3)))
        x = constant[:, :, None, None] + first(self.places())
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in later:
            x = layer(x)
        return x


class BigDecoder(PositionedDecoder):
    """Four doublings of a grid of H/16."""

    def __init__(self, image_size: int, slot_size: int, channels: int = CHANNELS) -> None:
        """Raises ValueError for an `image_size` that 16 does not divide."""
        if image_size % UPSAMPLING:
            raise ValueError(f"image size {image_size} is not a multiple of {UPSAMPLING}")
        layers: list[nn.Module] = []
        for inputs in (slot_size, channels, channels, channels):
            doubling = nn.ConvTranspose2d(inputs, channels, 5, 2, padding=2, output_padding=1)
            layers += [doubling, nn.ReLU()]
        layers += [nn.ConvTranspose2d(channels, channels, 5, padding=2), nn.ReLU()]
        layers += [nn.ConvTranspose2d(channels, OUTPUTS, 3, padding=1)]
        super().__init__(image_size // UPSAMPLING, slot_size, layers)


DECODERS: dict[str, type[IodineDecoder] | type[BigDecoder]] = {
    "iodine": IodineDecoder,
    "big": BigDecoder,
}
