"""The small network that looks at pictures of stacks: features for stack-FD, verdicts for S-Acc.

Two sets of weights are shipped, both learned from simulated pictures alone: `factors`, which names
height, shapes, colours and stability, and `touching`, which says whether all blocks touch.

Axis legend: B pictures of a batch, S side of a picture in pixels, F features, P places of a stack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from sri_cli.errors import SriFailure

SIDE = 64  # pixels; pictures of other sizes are resized
NUM_FEATURES = 128
CHANNELS = (16, 32, 64, 128)
# Outputs of the two networks: name -> number of logits.
PLACES, SHAPES, COLOURS = 6, 4, 6
FACTORS = {
    "height": PLACES,  # 1..6 blocks
    "shapes": PLACES * (SHAPES + 1),  # by place from the bottom; the last one: no block
    "colours": PLACES * (COLOURS + 1),
    "stable": 2,
}
# The verdict, and why: nothing, one of simulate/flaws.py's four, or mush.
TOUCHING = {"plausible": 2, "flaw": 6}
HEADS = {"factors": FACTORS, "touching": TOUCHING}
# SHA-256 of the shipped files: measurements name them, and other weights are refused.
SHIPPED = {
    "factors": "6caa30e491f3738b21cdb43c79a1e5813c17b496c01d00abee37f78911176543",
    "touching": "c34273327a6b79fab0f60571f0d9570a30120d78303edac2ed03c9078ae3226d",
}


class StackNet(nn.Module):
    """Pictures [B,3,S,S] in [0,1] -> features [B,128] and logits by name."""

    def __init__(self, heads: Mapping[str, int]) -> None:
        super().__init__()
        first, *rest = CHANNELS
        layers: list[nn.Module] = [conv(3, first, 1)]
        for before, after in zip(CHANNELS, rest, strict=False):
            layers += [conv(before, after, 2), Residual(after)]
        self.body = nn.Sequential(*layers)
        self.project = nn.Linear(2 * CHANNELS[-1], NUM_FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(NUM_FEATURES, n) for name, n in heads.items()})

    def features(self, images: Tensor) -> Tensor:
        """[B,F]. The strongest answer of a place counts beside the mean: one gap is a flaw."""
        seen = self.body((to_side(images) - 0.5).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        projected: Tensor = self.project(pooled.float())
        return projected

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = F.relu(self.features(images))
        return {name: head(hidden) for name, head in self.heads.items()}


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(conv(channels, channels, 1), conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def conv(before: int, after: int, stride: int) -> nn.Module:
    """3x3 convolution, normalised, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def to_side(images: Tensor) -> Tensor:
    """[B,3,S,S] -> [B,3,64,64]; larger pictures are averaged, smaller ones interpolated."""
    if images.shape[-1] == SIDE and images.shape[-2] == SIDE:
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def open_shipped(which: str, device: torch.device | str = "cpu") -> StackNet:
    """The network with the shipped weights, to evaluate; SriFailure if they are not whole."""
    name = f"{which}.safetensors"
    data = resources.files("sri_cli.metrics.stack_classifiers").joinpath(name).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHIPPED[which]:
        raise SriFailure(f"the shipped weights {name} are damaged", "install sri again")
    return from_bytes(which, data, device)


def from_bytes(which: str, data: bytes, device: torch.device | str = "cpu") -> StackNet:
    """The network with the weights of a safetensors file, in evaluation mode."""
    network = StackNet(HEADS[which])
    network.load_state_dict({name: value.float() for name, value in load(data).items()})
    return network.eval().to(device).to(memory_format=torch.channels_last)
