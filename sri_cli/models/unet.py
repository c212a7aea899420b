"""The U-Net that GENESIS-v2 reads an image with.

Axis legend: B batch, c channels, H W pixels. One block per scale; the image is halved after every
down block but the last and doubled after every up block but the last.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sri_cli.models.layers import conv_norm_relu

MLP_WIDTH = 128

# Multiples of c that come out of the down and the up blocks, by the number of blocks.
DOWN = {4: (1, 2, 2, 2), 5: (1, 1, 2, 2, 2), 6: (1, 1, 1, 2, 2, 2)}
UP = {4: (2, 2, 1, 1), 5: (2, 2, 1, 1, 1), 6: (2, 2, 1, 1, 1, 1)}
UP_IN = {4: (4, 4, 4, 2), 5: (4, 4, 4, 2, 2), 6: (4, 4, 4, 2, 2, 2)}


def num_blocks(image_size: int) -> int:
    """floor(log2 H) - 1: 4 blocks at 32 pixels, 5 at 64 and 96, 6 at 128."""
    return int(math.log2(image_size)) - 1


class UNet(nn.Module):
    """Images [B,3,H,W] to features [B,c,H,W] of the same size."""

    def __init__(self, image_size: int, channels: int) -> None:
        """`channels` is c.

        Raises:
            ValueError: for a side that cannot be halved often enough.
        """
        super().__init__()
        blocks = num_blocks(image_size)
        if blocks not in DOWN or image_size % 2 ** (blocks - 1):
            raise ValueError(f"no U-Net for images of {image_size} pixels: use 32, 64, 96 or 128")
        c = channels
        down = [3, *(c * multiple for multiple in DOWN[blocks])]
        self.down = nn.ModuleList(conv_norm_relu(down[i], down[i + 1]) for i in range(blocks))
        self.up = nn.ModuleList(
            conv_norm_relu(c * UP_IN[blocks][i], c * UP[blocks][i]) for i in range(blocks)
        )
        self.bottom_size = image_size // 2 ** (blocks - 1)
        self.bottom_channels = down[-1]
        flat = self.bottom_channels * self.bottom_size**2
        self.mlp = nn.Sequential(
            nn.Linear(flat, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, flat),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        skips = []
        x = images
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else x[..., ::2, ::2])
            skips.append(x)
        bottom = (len(x), self.bottom_channels, self.bottom_size, self.bottom_size)
        x = self.mlp(x.reshape(len(x), -1)).reshape(bottom)
        for i, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], dim=1))
            if i < len(self.up) - 1:
                x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return x
