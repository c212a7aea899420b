"""Random streams: every generator is a function of a seed and names, never of process state.

Two families, one per library, so that the same seed gives the same numbers as it always did:
`stream` (NumPy) for data, sampling and evaluation; `torch_stream` for the steps of a training.
Both draw on the CPU, so that every device sees the same numbers.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Positions of the global batch that share a stream: a rank draws the blocks that it has rows of,
# and not the noise of thousands of images for its own thirty-two.
BLOCK = 32


class NoiseSpec(NamedTuple):
    """One random draw that a model takes per image: its shape without the batch axis."""

    shape: tuple[int, ...]
    kind: Literal["normal", "uniform"] = "normal"


def stream(seed: int, *names: int | str) -> np.random.Generator:
    """The generator of (seed, *names), as in `stream(seed, index, "sample/scene")`."""
    words = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.default_rng((seed, *words))


def torch_stream(seed: int, *names: int | str) -> torch.Generator:
    """The CPU generator of (seed, *names), as in `torch_stream(seed, step, "posterior")`."""
    import torch

    return torch.Generator().manual_seed(_hash(seed, *names))


def retry_seed(seed: int, attempt: int) -> int:
    """The noise seed after `attempt` roll-backs: the same batches meet other noise."""
    return seed if attempt == 0 else _hash(seed, attempt, "retry")


def draw_noise(
    specs: Mapping[str, NoiseSpec], batch: int, seed: int, step: int, rows: slice | None = None
) -> dict[str, Tensor]:
    """Noise of a training step: one tensor [rows, *shape] per name, on the CPU.

    Each name has a stream of its own, so that one more draw in a model leaves the others as they
    were.

    Args:
        specs: What the model takes, by name.
        batch: Size of the global batch.
        seed: Seed of the training, or of its `retry_seed`.
        step: Number of the training step, from 0.
        rows: The part of the global batch to draw, default all of it. The noise of an image does
            not depend on which rank draws it.
    """
    rows = slice(0, batch) if rows is None else rows
    return {
        name: _batch_rows(spec, batch, rows, (seed, step, name)) for name, spec in specs.items()
    }


def indexed_noise(
    specs: Mapping[str, NoiseSpec], seed: int, indices: Sequence[int], purpose: str
) -> dict[str, Tensor]:
    """Noise of single images: one tensor [B, *shape] per name, on the CPU.

    Row i is a function of (seed, indices[i], purpose, name) alone.
    """
    import torch

    return {
        name: torch.from_numpy(
            np.stack([_draw(spec, stream(seed, i, f"{purpose}/{name}")) for i in indices])
        )
        for name, spec in specs.items()
    }


def _draw(spec: NoiseSpec, generator: np.random.Generator) -> np.ndarray:
    draw = generator.random if spec.kind == "uniform" else generator.standard_normal
    return draw(spec.shape, dtype=np.float32)


def _batch_rows(spec: NoiseSpec, batch: int, rows: slice, names: tuple[int, int, str]) -> Tensor:
    """Rows of the global batch, block by block."""
    import torch

    draw = torch.rand if spec.kind == "uniform" else torch.randn
    first, last = rows.start // BLOCK, (rows.stop - 1) // BLOCK
    blocks = []
    for block in range(first, last + 1):
        # The stream of block 0 carries no block number.
        generator = torch_stream(*names, block) if block else torch_stream(*names)
        count = min(BLOCK, batch - block * BLOCK)
        blocks.append(draw((count, *spec.shape), generator=generator))
    drawn = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
    return drawn[rows.start - first * BLOCK : rows.stop - first * BLOCK]


def _hash(seed: int, *names: int | str) -> int:
    """A seed of 63 bits from "seed/name/name"."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
