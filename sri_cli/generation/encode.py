"""Images to latents: the slots, scene latent and order that a model infers, and their decoding.

Axis legend: N images, K slots, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import (
    check_finite,
    chunk_size,
    device_of,
    evaluation_noise,
    in_chunks,
    is_finite,
    joined,
    to_tensor,
)
from sri_cli.models.base import SlotVAE

CHUNK = 8  # images at once, on a CPU


@dataclass(frozen=True)
class Encoding:
    """Images as a model infers them: float32 on the CPU, slots in the order of generation.

    Attributes:
        slots: One sample of the posterior [N,K,D], which `model.decode` takes.
        latent: The scene latent [N,S]; None for a model without a scene variable.
        order: The segregated slot at each position [N,K]; None where slots are not matched.
        image: The reconstruction [N,3,H,W] in [0,1].
        masks: Of the reconstruction [N,K,H,W], summing to 1 over K.
        rgb: What each slot shows [N,K,3,H,W] in [0,1]; Slot-VAE's may leave it, as may `image`.
        attention: The masks of the segregation [N,K,H,W].
        rollout: The slot prior's own scene from `latent` [N,3,H,W]; None for a model without one,
            and where it was not decoded.
    """

    slots: Tensor
    latent: Tensor | None
    order: Tensor | None
    image: Tensor
    masks: Tensor
    rgb: Tensor
    attention: Tensor
    rollout: Tensor | None


def encode_images(
    model: SlotVAE,
    images: NDArray[np.uint8] | Tensor,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    rollout: bool = False,
) -> Encoding:
    """Infer images uint8 [N,H,W,3], or a float tensor [N,3,H,W] in [0,1], of the model's size.

    The posterior sample of image i is a function of (seed, indices[i]), by default (seed, i).
    `rollout` also decodes a rollout, which takes about as long as the reconstruction.

    Raises:
        SriFailure: for reconstructions that are not finite.
    """
    device = device_of(model)
    numbers = np.arange(len(images)) if indices is None else np.asarray(indices, dtype=np.intp)

    def infer(start: int, count: int) -> Encoding:
        rows = slice(start, start + count)
        chosen = images[rows]
        inputs = chosen.to(device) if isinstance(chosen, Tensor) else to_tensor(chosen, device)
        made = model.reconstruct(inputs, evaluation_noise(model, seed, numbers[rows], device))
        assert made.slots is not None
        imagined = made.imagine() if rollout and made.imagine is not None else None
        return Encoding(
            slots=_on_cpu(made.slots),
            latent=None if made.latent is None else _on_cpu(made.latent),
            order=None if made.order is None else made.order.cpu(),
            image=_on_cpu(made.scene.image),
            masks=_on_cpu(made.scene.masks[:, :, 0]),
            rgb=_on_cpu(made.scene.rgb),
            attention=_on_cpu(made.attention[:, :, 0]),
            rollout=None if imagined is None else _on_cpu(imagined.image),
        )

    on_cpu = device.type == "cpu"
    size = CHUNK if on_cpu else chunk_size(model.num_slots, model.image_size, device)
    encoding = joined(list(in_chunks(infer, len(numbers), size, device)))
    check_finite(is_finite(encoding.image), "reconstructions")
    return encoding


def encode_split(
    model: SlotVAE,
    data: DataFile,
    split: str = "test",
    num: int = 10,
    seed: int = 0,
    rollout: bool = False,
) -> tuple[NDArray[np.intp], NDArray[np.uint8], Encoding]:
    """`num` images from all over a split: their indices, pixels [N,H,W,3] and what is inferred.

    The noise is that of an evaluation, and `rollout` as of `encode_images`.

    Raises:
        SriError: for images of another size than the model's, or an unknown split.
        SriFailure: for reconstructions that are not finite.
    """
    data.check_size(model.image_size)
    indices = data.split(split).pick(num)
    inputs = np.array(data.split(split).images[indices])
    return indices, inputs, encode_images(model, inputs, indices.tolist(), seed, rollout)


def _on_cpu(values: Tensor) -> Tensor:
    return values.float().cpu()
