"""Inception-v3's 2048 pool features as pytorch-fid computes them, and their weights.

Axis legend: N images, B images of a batch, S side in pixels. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_fid import inception as port
from torch import Tensor, nn
from torchvision.models.inception import Inception3

from sri_cli.data.download import Remote, download
from sri_cli.errors import SriError
from sri_cli.metrics.features import Advance, Features, Images, in_batches
from sri_cli.metrics.fid import PAPERS, PAPERS_FEATURES, RANDOM

FILE = "pt_inception-2015-12-05-6726825d.pth"
REMOTE = Remote(
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
VARIABLE = "SRI_INCEPTION_WEIGHTS"
CPU_BATCH, GPU_BATCH = 16, 128  # images at once
# Inverse of the variance that a ReLU leaves of normal inputs with E[x^2] = 1, (1 - 1/pi) / 2:
# filters of mean 0 respond to the variance alone.
GAIN = 2 / (1 - 1 / np.pi)


class Inception:
    """A `FeatureExtractor` on a device, in true float32."""

    size = PAPERS_FEATURES

    def __init__(
        self,
        name: str,
        digest: str,
        weights: Mapping[str, Tensor],
        device: torch.device | None = None,
    ) -> None:
        self.name, self.digest = name, digest
        self.device = device or torch.device("cpu")
        self.batch = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        network = fid_inception()
        network.load_state_dict(weights, assign=True)
        network.fc = nn.Identity()  # the pool features are what it gets
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)

    def __call__(self, images: Images, advance: Advance = lambda done: None) -> Features:
        """uint8 [N,S,S,3] -> float32 [N,2048]; SriFailure if a single image exceeds the memory."""
        return in_batches(self._pool, images, self.batch, self.device, advance)

    def _pool(self, images: Tensor) -> Tensor:
        """[B,3,S,S] in [0,1] -> [B,2048], resized and scaled to [-1,1] as by pytorch-fid."""
        scaled = F.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
        return self.network(2 * scaled - 1)


def fid_inception() -> Inception3:
    """`pytorch_fid.inception.fid_inception_v3` on the meta device, without its download, which is
    unpickled whatever its hash."""
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


def open_inception(
    path: Path | None = None, offline: bool = False, device: torch.device | None = None
) -> Inception:
    """The papers' features; raises what `find_weights` and `read_weights` raise."""
    weights = read_weights(find_weights(path, offline))
    return Inception(PAPERS, str(REMOTE.sha256), weights, device)


def find_weights(path: Path | None = None, offline: bool = False) -> Path:
    """`path`, else the file that SRI_INCEPTION_WEIGHTS names, else torch hub's copy, else download.

    Raises:
        SriError: for a named file that does not exist, or with `offline` if there is none.
        SriFailure: if the download fails.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if named is not None:
        if named.is_file():
            return named
        source = "" if path is not None else f"{VARIABLE}: "
        raise SriError(f"{source}no file {named} with Inception weights", _hint(cached))
    if cached.is_file():
        return cached
    if offline:
        raise SriError(f"--offline: there are no Inception weights at {cached}", _hint(cached))
    return download(REMOTE, cached, instead=_hint(cached))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in `path`; SriError unless the file has the known SHA-256."""
    try:
        data = path.read_bytes()  # the bytes that are hashed are the bytes that are loaded
    except OSError as error:
        raise SriError(f"cannot read {path}: {error.strerror}", _hint(path)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != REMOTE.sha256:
        raise SriError(
            f"{path} is damaged or has other weights: SHA-256 {digest}, not {REMOTE.sha256}",
            f"move it away, then {_hint(path)}",
        )
    return torch.load(io.BytesIO(data), "cpu", weights_only=True)


def _hint(path: Path) -> str:
    return f"download {REMOTE.url} to {path}; --features random needs no weights (and is no FID)"


def random_inception(device: torch.device | None = None) -> Inception:
    """The same network with random weights, always the same: the whole path, offline.

    Its distances are comparable among themselves, never with any FID.
    """
    weights = random_weights(seed=0)
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return Inception(RANDOM, digest.hexdigest(), weights, device)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A state dict of `fid_inception`: normal filters that keep the variance.

    Filters have mean 0. Others would pass on the mean of a ReLU's output, which all images share,
    and layer by layer less would be left of their differences.
    """
    random = np.random.default_rng(seed)
    weights = {}
    for name, like in fid_inception().state_dict().items():
        shape = tuple(like.shape)
        if len(shape) > 1:
            filters = random.standard_normal(shape, dtype=np.float32)
            filters -= filters.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            value = filters * np.float32(np.sqrt(GAIN / np.prod(shape[1:])))
        else:
            value = np.full(shape, name.endswith(("bn.weight", "running_var")), np.float32)
        weights[name] = torch.from_numpy(value).to(like.dtype)
    return weights
