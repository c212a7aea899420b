"""Edits of scenes slot by slot: remove, repeat, exchange and reimagine.

A scene is edited as slots [K,D] between `model.slots` and `model.decode`. Slots count from 0 here,
and from 1 in labels. `groups` has one entry for each edit of a row: the slots that are edited
together.

Axis legend: N scenes, K slots, J slots of an edited scene, D slot size, S scene size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.console import counting
from sri_cli.generation.encode import encode_images
from sri_cli.generation.sample import (
    decode_slots,
    device_of,
    in_chunks,
    joined,
    quantise,
    sample_scenes,
)
from sri_cli.models.base import SlotVAE
from sri_cli.rng import indexed_noise

Groups = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class SourceScene:
    """A scene before it is edited.

    Attributes:
        name: For labels; scenes and images count from 1 there.
        key: With the seed it determines what `reimagine` draws.
        slots: [K,D], in generation order.
        latent: The scene latent [S]; None for a model without a scene variable.
        image: The image uint8 [H,W,3] that the slots were inferred from; None for a new scene.
    """

    name: str
    key: str
    slots: Tensor
    latent: Tensor | None
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class EditedSlots:
    """Slots [J,D] to decode; `index` [J] says which slot of the scene each of them is.

    A slot without an entry is empty; the masks of one with two entries are added.
    """

    slots: Tensor
    index: tuple[int, ...]


@dataclass(frozen=True)
class EditRow:
    """A scene and its edits."""

    label: str
    before: SourceScene
    after: list[EditedSlots]


def draw_sources(
    model: SlotVAE, seed: int, num: int, slots: int, temperature: float
) -> list[SourceScene]:
    """The scenes 0 .. num-1 of a seed, as sampling draws them."""
    drawn = joined(list(sample_scenes(model, num, slots, temperature, seed)))
    return [
        SourceScene(
            f"scene {i + 1}",
            f"scene {i}",
            drawn.slots[i].cpu(),
            None if drawn.latent is None else drawn.latent[i].cpu(),
        )
        for i in range(num)
    ]


def infer_scene(
    model: SlotVAE, image: NDArray[np.uint8], name: str, seed: int, key: str | None = None
) -> SourceScene:
    """An image [H,W,3] as slots: one sample of the posterior, in generation order."""
    one = encode_images(model, image[None], [0], seed)
    latent = None if one.latent is None else one.latent[0]
    return SourceScene(name, key or name, one.slots[0], latent, image)


def remove(scenes: Sequence[SourceScene], groups: Groups) -> list[EditRow]:
    """Every scene without the slots; the others share the pixels that they covered."""
    rows = []
    for scene in scenes:
        left = [[k for k in range(len(scene.slots)) if k not in group] for group in groups]
        rows.append(EditRow(scene.name, scene, [_select(scene.slots, index) for index in left]))
    return rows


def repeat(scenes: Sequence[SourceScene], groups: Groups) -> list[EditRow]:
    """The first scene with the slots twice, and the others with its slots in place of theirs."""
    source, *others = scenes
    slots = range(len(source.slots))
    twice = [[k for k in slots for _ in range(1 + (k in group))] for group in groups]
    edited = [_select(source.slots, index) for index in twice]
    row = EditRow(f"{source.name}, slot twice", source, edited)
    return [row, *(_replaced(other, source, groups) for other in others)]


def exchange(pairs: Sequence[tuple[SourceScene, SourceScene]], groups: Groups) -> list[EditRow]:
    """Two scenes at a time, each with the other's slots in place of its own."""
    return [_replaced(*both, groups) for pair in pairs for both in (pair, pair[::-1])]


def reimagine(
    model: SlotVAE,
    scenes: Sequence[SourceScene],
    firsts: Sequence[int],
    variants: int,
    temperature: float,
    seed: int,
) -> list[EditRow]:
    """From each slot of `firsts` on, drawn again `variants` times from the prior.

    The scene latent and the slots before stay as they are.
    """
    rows = []
    for scene in scenes:
        specs = model.sampling_noise(len(scene.slots))
        specs = {name: spec for name, spec in specs.items() if name != "scene"}
        noise = indexed_noise(specs, seed, range(variants), f"reimagine/{scene.key}")
        latent = None if scene.latent is None else scene.latent.expand(variants, -1)
        for first in firsts:
            given = scene.slots[:first].expand(variants, -1, -1)
            drawn = _slots(model, noise, temperature, latent, given)
            after = [_select(slots) for slots in drawn]
            rows.append(EditRow(f"{scene.name}, from slot {first + 1}", scene, after))
    return rows


def decode_edits(
    model: SlotVAE, edits: Sequence[EditedSlots], slots: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images uint8 [N,H,W,3], and the masks [N,K,H,W] of `slots` slots, which sum to 1 over K.

    Raises:
        SriFailure: for scenes that are not finite.
    """
    size = model.image_size
    images = np.zeros((len(edits), size, size, 3), np.uint8)
    masks = np.zeros((len(edits), slots, size, size), np.float32)
    with counting("decoding", len(edits)) as advance:
        for count in sorted({len(edit.index) for edit in edits}):
            alike = [i for i, edit in enumerate(edits) if len(edit.index) == count]
            done = 0
            for scene in decode_slots(model, torch.stack([edits[i].slots for i in alike])):
                chosen = alike[done : done + len(scene.rgb)]
                done += len(chosen)
                images[chosen] = quantise(scene.image)
                for i, own in zip(chosen, scene.masks[:, :, 0].cpu().numpy(), strict=True):
                    np.add.at(masks[i], list(edits[i].index), own)
                advance(len(chosen))
    return images, masks


def source_edits(rows: Sequence[EditRow]) -> list[EditedSlots]:
    """The scenes of the rows without edits."""
    return [_select(row.before.slots) for row in rows]


def _select(slots: Tensor, index: Sequence[int] | None = None) -> EditedSlots:
    """Some slots of a scene, by default all."""
    index = range(len(slots)) if index is None else index
    return EditedSlots(slots[list(index)], tuple(index))


def _replaced(scene: SourceScene, other: SourceScene, groups: Groups) -> EditRow:
    """A scene with slots of another in place of its own."""
    after = []
    for group in groups:
        slots = scene.slots.clone()
        slots[list(group)] = other.slots[list(group)]
        after.append(_select(slots))
    return EditRow(f"{scene.name}, slot of {other.name}", scene, after)


def _slots(
    model: SlotVAE,
    noise: Mapping[str, Tensor],
    temperature: float,
    scene: Tensor | None,
    given: Tensor,
) -> Tensor:
    """Slots [N,K,D] from the prior, the first of them `given`, in chunks that fit into memory."""
    device, num = device_of(model), len(given)

    def compute(start: int, count: int) -> Tensor:
        rows = slice(start, start + count)
        own = {name: value[rows].to(device) for name, value in noise.items()}
        latent = None if scene is None else scene[rows].to(device)
        first = given[rows].to(device)
        return model.slots(own, temperature, scene=latent, given=first).float().cpu()

    return torch.cat(list(in_chunks(compute, num, num, device)))
