"""EfficientMORL's way of reading an image: plain convolutions and a code of the position.

Axis legend: B batch, F feature channels, H W pixels (square images).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.layers import init_small

FEATURES = 64
CONVOLUTIONS = 4
EDGES = 4


def position_code(side: int) -> Tensor:
    """[side*side, 4]: distances to the right, left, top and bottom edge, each in [0, 1].

    Width-major: at row i and column j of the pixels stands the code of w = i, h = j, as the
    published models lay it.
    """
    near = torch.linspace(0, 1, side)
    w, h = torch.meshgrid(near, near, indexing="ij")
    return torch.stack([1 - w, w, h, 1 - h], dim=-1).flatten(0, 1)


class ConvEncoder(nn.Module):
    """Images [B,3,H,W] in [0,1] to features [B,H*W,F], row by row."""

    code: Tensor

    def __init__(self, image_size: int, features: int = FEATURES) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(CONVOLUTIONS):
            inputs = 3 if number == 0 else features
            layers += [nn.Conv2d(inputs, features, 5, padding=2), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.position = nn.Linear(EDGES, features)
        self.head = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, features),
            nn.ReLU(),
            nn.Linear(features, features),
        )
        self.register_buffer("code", position_code(image_size), persistent=False)
        for part in (self.convolutions, self.head):
            init_small(part)

    def forward(self, images: Tensor) -> Tensor:
        centred = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        pixels = self.convolutions(centred).flatten(2).transpose(1, 2)
        return self.head(pixels + self.position(self.code))
