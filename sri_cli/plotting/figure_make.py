"""Runs to sheets: the blocks of each figure, its title and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.labeling.session import FOLDER
from sri_cli.plotting import figure_scenes as scenes
from sri_cli.plotting.figure_curves import curve_blocks, open_logs
from sri_cli.plotting.figure_failures import Judged, failure_block, judged, notes_of
from sri_cli.plotting.figure_images import SPLIT, rollout_blocks, segmentation_blocks
from sri_cli.plotting.figure_names import Kind
from sri_cli.plotting.figure_raters import judged_by_raters
from sri_cli.plotting.figure_request import Request
from sri_cli.plotting.figure_room import by_data, check_fits, columns_of, data_sets
from sri_cli.plotting.figure_table import table_blocks
from sri_cli.plotting.sheet import Block, Sheet
from sri_cli.plotting.sheet_layout import flowed
from sri_cli.run import Workspace

TRUE_COLOURS = "True masks bear the colours of the slots that fit them best."


class Made(NamedTuple):
    """A sheet, the run whose folder it belongs to, the side of its pictures (px; None: it has
    none), and what is to be said of it."""

    sheet: Sheet
    run_dir: Path
    side: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Asked:
    """A request with what was left out."""

    workspace: Workspace
    trained: Sequence[TrainedRun]
    num: int
    seed: int
    temperature: float
    given: Request

    def slots(self, one: TrainedRun) -> int:
        """As many as asked for, or as in training."""
        return self.given.slots or int(one.model.num_slots)

    def verdicts(self, one: TrainedRun) -> Judged:
        """Those of raters, where they judged this model and other scenes were not asked for."""
        given = self.given
        found = None
        if given.slots is given.temperature is given.seed is None:
            found = judged_by_raters(self.workspace.runs_root / FOLDER, one)
        return found or judged(one, self.slots(one), self.temperature, self.seed)

    @property
    def words(self) -> str:
        """How scenes are drawn, for titles."""
        return f"temperature {self.temperature:g}, seed {self.seed}"


def make(workspace: Workspace, runs: Sequence[str], kind: Kind, request: Request) -> Made:
    """The figure as a sheet; SriError for runs that lack what it shows."""
    if kind.name == "curves":
        return _curves(workspace, runs)
    if kind.name == "table":
        return _table(workspace, runs)
    trained = [open_run(workspace, run) for run in runs or (None,)]
    num = request.num or kind.num or 1
    check_fits(kind, request, trained, num)
    temperature = 1.0 if request.temperature is None else request.temperature
    asked = Asked(workspace, trained, num, request.seed or 0, temperature, request)
    sheet, notes = MAKERS[kind.name](asked)
    first = trained[0]
    return Made(sheet, first.run_dir, first.model.image_size, notes)


def _samples(asked: Asked) -> tuple[Sheet, list[str]]:
    trained, columns = asked.trained, columns_of(asked.trained, asked.num)
    blocks = [
        scenes.sample_block(
            one, asked.num, asked.slots(one), asked.temperature, asked.seed, columns
        )
        for one in trained
    ]
    rows = by_data(trained, blocks) if len(data_sets(trained)) > 1 else flowed(blocks)
    return Sheet(rows, f"Random scenes, {asked.words}"), []


def _order(asked: Asked) -> tuple[Sheet, list[str]]:
    blocks = [
        scenes.order_block(one, asked.num, asked.slots(one), asked.temperature, asked.seed)
        for one in asked.trained
    ]
    title = f"Random scenes and their slots in generation order, {asked.words}"
    return Sheet(flowed(blocks), title), []


def _slots(asked: Asked) -> tuple[Sheet, list[str]]:
    rows = []
    for one in asked.trained:
        counts = scenes.slot_counts(one.model.num_slots, asked.given.slots)
        rows.append(scenes.slot_blocks(one, asked.num, counts, asked.temperature, asked.seed))
    notes = scenes.without_scene(asked.trained)
    title = f"The same scene latents with fewer and more slots, {asked.words}"
    return Sheet(rows, title, notes), notes


def _temperature(asked: Asked) -> tuple[Sheet, list[str]]:
    values = scenes.temperatures(asked.given.temperature)
    blocks = [
        scenes.temperature_block(one, asked.num, asked.slots(one), values, asked.seed)
        for one in asked.trained
    ]
    return Sheet(flowed(blocks), f"The same noise at several temperatures, seed {asked.seed}"), []


def _rollouts(asked: Asked) -> tuple[Sheet, list[str]]:
    data = [one.open_data() for one in asked.trained]
    blocks, notes = rollout_blocks(asked.trained, data, asked.num, asked.seed)
    return Sheet(flowed(blocks), f"Images of the {SPLIT} split, seen and imagined", notes), notes


def _segmentation(asked: Asked) -> tuple[Sheet, list[str]]:
    data = [one.open_data() for one in asked.trained]
    blocks, notes = segmentation_blocks(asked.trained, data, asked.num, asked.seed)
    masked = any(file.split(SPLIT).has_masks for file in data)
    words = [*notes, *[TRUE_COLOURS] * masked]
    return Sheet(flowed(blocks), f"Images of the {SPLIT} split, taken apart", words), notes


def _failures(asked: Asked) -> tuple[Sheet, list[str]]:
    columns = columns_of(asked.trained, asked.num)
    blocks: list[Block] = []
    words: list[str] = []
    none = []
    for one in asked.trained:
        verdicts = asked.verdicts(one)
        words += [note for note in notes_of(verdicts, one) if note not in words]
        block = failure_block(verdicts, one, asked.num, columns)
        if block is None:
            none.append(f"{one.run_dir.name}: none of {len(verdicts.images)} scenes is broken")
        else:
            blocks.append(block)
    if not blocks:
        raise SriError(f"no scene was judged broken: {'; '.join(none)}", "try another --seed")
    return Sheet(flowed(blocks), f"Random scenes judged broken, {asked.words}", words + none), none


MAKERS = {
    "samples": _samples,
    "order": _order,
    "slots": _slots,
    "temperature": _temperature,
    "rollouts": _rollouts,
    "segmentation": _segmentation,
    "failures": _failures,
}


def _curves(workspace: Workspace, runs: Sequence[str]) -> Made:
    logs = open_logs(workspace, runs or (None,))
    legend, *charts = curve_blocks(logs)
    return Made(Sheet([[legend], *flowed(charts)], "Training"), logs[0].run_dir)


def _table(workspace: Workspace, runs: Sequence[str]) -> Made:
    run_dir = workspace.find_run(runs[0] if runs else None).run_dir
    return Made(Sheet([[block] for block in table_blocks(workspace, runs)]), run_dir)
