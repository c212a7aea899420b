"""Inception-v3's 2048 pool features of pictures, as pytorch-fid computes them.

Axis legend: N images, B images of a batch, H W pixels. Pictures are uint8 [N,H,W,3].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_fid import inception as port
from torch import Tensor, nn
from torchvision.models.inception import Inception3

from sri_cli.metrics import inception_weights
from sri_cli.metrics.extractor import PAPERS, RANDOM, Advance, Features, Pictures, in_batches

SIZE = 2048
CPU_BATCH, GPU_BATCH = 16, 128  # images at once
# The variance of a filter's output over that of its input's, undone: E[x^2] = 1 leaves a ReLU
# with variance (1 - 1/pi)/2, and filters of mean 0 see no more than the variance.
GAIN = 2 / (1 - 1 / np.pi)


class Inception:
    """The network on a device, in evaluation mode and true float32."""

    size = SIZE

    def __init__(
        self,
        name: str,
        digest: str,
        weights: Mapping[str, Tensor],
        device: torch.device | None = None,
        batch: int | None = None,
    ) -> None:
        self.name, self.digest = name, digest
        self.device = device or torch.device("cpu")
        self.batch = batch or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        network = PoolFeatures(weights).eval().to(self.device)
        self.network = network.to(memory_format=torch.channels_last)

    def __call__(self, images: Pictures, advance: Advance = lambda done: None) -> Features:
        """uint8 [N,H,W,3] -> float32 [N,2048]; batches shrink to fit memory.

        Raises SriFailure when even a single image does not fit.
        """

        def compute(some: Pictures) -> Features:
            pixels = torch.from_numpy(np.array(some)).to(self.device)
            pool = self.network(pixels.permute(0, 3, 1, 2).float() / 255)[0]
            features: Features = pool[:, :, 0, 0].cpu().numpy()
            return features

        with full_float32():
            return in_batches(compute, images, self.batch, self.device, advance, (self.size,))


class PoolFeatures(port.InceptionV3):
    """pytorch-fid's network up to the last pooling: [B,3,H,W] in [0,1] -> [[B,2048,1,1]].

    Its `forward`, the resize to 299 and the scale to [-1,1] are inherited; its constructor is not:
    that one fetches the weights itself, unpickles them with no hash compared, and takes no others.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        nn.Module.__init__(self)
        self.resize_input = self.normalize_input = True
        self.output_blocks, self.last_needed_block = [0], 0
        whole = fid_inception()
        whole.load_state_dict(weights, assign=True)
        self.blocks = nn.ModuleList([nn.Sequential(*_layers(whole))])
        self.requires_grad_(False)


def fid_inception() -> Inception3:
    """`pytorch_fid.inception.fid_inception_v3` less its download; no weights, no memory yet."""
    with torch.device("meta"):
        whole = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        whole.Mixed_5b = port.FIDInceptionA(192, pool_features=32)
        whole.Mixed_5c = port.FIDInceptionA(256, pool_features=64)
        whole.Mixed_5d = port.FIDInceptionA(288, pool_features=64)
        whole.Mixed_6b = port.FIDInceptionC(768, channels_7x7=128)
        whole.Mixed_6c = port.FIDInceptionC(768, channels_7x7=160)
        whole.Mixed_6d = port.FIDInceptionC(768, channels_7x7=160)
        whole.Mixed_6e = port.FIDInceptionC(768, channels_7x7=192)
        whole.Mixed_7b = port.FIDInceptionE_1(1280)
        whole.Mixed_7c = port.FIDInceptionE_2(2048)
    return whole


def _layers(whole: Inception3) -> list[nn.Module]:
    """All up to the pool features, in the order of the forward pass."""
    modules = dict(whole.named_children())
    return [module for name, module in modules.items() if name not in ("dropout", "fc")]


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions, which PyTorch allows by itself: features keep 24 bits, not 11."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def open_inception(
    path: Path | None = None, offline: bool = False, device: torch.device | None = None
) -> Inception:
    """The papers' features. Raises what `find_weights` and `read_weights` raise."""
    weights = inception_weights.read_weights(inception_weights.find_weights(path, offline))
    return Inception(PAPERS, str(inception_weights.REMOTE.sha256), weights, device)


def random_inception(device: torch.device | None = None, seed: int = 0) -> Inception:
    """The same network with random weights, a function of the seed: the whole path, offline.

    Distances of its features are comparable among themselves, never with any FID.
    """
    weights = random_weights(seed)
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return Inception(RANDOM, digest.hexdigest(), weights, device)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of `fid_inception`: normal filters of mean 0 that keep the variance.

    With a mean, filters would pass on what all images have in common, the mean of a ReLU's output,
    and layer by layer less would be left of what they differ in.
    """
    random = np.random.default_rng(seed)
    weights = {}
    for name, wanted in fid_inception().state_dict().items():
        shape = tuple(wanted.shape)
        if len(shape) > 1:
            filters = random.standard_normal(shape, dtype=np.float32)
            inner = tuple(range(1, len(shape)))
            filters -= filters.mean(axis=inner, keepdims=True)
            value = filters * np.float32(np.sqrt(GAIN / np.prod(shape[1:])))
        else:
            value = np.full(shape, name.endswith(("bn.weight", "running_var")), np.float32)
        weights[name] = torch.from_numpy(value).to(wanted.dtype)
    return weights
