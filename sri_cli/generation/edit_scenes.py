"""What is edited: drawn scenes and images, as slots; and how edited slots become pictures again.

Axis legend: N scenes, K slots, J slots of an edited scene, D slot size, S picture side.
Slots count from 0 here, and from 1 in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.sources.folder import Unreadable, decode_image
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError
from sri_cli.generation.sample import (
    chunk_size,
    device_of,
    evaluation_noise,
    in_chunks,
    quantise,
    sample_noise,
    to_tensor,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.models.base import Scene, SlotVAE
from sri_cli.plotting.grid import Picture
from sri_cli.plotting.palette import blend_masks
from sri_cli.plotting.strips import Tile


@dataclass(frozen=True)
class Start:
    """A scene before it is edited: its slots [K,D], the noise [...] that its continuation takes
    (no batch axis), and the picture [S,S,3] that it was found in, if any."""

    name: str
    slots: Tensor
    noise: Mapping[str, Tensor]
    picture: Picture | None = None


@dataclass(frozen=True)
class Cell:
    """Slots [J,D] to be decoded. `places` [J]: which slot of the scene each is, for its colour;
    a place that is not named is empty, one named twice has both masks."""

    slots: Tensor
    places: tuple[int, ...]

    @staticmethod
    def whole(slots: Tensor) -> Cell:
        """A scene with every slot in its place."""
        return Cell(slots, tuple(range(len(slots))))


def drawn(model: SlotVAE, seed: int, num: int, slots: int, temperature: float) -> list[Start]:
    """The scenes 0 .. num-1 of a seed, as sampling draws them."""
    noise = sample_noise(model, seed, 0, num, slots)
    made = continued(model, noise, temperature)
    return [
        Start(f"scene {i}", made[i], {name: value[i] for name, value in noise.items()})
        for i in range(num)
    ]


def continued(
    model: SlotVAE, noise: Mapping[str, Tensor], temperature: float, given: Tensor | None = None
) -> Tensor:
    """Slots [N,K,D] from the prior, of which the first may be `given` [N,J,D]."""
    device = device_of(model)
    num = len(next(iter(noise.values())))

    def compute(start: int, count: int) -> Tensor:
        rows = slice(start, start + count)
        fresh = {name: value[rows].to(device) for name, value in noise.items()}
        first = None if given is None else given[rows]
        return model.slots(fresh, temperature, given=first).float()

    return torch.cat(list(in_chunks(compute, num, num, device)))


def seen(model: SlotVAE, picture: Picture, name: str, seed: int, temperature: float) -> Start:
    """An image [S,S,3] as slots: one sample of the posterior, in generation order."""
    device = device_of(model)
    noise = evaluation_noise(model, seed, np.zeros(1, np.intp), device)
    (found,) = in_chunks(
        lambda start, count: model.reconstruct(to_tensor(picture[None], device), noise),
        1,
        1,
        device,
    )
    assert found.slots is not None
    fresh = sample_noise(model, seed, 0, 1, found.slots.shape[1])
    if found.latent is not None:  # drawing multiplies the noise of the scene by the temperature
        fresh["scene"] = found.latent.float().cpu() / temperature
    return Start(name, found.slots[0].float(), {n: v[0] for n, v in fresh.items()}, picture)


def decoded(
    model: SlotVAE, cells: Sequence[Cell], slots: int, advance: Any = lambda more: None
) -> list[Tile]:
    """Each cell's image, and its masks in the colours of `slots` places."""
    tiles: dict[int, Tile] = {}
    for size in sorted({len(cell.places) for cell in cells}):
        same = [i for i, cell in enumerate(cells) if len(cell.places) == size]
        for start, scene in _scenes(model, [cells[i] for i in same]):
            images = quantise(scene.image)
            for j, image in enumerate(images):
                i = same[start + j]
                masks = place_masks(scene.masks[j, :, 0], cells[i].places, slots)
                tiles[i] = Tile(image, blend_masks(masks))
            advance(len(images))
    return [tiles[i] for i in range(len(cells))]


def _scenes(model: SlotVAE, cells: Sequence[Cell]) -> list[tuple[int, Scene]]:
    """Cells of equally many slots, decoded in chunks: the first cell's number and the scenes."""
    device = device_of(model)
    size = chunk_size(len(cells[0].places), model.image_size, device)

    def compute(start: int, count: int) -> tuple[int, Scene]:
        slots = torch.stack([cell.slots for cell in cells[start : start + count]])
        scene = model.decode(slots.to(device))
        return start, Scene(scene.rgb.float(), scene.log_masks.float())

    return list(in_chunks(compute, len(cells), size, device))


def place_masks(masks: Tensor, places: Sequence[int], slots: int) -> NDArray[np.float32]:
    """Masks [J,S,S] of an edited scene as masks [K,S,S] of its places; they still sum to 1."""
    out = np.zeros((slots, *masks.shape[1:]), np.float32)
    for mask, place in zip(masks.cpu().numpy(), places, strict=True):
        out[place] += mask
    return out


def read_image(trained: TrainedRun, path: Path) -> tuple[Picture, str | None]:
    """An image file at the model's size, and what had to be done to it, if anything."""
    size = trained.model.image_size
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SriError(f"--image {path} {what}", "name a picture, or a test image with --index 0")
    try:
        picture, (width, height) = decode_image(path, Resizing(size))
    except Unreadable as error:
        raise SriError(f"--image {path}: {error}", "any PNG or JPEG will do") from error
    if (width, height) == (size, size):
        return picture, None
    return picture, f"{path.name}: {width}x{height} px, its centred square resized to {size} px"
