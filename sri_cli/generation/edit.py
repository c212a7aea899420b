"""The four edits: scenes in, rows of edited scenes out.

Axis legend: K slots, D slot size. Slots count from 0 here, and from 1 in words.
`which` is what the columns show: each entry is a group of slots that are edited together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sri_cli.generation.edit_scenes import Cell, Start, continued
from sri_cli.models.base import SlotVAE
from sri_cli.rng import indexed_noise

Which = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Column:
    """What stands above a column: words, and the slots whose colours it bears."""

    text: str
    slots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """Lines of text, the scene before, and each edit of it."""

    label: tuple[str, ...]
    before: Start
    after: list[Cell]


@dataclass(frozen=True)
class Strip:
    """One column per edit (without that of the scene before), one row per scene."""

    columns: list[Column]
    rows: list[Row]


def remove(starts: Sequence[Start], which: Which) -> Strip:
    """Every scene without the slots; what they covered falls to the others."""
    rows = [Row((s.name,), s, [without(s.slots, gone) for gone in which]) for s in starts]
    return Strip([Column(f"without {names(gone)}", gone) for gone in which], rows)


def repeat(starts: Sequence[Start], which: Which) -> Strip:
    """The first scene with the slots twice, and the others with its slots in place of theirs."""
    source, *others = starts
    rows = [
        Row((source.name, "slot twice"), source, [twice(source.slots, slots) for slots in which])
    ]
    for other in others:
        cells = [instead(other.slots, source.slots, slots) for slots in which]
        rows.append(Row((other.name, f"slot of {source.name}"), other, cells))
    return Strip([Column(f"slot {names(slots)}", slots) for slots in which], rows)


def exchange(pairs: Sequence[tuple[Start, Start]], which: Which) -> Strip:
    """Two scenes at a time, each with the other's slots in place of its own."""
    rows = []
    for pair in pairs:
        for mine, theirs in (pair, pair[::-1]):
            cells = [instead(mine.slots, theirs.slots, slots) for slots in which]
            rows.append(Row((mine.name, f"slot of {theirs.name}"), mine, cells))
    return Strip([Column(f"slot {names(slots)}", slots) for slots in which], rows)


def reimagine(
    model: SlotVAE,
    starts: Sequence[Start],
    firsts: Sequence[int],
    variants: int,
    temperature: float,
    seed: int,
) -> Strip:
    """From each slot of `firsts` on, drawn anew `variants` times; scene and slots before stand."""
    rows = [
        Row(
            (start.name, f"from slot {first + 1}"),
            start,
            [Cell.whole(s) for s in anew(model, start, first, variants, temperature, seed)],
        )
        for start in starts
        for first in firsts
    ]
    return Strip([Column(f"variant {i + 1}") for i in range(variants)], rows)


def without(slots: Tensor, gone: Sequence[int]) -> Cell:
    """The scene's other slots, in their places."""
    places = tuple(k for k in range(len(slots)) if k not in gone)
    return Cell(slots[list(places)], places)


def twice(slots: Tensor, which: Sequence[int]) -> Cell:
    """The scene with some slots once more, each right after itself."""
    places = tuple(k for k in range(len(slots)) for _ in range(1 + (k in which)))
    return Cell(slots[list(places)], places)


def instead(slots: Tensor, others: Tensor, which: Sequence[int]) -> Cell:
    """The scene with some of its slots replaced by those of another at the same places."""
    replaced = slots.clone()
    replaced[list(which)] = others[list(which)].to(slots.device)
    return Cell.whole(replaced)


def anew(
    model: SlotVAE, start: Start, first: int, variants: int, temperature: float, seed: int
) -> Tensor:
    """The scene's slots [V,K,D], those from `first` on drawn again from the prior."""
    total = len(start.slots)
    specs = {name: spec for name, spec in model.sampling_noise(total).items() if name != "scene"}
    noise = indexed_noise(specs, seed, range(variants), f"reimagine/{start.name}")
    if "scene" in start.noise:
        noise["scene"] = start.noise["scene"].expand(variants, -1)
    return continued(model, noise, temperature, start.slots[:first].expand(variants, -1, -1))


def names(slots: Sequence[int]) -> str:
    """Slots as they are called: from 1, joined by +."""
    return "+".join(str(k + 1) for k in slots)
