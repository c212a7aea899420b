"""Images of a split as a model reconstructs them.

Axis legend: N images, K slots, H W pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import device_of, evaluation_noise, in_chunks, quantise, to_tensor
from sri_cli.generation.trained_run import TrainedRun

Picture = NDArray[np.uint8]


class Seen(NamedTuple):
    """Images at `places` of a split as a model sees them: inputs, pictures (reconstructed) and
    imagined [N,H,W,3], what each slot shows [N,K,H,W,3], attention and decoded masks [N,K,H,W].

    `imagined` (the slot prior's rollout from the image's scene latent) is None for systems without.
    """

    places: NDArray[np.intp]
    inputs: Picture
    attention: NDArray[np.float32]
    pictures: Picture
    masks: NDArray[np.float32]
    rgb: Picture
    imagined: Picture | None


def seen(
    trained: TrainedRun, data: DataFile, split: str = "test", num: int = 10, seed: int = 0
) -> Seen:
    """`num` images from all over the split as the model sees them; noise as in evaluation."""
    model = trained.model
    data.check_size(model.image_size)
    part = data.split(split)
    places = part.pick(num)
    inputs = np.array(part.images[places])
    device = device_of(model)

    def compute(start: int, count: int) -> tuple[Picture | np.ndarray | None, ...]:
        chosen = slice(start, start + count)
        noise = evaluation_noise(model, seed, places[chosen], device)
        again = model.reconstruct(to_tensor(inputs[chosen], device), noise)
        return (
            again.attention[:, :, 0].float().cpu().numpy(),
            quantise(again.scene.image),
            again.scene.masks[:, :, 0].float().cpu().numpy(),
            quantise(again.scene.rgb),
            None if again.imagined is None else quantise(again.imagined.image),
        )

    chunks = list(in_chunks(compute, len(places), 8, device))
    arrays: list[Any] = [
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*chunks, strict=True)
    ]
    return Seen(places, inputs, *arrays)
