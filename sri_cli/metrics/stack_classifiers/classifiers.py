"""The two shipped networks: features of stack-FD, and the estimate of S-Acc.

Both were trained on simulated images alone: `factors` predicts height, shapes, colours and
stability of a stack; `touching` predicts whether all blocks of a stack touch. The S-Acc estimate is
the share of images in which they do, corrected for the network's errors, which were counted on
other simulated images. It estimates what people would answer, and is never called S-Acc itself.

Axis legend: N images, B of a batch, S image side in pixels, F features, P positions in a stack.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

from sri_cli.errors import SriFailure
from sri_cli.metrics.features import Advance, Features, Images, in_batches

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
BATCH = 256
LEVEL = 0.95
DRAWS = 20_000
COARSE = 32  # pixels; images of this size or smaller have error rates of their own


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
        return self.project(pooled.float())

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


class StackFeatures:
    """A `FeatureExtractor`: images uint8 [N,S,S,3] -> float32 [N,128]."""

    name = "stack"
    size = NUM_FEATURES

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.network = open_shipped("factors", self.device)
        self.digest = SHIPPED["factors"]

    def __call__(self, images: Images, advance: Advance = lambda done: None) -> Features:
        return in_batches(self.network.features, images, BATCH, self.device, advance)

    def shapes(self, features: Features) -> NDArray[np.float32]:
        """Probabilities [N,P,3] of box, cylinder and ball by position from the bottom, 0 above the
        stack.

        The height is the network's, too; standing and lying cylinders are one shape.
        """
        with torch.inference_mode():
            hidden = F.relu(torch.from_numpy(features).to(self.device))
            logits = self.network.heads["shapes"](hidden).unflatten(1, (POSITIONS, SHAPES + 1))
            box, standing, lying, ball = logits[..., :SHAPES].softmax(-1).unbind(-1)
            top = self.network.heads["height"](hidden).argmax(1, keepdim=True)
            is_block = torch.arange(POSITIONS, device=self.device) <= top
            shapes = torch.stack([box, standing + lying, ball], -1) * is_block[..., None]
            return shapes.cpu().numpy()


class Rates(NamedTuple):
    """Counts of the answer "plausible": `right` of `plausible` images, `wrong` of `flawed` ones."""

    right: int
    plausible: int
    wrong: int
    flawed: int


class Judge:
    """The network that finds flaws in stacks, and its error rates by `kind_of` the images."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.network = open_shipped("touching", self.device)
        self.digest = SHIPPED["touching"]
        facts = json.loads(resources.files(PACKAGE).joinpath("touching.json").read_text("utf-8"))
        self.rates = {name: Rates(**counts) for name, counts in facts["rates"].items()}

    def plausible(
        self, images: Images, advance: Advance = lambda done: None
    ) -> NDArray[np.float32]:
        """Probability [N] that all blocks of the stack touch."""

        def probability(some: Tensor) -> Tensor:
            return self.network(some)["plausible"].float().softmax(1)[:, 1]

        return in_batches(probability, images, BATCH, self.device, advance)


def kind_of(demo: bool, side: int) -> str:
    """Key of the error rates for images of a look and a size."""
    return f"{'demo' if demo else 'original'}-{COARSE if side <= COARSE else SIDE}"


def corrected_share(accepted: int, count: int, rates: Rates) -> tuple[float, float, float]:
    """The true share behind `accepted` of `count` verdicts, and its 95 % interval.

    Rogan and Gladen (1978): accepted/count = p * sensitivity + (1 - p) * false alarms. The interval
    is that of p with all three rates drawn from their Jeffreys posteriors, so it widens with few
    images and with few images that the rates were counted on.
    """
    random = np.random.default_rng(0)  # the interval is a function of the counts
    counts = ((accepted, count), (rates.right, rates.plausible), (rates.wrong, rates.flawed))

    def share(accepted: Any, sensitivity: Any, alarms: Any) -> NDArray[np.float64]:
        return np.clip((accepted - alarms) / np.maximum(sensitivity - alarms, 1e-3), 0.0, 1.0)

    value = float(share(*(hits / of for hits, of in counts)))
    drawn = share(*(random.beta(hits + 0.5, of - hits + 0.5, DRAWS) for hits, of in counts))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return value, float(min(low, value)), float(max(high, value))
