"""The random numbers of a training step, as a function of (seed, step, global batch position)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from sri_cli.device import to_device
from sri_cli.models.base import NoiseSpec

# Positions of the global batch that share a stream: a rank draws the blocks that it has rows of,
# and not the noise of thousands of images for its own thirty-two.
BLOCK = 32


def draw_noise(
    specs: Mapping[str, NoiseSpec],
    batch: int,
    seed: int,
    step: int,
    device: torch.device | str = "cpu",
    rows: slice | None = None,
) -> dict[str, Tensor]:
    """One tensor [rows, *shape] per name, the same on every device and after every resume.

    `batch` is the global batch and `rows` what is wanted of it (all of it, if left out): an
    image's noise does not depend on who draws it. Each name has a stream of its own, so that one
    more draw in a model leaves the others as they were.
    """
    wanted = slice(0, batch) if rows is None else rows
    return {
        name: to_device(_rows(spec, batch, wanted, f"{seed}/{step}/{name}"), device)
        for name, spec in specs.items()
    }


def retry_seed(seed: int, attempt: int) -> int:
    """The noise seed after `attempt` roll-backs: the same batches meet other noise."""
    return seed if attempt == 0 else _stream(f"{seed}/{attempt}/retry")


def _rows(spec: NoiseSpec, batch: int, wanted: slice, name: str) -> Tensor:
    first, last = wanted.start // BLOCK, (wanted.stop - 1) // BLOCK
    blocks = [
        # The first block's stream bears the bare name.
        _draw(spec, min(BLOCK, batch - block * BLOCK), f"{name}/{block}" if block else name)
        for block in range(first, last + 1)
    ]
    drawn = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
    return drawn[wanted.start - first * BLOCK : wanted.stop - first * BLOCK]


def _draw(spec: NoiseSpec, rows: int, name: str) -> Tensor:
    # Always drawn on the CPU: every device then sees the same numbers.
    generator = torch.Generator().manual_seed(_stream(name))
    draw = torch.rand if spec.kind == "uniform" else torch.randn
    return draw((rows, *spec.shape), generator=generator)


def _stream(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
