"""The random numbers of a training step, as a function of (seed, step, global batch position)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from sri_cli.model.output import NoiseSpec


def draw_noise(
    specs: Mapping[str, NoiseSpec],
    batch: int,
    seed: int,
    step: int,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """One tensor [batch, *shape] per name, the same on every device and after every resume.

    `batch` is the global batch: a rank keeps its own rows. Each name has a stream of its own, so
    that one more draw in a model leaves the others as they were.
    """
    return {
        name: _draw(spec, batch, _stream(seed, step, name)).to(device, non_blocking=True)
        for name, spec in specs.items()
    }


def retry_seed(seed: int, attempt: int) -> int:
    """The noise seed after `attempt` roll-backs: the same batches meet other noise."""
    return seed if attempt == 0 else _stream(seed, attempt, "retry")


def _draw(spec: NoiseSpec, batch: int, stream: int) -> Tensor:
    # Always drawn on the CPU: every device then sees the same numbers.
    generator = torch.Generator().manual_seed(stream)
    draw = torch.rand if spec.kind == "uniform" else torch.randn
    return draw((batch, *spec.shape), generator=generator)


def _stream(seed: int, step: int, name: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
