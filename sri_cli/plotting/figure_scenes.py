"""Scenes for figures: what a run draws, of which noise, with how many slots, how warm.

Axis legend: N scenes, K slots, H W pixels. Masks sum to 1 over K; pictures are uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counting
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.published import LAYOUTS
from sri_cli.plotting.grid import Picture
from sri_cli.plotting.palette import blend_masks
from sri_cli.plotting.sheet import Panels
from sri_cli.plotting.sheet_blocks import grid_panels, order_panels, row_panels

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)
MORE_SLOTS = (-2, 0, 2, 4)  # than in training
TINY = "tiny"  # the end of the name of a recipe that differs from another in its size alone
NAMED_IN = (4, 1, 2)  # tables of the paper, the last one's names count most
ABLATED_IN = 3  # whose rows name what SRI-G lacks


class Drawn(NamedTuple):
    """Scenes: images [N,H,W,3], what each slot shows [N,K,H,W,3], masks [N,K,H,W]."""

    images: Picture
    rgb: Picture
    masks: NDArray[np.float32]


def drawn(trained: TrainedRun, num: int, slots: int, temperature: float, seed: int) -> Drawn:
    """Scenes 0 .. num-1 of a seed."""
    parts = []
    with counting(f"drawing {trained.run_dir.name}", num) as advance:
        for scene in sample_scenes(trained.model, num, slots, temperature, seed):
            masks = scene.masks[:, :, 0].cpu().numpy()
            parts.append(Drawn(quantise(scene.image), quantise(scene.rgb), masks))
            advance(len(masks))
    return Drawn(*map(np.concatenate, zip(*parts, strict=True)))


def system_name(recipe: str, size: str) -> str:
    """A system as the paper calls it, or its recipe; a size other than the paper's is told."""
    ablated = {own: f"SRI-G {name}" for name, own in LAYOUTS[ABLATED_IN - 1].rows.items()}
    named = {own: name for table in NAMED_IN for name, own in LAYOUTS[table - 1].rows.items()}
    names = ablated | named
    base = recipe.removesuffix(f"-{TINY}")
    tiny = TINY if base != recipe and base in names else ""
    size = tiny or ("" if size == "paper" else size)
    return " ".join(filter(None, [names.get(base if tiny else recipe, recipe), size]))


def title_of(trained: TrainedRun) -> str:
    """System, data and step, for captions."""
    recipe = trained.recipe
    system = system_name(recipe.name, recipe.size)
    return f"{system}: {trained.caption}; step {trained.step:,}"


def slot_counts(trained: int, given: int | None) -> list[int]:
    """The rows of the figure of slots: fewer, as many and more than in training."""
    return sorted({max(1, trained + more) for more in MORE_SLOTS} | {given or trained})


def temperatures(given: float | None) -> list[float]:
    """The rows of the figure of temperatures."""
    return sorted({*TEMPERATURES} | {1.0 if given is None else given})


def without_scene(trained: Sequence[TrainedRun]) -> list[str]:
    """What is to be said of runs that have no scene latent to hold."""
    return [
        f"{one.run_dir.name} has no scene variable: the noise of its slots is the same"
        for one in trained
        if "scene" not in one.model.sampling_noise(1)
    ]


def sample_block(
    trained: TrainedRun, num: int, slots: int, temperature: float, seed: int, columns: int
) -> Panels:
    """Scenes of a run."""
    found = drawn(trained, num, slots, temperature, seed)
    return grid_panels(found.images, title_of(trained), columns)


def order_block(trained: TrainedRun, num: int, slots: int, temperature: float, seed: int) -> Panels:
    """Scenes of a run and their slots."""
    return order_panels(*drawn(trained, num, slots, temperature, seed), title_of(trained))


def slot_blocks(
    trained: TrainedRun, num: int, counts: list[int], temperature: float, seed: int
) -> tuple[Panels, Panels]:
    """Scenes with several numbers of slots, a row for each, and their masks beside."""
    found = [drawn(trained, num, slots, temperature, seed) for slots in counts]
    usual = trained.model.num_slots
    rows = [f"{k} slot{'s' * (k > 1)}" + " (as in training)" * (k == usual) for k in counts]
    images = row_panels(
        [(name, each.images) for name, each in zip(rows, found, strict=True)], title_of(trained)
    )
    masks = Panels([list(blend_masks(each.masks)) for each in found], "their masks in slot colours")
    return images, masks


def temperature_block(
    trained: TrainedRun, num: int, slots: int, values: list[float], seed: int
) -> Panels:
    """The same noise at several temperatures, a row for each."""
    rows = [(f"temperature {t:g}", drawn(trained, num, slots, t, seed).images) for t in values]
    return row_panels(rows, title_of(trained))
