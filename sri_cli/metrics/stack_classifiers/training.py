"""Learning the two networks from simulated pictures.

A step depends on (seed, step) alone. The last weights are what counts; nothing is selected.
Axis legend: N pictures of the set, B of a batch, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from sri_cli.device import choose_precision, keep_freed_memory
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.stack_classifiers.model_like import coarse, mirrored, model_like, mush
from sri_cli.metrics.stack_classifiers.network import HEADS, StackNet

Targets = Mapping[str, NDArray[np.int64]]  # name of an output -> class per picture and place
IGNORED = -100  # a target that is not known
NO_STACK = 5  # the flaw of a picture that shows none
MUSH = 0.25  # share of a batch


@dataclass(frozen=True)
class Pictures:
    """images uint8 [N,S,S,3], masks uint8 [N,S,S], targets int64 [N] or [N,P] by name."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    targets: Targets


@dataclass(frozen=True)
class Settings:
    """How the networks were trained; the defaults made the shipped files."""

    steps: int
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 0


def train_stack_net(
    which: str,
    pictures: Pictures,
    settings: Settings,
    device: torch.device | str = "cpu",
    advance: Callable[[int, float], None] = lambda step, loss: None,
) -> StackNet:
    """`which` is `factors` or `touching`; `advance` is told the step and its loss now and then."""
    keep_freed_memory()
    torch.manual_seed(settings.seed)  # of the first weights
    network = StackNet(HEADS[which]).to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(
        network.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    device = torch.device(device)
    bf16 = choose_precision("auto", device) == "bf16"
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * _schedule(step, settings.steps)
        random = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        chosen = torch.randint(len(pictures.images), (settings.batch,), generator=random).numpy()
        images, targets = prepare(which, pictures, chosen, random)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs = network(images.to(device))
        loss = losses(outputs, targets).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 50 == 0 or step + 1 == settings.steps:
            advance(step + 1, float(loss.detach()))
    return network.eval()


def prepare(
    which: str, pictures: Pictures, chosen: NDArray[np.int64], random: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The chosen pictures [B,3,S,S] as the network is to see them, and what it is to say.

    Features must feel blur and noise, so `factors` sees clean pictures, half of the batches as 32
    pixels show them; `touching` must forgive what decoders do, and no mush.
    """
    images, masks = to_tensor(pictures.images[chosen]), torch.from_numpy(pictures.masks[chosen])
    targets = {name: torch.from_numpy(all_of[chosen]) for name, all_of in pictures.targets.items()}
    images, masks = mirrored(images, masks, random)
    if which == "factors":
        return coarse(images, 32) if torch.rand((), generator=random) < 0.5 else images, targets
    images = model_like(images, masks, random)
    shreds = torch.rand(len(images), generator=random) < MUSH
    images = torch.where(shreds[:, None, None, None], mush(images, masks, random), images)
    flaw = targets["flaw"].masked_fill(shreds, NO_STACK)
    return images, {"plausible": (flaw == 0).long(), "flaw": flaw}


def losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of each output [number of outputs]; unknown targets do not count."""
    found = []
    for name, logits in outputs.items():
        wanted = targets[name].to(logits.device)
        places = wanted.shape[1] if wanted.ndim == 2 else 1
        flat = logits.float().reshape(len(logits) * places, -1)
        total = F.cross_entropy(flat, wanted.reshape(-1), ignore_index=IGNORED, reduction="sum")
        found.append(total / (wanted != IGNORED).sum().clamp(min=1))
    return torch.stack(found)


def to_bytes(network: StackNet) -> bytes:
    """A safetensors file of the weights in half precision."""
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    return save(state)


def _schedule(step: int, steps: int) -> float:
    """A short rise, then half a cosine down to 0."""
    rise = min(200, steps // 10 + 1)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
