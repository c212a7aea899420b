"""The network behind stack-FD and the S-Acc estimate, and its two shipped sets of weights.

Both were trained on simulated images alone: `factors` predicts height, shapes, colours and
stability of a stack; `touching` predicts whether all blocks of a stack touch.

Axis legend: B images of a batch, S image side in pixels, F features, P positions in a stack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from sri_cli.errors import SriFailure

PACKAGE = "sri_cli.metrics.stack_classifiers"
SIDE = 64  # pixels; images of other sizes are resized
NUM_FEATURES = 128
CHANNELS = (16, 32, 64, 128)
POSITIONS, SHAPES, COLOURS = 6, 4, 6
# Outputs of the two networks: name -> number of logits.
HEADS = {
    "factors": {
        "height": POSITIONS,  # 1..6 blocks
        "shapes": POSITIONS * (SHAPES + 1),  # by position from the bottom; the last: no block
        "colours": POSITIONS * (COLOURS + 1),
        "stable": 2,
    },
    # `flaw`: none, one of the four in data/simulate/flaws.py, or no recognisable stack.
    "touching": {"plausible": 2, "flaw": 6},
}
# SHA-256 of the shipped files. Measurements record them; other weights are rejected.
SHIPPED = {
    "factors": "6caa30e491f3738b21cdb43c79a1e5813c17b496c01d00abee37f78911176543",
    "touching": "c34273327a6b79fab0f60571f0d9570a30120d78303edac2ed03c9078ae3226d",
}


class StackNet(nn.Module):
    """Images [B,3,S,S] in [0,1] -> features [B,F] and logits by name."""

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
        """[B,F]. Mean and maximum are both pooled: a single gap is a flaw."""
        hidden = self.body((resize(images) - 0.5).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([hidden.mean((2, 3)), hidden.amax((2, 3))], dim=1)
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
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def resize(images: Tensor) -> Tensor:
    """[B,3,S,S] -> [B,3,64,64]; larger images are averaged, smaller ones interpolated."""
    if images.shape[-1] == SIDE and images.shape[-2] == SIDE:
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def open_shipped(which: str, device: torch.device | str = "cpu") -> StackNet:
    """The network with its shipped weights, in evaluation mode.

    Raises:
        SriFailure: if the installed file is damaged.
    """
    name = f"{which}.safetensors"
    data = resources.files(PACKAGE).joinpath(name).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHIPPED[which]:
        raise SriFailure(f"the shipped weights {name} are damaged", "install sri again")
    network = StackNet(HEADS[which])
    network.load_state_dict({name: value.float() for name, value in load(data).items()})
    return network.eval().to(device).to(memory_format=torch.channels_last)


def to_bytes(network: StackNet) -> bytes:
    """A safetensors file of the weights in half precision."""
    return save({name: value.half().contiguous() for name, value in network.state_dict().items()})
