"""Slots to pixels.

Axis legend: B batch, K slots, D slot size, H W pixels. All slots of all images are one batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sri_cli.models.base import Scene
from sri_cli.models.layers import coordinate_grid
from sri_cli.models.norm import GroupNorm

UPSAMPLING = 16  # four transposed convolutions of stride 2
DECODED_AT_ONCE = 512  # slots; half a GB of activations a layer at 64 px


def in_parts(decode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """decode(x) for x [N,...]; without gradients in parts, to bound memory."""
    if torch.is_grad_enabled():
        return decode(x)
    return torch.cat([decode(part) for part in x.split(DECODED_AT_ONCE)])


class BroadcastDecoder(nn.Module):
    """GENESIS-v2's and SRI's decoder: a broadcast grid of H/16, then four doublings.

    Slots [B,K,D] to a `Scene`; any K.
    """

    grid: Tensor

    def __init__(self, image_size: int, slot_size: int, channels: int) -> None:
        """Raises ValueError for an `image_size` that 16 does not divide."""
        super().__init__()
        if image_size % UPSAMPLING:
            raise ValueError(f"image size {image_size} is not a multiple of {UPSAMPLING}")
        layers: list[nn.Module] = []
        for inputs in (slot_size + 2, channels, channels, channels):
            layers += [
                nn.ConvTranspose2d(inputs, channels, 5, stride=2, padding=2, output_padding=1),
                GroupNorm(8, channels),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 4, 1))
        self.register_buffer("grid", coordinate_grid(image_size // UPSAMPLING), persistent=False)

    def forward(self, slots: Tensor) -> Scene:
        b, k, d = slots.shape
        rows, columns = self.grid.shape[1:]
        broadcast = slots.reshape(b * k, d, 1, 1).expand(-1, -1, rows, columns)
        grid = self.grid.expand(b * k, -1, -1, -1)
        x = torch.cat([broadcast, grid], dim=1).contiguous(memory_format=torch.channels_last)
        decoded = in_parts(lambda part: self.layers(part).float(), x)
        decoded = decoded.reshape(b, k, *decoded.shape[1:])
        rgb = decoded[:, :, :3].sigmoid()
        return Scene(rgb, decoded[:, :, 3:].log_softmax(dim=1))
