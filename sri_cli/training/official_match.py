"""The tensors of an official checkpoint, each to its place in our model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Size, nn

from sri_cli.models.official import TABLES, official_name, our_name

MOST_NAMED = 10
# Coordinates that official modules carry along; they follow from the image size.
GRIDS = ("g_1", "g_2", "coords", "grid")
COUNTER = "num_batches_tracked"  # of BatchNorm; old files have none, and nothing depends on it
BATCH_STATISTICS = ("running_mean", "running_var", COUNTER)
IGNORED = (*GRIDS, COUNTER)
OF_TRAINING = "gecos."  # where the tables put what is no weight


@dataclass
class Match:
    """`weights` and `scalars` (those of GECO): our name -> official name; then what is wrong.

    `order` lists the official names of what can have been trained, as the file orders them.
    """

    weights: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def system_of(names: Iterable[str]) -> str | None:
    """The system whose official names these mostly are; None: of none."""
    names = list(names)
    counts = {
        system: sum(place_of(system, name) is not None for name in names) for system in TABLES
    }
    best = max(counts, key=lambda system: counts[system])
    return best if 2 * counts[best] > len(names) else None


def place_of(system: str, official: str) -> str | None:
    """Our name for it, which no part of our model need have; None: outside of the table."""
    try:
        return our_name(system, official)
    except (KeyError, ValueError):  # no prefix fits; or no number where a decoder has its layers
        return None


def wanted_by(model: nn.Module, system: str) -> dict[str, Size]:
    """The shape of every parameter, and of every buffer that the official system has too."""
    kept = model.state_dict().keys()
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, buffer in model.named_buffers():
        if name in kept and official_name(system, name) is not None:
            shapes[name] = buffer.shape
    return shapes


def match(system: str, shapes: Mapping[str, Size], wanted: Mapping[str, Size]) -> Match:
    """Give every tensor its place. shapes: by official name; wanted: by ours."""
    result = Match()
    for official, shape in shapes.items():
        ours, leaf = place_of(system, official), official.rpartition(".")[2]
        if ours is not None and ours.startswith(OF_TRAINING):
            result.scalars[ours] = official
        elif ours is not None and ours in wanted:
            result.weights[ours] = official
            if shape != wanted[ours]:
                phrase = f"{official} {list(shape)}, wanted {list(wanted[ours])}"
                result.misshapen.append(phrase)
        elif leaf in IGNORED:
            continue
        else:
            result.unexpected.append(official)
        if leaf not in BATCH_STATISTICS:
            result.order.append(official)
    result.missing = [
        official_name(system, name) or name
        for name in wanted
        if name not in result.weights and not name.endswith(COUNTER)
    ]
    return result


def some(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
