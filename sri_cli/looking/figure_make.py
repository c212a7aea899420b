"""Runs to sheets: the blocks of each figure, its title and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sri_cli.errors import SriError
from sri_cli.figures.sheet import Block, Sheet
from sri_cli.figures.sheet_blocks import grid_columns
from sri_cli.figures.sheet_layout import columns_that_fit, flowed
from sri_cli.looking import figure_scenes as scenes
from sri_cli.looking.figure_failures import SCENES, failure_block, judged, notes_of
from sri_cli.looking.figure_images import SPLIT, rollout_blocks, segmentation_blocks
from sri_cli.looking.figure_names import Kind
from sri_cli.looking.figure_request import Request
from sri_cli.looking.figure_room import check_fits
from sri_cli.looking.trained import Trained, open_data, open_run
from sri_cli.workspace import Workspace


@dataclass
class Made:
    """A sheet and what is to be said of it."""

    sheet: Sheet
    run_dir: Path
    side: int  # of its pictures, px
    notes: list[str] = field(default_factory=list)


def make(workspace: Workspace, runs: Sequence[str], kind: Kind, request: Request) -> Made:
    """The figure as a sheet."""
    if kind.name == "curves":
        return _curves(workspace, runs)
    if kind.name == "table":
        return _table(workspace, runs)
    trained = [open_run(workspace, run) for run in runs or (None,)]
    num = kind.num if request.num is None else request.num
    assert num is not None
    check_fits(kind, request, trained, num)
    made = Made(Sheet([]), trained[0].loaded.run_dir, trained[0].loaded.model.image_size)
    if kind.name in ("rollouts", "segmentation"):
        _of_images(workspace, kind, trained, num, request.seed or 0, made)
    elif kind.name == "failures":
        _failures(trained, num, request, made)
    else:
        _of_scenes(kind, trained, num, request, made)
    return made


def _of_scenes(
    kind: Kind, trained: Sequence[Trained], num: int, request: Request, made: Made
) -> None:
    seed, warmth = request.seed or 0, 1.0 if request.temperature is None else request.temperature
    temperature = f"temperature {warmth:g}, seed {seed}"

    def count(one: Trained) -> int:
        return request.slots or one.loaded.model.num_slots

    columns = grid_columns(num, columns_that_fit(max(t.loaded.model.image_size for t in trained)))
    if kind.name == "samples":
        blocks = [scenes.sample_block(t, num, count(t), warmth, seed, columns) for t in trained]
        made.sheet = Sheet(by_data(trained, blocks), f"Random scenes, {temperature}")
    elif kind.name == "order":
        taken = [scenes.order_block(t, num, count(t), warmth, seed) for t in trained]
        title = f"Random scenes and their slots in generation order, {temperature}"
        made.sheet = Sheet(flowed(taken), title)
    elif kind.name == "slots":
        rows = []
        for one in trained:
            counts = scenes.slot_counts(one.loaded.model.num_slots, request.slots)
            rows.append(scenes.slot_blocks(one, num, counts, warmth, seed))
        title = f"The same scene latents with fewer and more slots, {temperature}"
        made.sheet = Sheet(rows, title)
    else:
        values = scenes.temperatures(request.temperature)
        warm = [scenes.temperature_block(t, num, count(t), values, seed) for t in trained]
        made.sheet = Sheet(flowed(warm), f"The same noise at several temperatures, seed {seed}")
    if kind.name in ("slots", "temperature"):
        _tell_without_scene(trained, made)


def _tell_without_scene(trained: Sequence[Trained], made: Made) -> None:
    for one in trained:
        if "scene" not in one.loaded.model.sampling_noise(1):
            name = one.loaded.run_dir.name
            made.notes.append(f"{name} has no scene variable: the noise of its slots is the same")


def by_data(trained: Sequence[Trained], blocks: Sequence[Block]) -> list[list[Block | None]]:
    """Systems in rows and data sets in columns; of one data set, side by side."""
    data = list(dict.fromkeys(one.caption for one in trained))
    if len(data) == 1:
        return flowed(blocks)
    rows: dict[str, list[Block | None]] = {}
    for one, block in zip(trained, blocks, strict=True):
        recipe, column = one.loaded.recipe, data.index(one.caption)
        system = scenes.system_name(recipe.name, recipe.size)
        while rows.setdefault(system, [None] * len(data))[column] is not None:
            system += "'"  # a second run of a system on the same data has a row of its own
        rows[system][column] = block
    return list(rows.values())


def _of_images(
    workspace: Workspace,
    kind: Kind,
    trained: Sequence[Trained],
    num: int,
    seed: int,
    made: Made,
) -> None:
    data = [open_data(workspace, one.loaded) for one in trained]
    if kind.name == "rollouts":
        found, title = rollout_blocks(trained, data, num, seed), "Reconstructed and imagined"
    else:
        found, title = segmentation_blocks(trained, data, num, seed), "Taken apart into slots"
    notes = list(found.notes)
    if kind.name == "segmentation":
        notes.append("True masks bear the colours of the slots that fit them best.")
    made.sheet = Sheet(flowed(found.blocks), f"{title}: images of the {SPLIT} split", notes)
    made.notes += found.notes


def _failures(trained: Sequence[Trained], num: int, request: Request, made: Made) -> None:
    seed, warmth = request.seed or 0, 1.0 if request.temperature is None else request.temperature
    columns = grid_columns(num, columns_that_fit(max(t.loaded.model.image_size for t in trained)))
    blocks: list[Block] = []
    words: list[str] = []
    for one in trained:
        verdicts = judged(one, request.slots or one.loaded.model.num_slots, warmth, seed)
        block = failure_block(verdicts, one, num, columns)
        words += [note for note in notes_of(verdicts, one) if note not in words]
        if block is None:
            made.notes.append(f"{one.loaded.run_dir.name}: none of {SCENES} scenes is broken")
        else:
            blocks.append(block)
    if not blocks:
        raise SriError(f"none of the {SCENES} scenes was judged broken", "try another --seed")
    title = f"Random scenes judged broken, temperature {warmth:g}, seed {seed}"
    made.sheet = Sheet(flowed(blocks), title, [*words, *made.notes])


def _curves(workspace: Workspace, runs: Sequence[str]) -> Made:
    from sri_cli.looking.figure_curves import curve_blocks, open_logs

    logs = open_logs(workspace, runs or (None,))
    legend, *charts = curve_blocks(logs)
    sheet = Sheet([[legend], *flowed(charts)], "Training")
    return Made(sheet, logs[0].run_dir, 1)


def _table(workspace: Workspace, runs: Sequence[str]) -> Made:
    from sri_cli.looking.figure_table import table_blocks

    run_dir = workspace.find_run(runs[0] if runs else None).run_dir
    return Made(Sheet([[block] for block in table_blocks(workspace, runs)]), run_dir, 1)
