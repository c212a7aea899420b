"""`sri figure` and `sri order`: trained runs to figures in files.

Axis legend: N scenes or images, K slots, H W pixels. Masks are float and sum to 1 over K; images
are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counting
from sri_cli.errors import SriError
from sri_cli.generation.reconstruct import reconstruct
from sri_cli.generation.sample import check_request, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics import order
from sri_cli.metrics.records import recorded
from sri_cli.metrics.tables import paper_tables, published_names
from sri_cli.plotting.blocks import (
    TrainingLog,
    curve_rows,
    grid_panel,
    order_panel,
    reconstruction_panel,
    row_panel,
    segmentation_panel,
)
from sri_cli.plotting.failures import judge_scenes, rater_verdicts
from sri_cli.plotting.figures import (
    Block,
    Panel,
    Table,
    cell_side,
    check_file,
    check_page,
    draw,
    flowed,
    images_that_fit,
    write_figure,
)
from sri_cli.plotting.grid import Pixels
from sri_cli.plotting.palette import blend_masks
from sri_cli.run import Workspace
from sri_cli.training.log import LOG_NAME, read_log

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)
MORE_SLOTS = (-2, 0, 2, 4)  # than in training
JUDGED_SCENES = 200  # among which `failures` looks for broken ones
ORDER_SCENES = 8  # that `sri order` shows
MAX_ORDER_SCENES = 1024  # every pair of scenes is compared


@dataclass(frozen=True)
class Options:
    """Which scenes and images a figure shows; None: the default of the figure or of the run."""

    num: int | None = None
    slots: int | None = None
    temperature: float | None = None
    seed: int | None = None
    data: str | None = None
    split: str = "test"
    dynamic_slots: bool = False


class Content(NamedTuple):
    """What a figure shows; `notes` stand below it."""

    rows: Sequence[Sequence[Block | None]]
    title: str
    notes: Sequence[str] = ()


class Scenes(NamedTuple):
    """Scenes: images [N,H,W,3], what each slot shows [N,K,H,W,3], masks [N,K,H,W]."""

    images: Pixels
    rgb: Pixels
    masks: NDArray[np.float32]


def figure_of_runs(
    workspace: Workspace,
    name: str,
    runs: Sequence[str] = (),
    options: Options = Options(),
    out: Path | None = None,
    scale: str = "2x",
    captions: bool = True,
) -> tuple[Path, Sequence[str]]:
    """Draw a figure of runs into a file.

    Args:
        workspace: Where runs and data are.
        name: One of `FIGURES`.
        runs: Names, folders or checkpoints; none: the latest run.
        options: Which scenes and images.
        out: A .png or .pdf; None: figures/figure-NAME.png of the first run.
        scale: Of a PNG: a factor as 4x, or the side of an image in pixels as 256.
        captions: Whether text stands around the images.

    Returns:
        The file, and the notes of the figure.

    Raises:
        SriError: for options that the figure does not have, or runs without what it shows.
        DoesNotFitError: for more images than one page shows.
    """
    _check_options(name, options)
    check_file(out)
    opened = [open_run(workspace, run, options.dynamic_slots) for run in runs or (None,)]
    has_images = FIGURES[name].num is not None
    factor = _factor(scale, int(opened[0].model.image_size) if has_images else None)
    content = FIGURES[name].content(opened, options)
    path = out or opened[0].run_dir / "figures" / f"figure-{name}.png"
    write_figure(draw(*content, factor, captions), path)
    return path, content.notes


def order_of_run(
    run: TrainedRun, num: int = 100, seed: int = 0, out: Path | None = None
) -> dict[str, Any]:
    """Score the order of `num` random scenes and draw the first of them.

    Writes the figure to `out` (None: figures/order.png of the run); the record holds the scores
    and the path of the figure.
    """
    check_order_scenes(num)
    check_file(out)
    slots = int(run.model.num_slots)
    scenes = draw_scenes(run, num, slots, 1.0, seed)
    record = {
        "run": str(run.run_dir),
        "step": run.step,
        "trained_on": run.caption,
        "seed": seed,
        "temperature": 1.0,
    } | order.report(scenes.masks, seed)
    shown = Scenes(*(part[:ORDER_SCENES] for part in scenes))  # type: ignore[arg-type]
    panel = order_panel(*shown, title_of(run))
    path = out or run.run_dir / "figures" / "order.png"
    write_figure(draw([[panel]], "Random scenes and their slots in generation order"), path)
    return record | {"figure": str(path)}


def check_order_scenes(num: int) -> None:
    """SriError unless there are scenes to compare, and not too many."""
    if not order.MIN_SCENES <= num <= MAX_ORDER_SCENES:
        raise SriError(
            f"--num {num}: order is compared between {order.MIN_SCENES} and {MAX_ORDER_SCENES}"
            " scenes",
            "--num 100",
        )


def draw_scenes(run: TrainedRun, num: int, slots: int, temperature: float, seed: int) -> Scenes:
    """Scenes 0 .. num-1 of a seed."""
    parts = []
    with counting(f"drawing {run.run_dir.name}", num) as advance:
        for scene in sample_scenes(run.model, num, slots, temperature, seed):
            masks = scene.masks[:, :, 0].cpu().numpy()
            parts.append(Scenes(quantise(scene.image), quantise(scene.rgb), masks))
            advance(len(masks))
    return Scenes(*map(np.concatenate, zip(*parts, strict=True)))


def system_name(recipe: str, size: str) -> str:
    """A system as the paper calls it, or its recipe; a size other than the paper's is named."""
    names: dict[str, str] = {}
    for number in (3, 4, 1, 2):  # tables of the paper; the names of the last one count most
        for own, name in published_names(number).items():
            names[own] = f"SRI-G {name}" if number == 3 else name
    base = recipe.removesuffix("-tiny")
    if base != recipe and base in names:
        recipe, size = base, "tiny"
    return f"{names.get(recipe, recipe)} {'' if size == 'paper' else size}".strip()


def title_of(run: TrainedRun, step: bool = True) -> str:
    """System, run, data and step, for captions."""
    system = system_name(run.recipe.name, run.recipe.size)
    title = f"{system} ({run.run_dir.name}): {run.caption}"
    return f"{title}; step {run.step:,}" if step else title


# Figures of new scenes


def _samples(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("samples", options)
    columns, data = _grid_columns(runs, num), _data_sets(runs)
    _check_room(runs, columns, math.ceil(num / columns))
    blocks = [grid_panel(_scenes(run, options, num).images, title_of(run), columns) for run in runs]
    rows = _by_data(runs, blocks) if len(data) > 1 else _flow(blocks)
    return Content(rows, f"Random scenes, {_drawn_how(options)}")


def _order(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("order", options)
    _check_room(runs, 2 + max(_slots(run, options) for run in runs), num)
    blocks = [order_panel(*_scenes(run, options, num), title_of(run)) for run in runs]
    title = f"Random scenes and their slots in generation order, {_drawn_how(options)}"
    return Content(_flow(blocks), title)


def _slot_counts(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("slots", options)
    _check_room(runs, 2 * num + 1, len(MORE_SLOTS) + 1, 1)
    rows = []
    for run in runs:
        usual = int(run.model.num_slots)
        counts = sorted({max(1, usual + more) for more in MORE_SLOTS} | {options.slots or usual})
        found = [draw_scenes(run, num, k, *_temperature_and_seed(options)) for k in counts]
        names = [f"{k} slot{'s' * (k > 1)}{' (as in training)' * (k == usual)}" for k in counts]
        images = {name: each.images for name, each in zip(names, found, strict=True)}
        masks = [list(blend_masks(each.masks)) for each in found]
        rows.append([row_panel(images, title_of(run)), Panel(masks, "their masks in slot colours")])
    notes = [
        f"{run.run_dir.name} has no scene variable: the noise of its slots is the same."
        for run in runs
        if not run.model.has_scene
    ]
    title = f"The same scene latents with fewer and more slots, {_drawn_how(options)}"
    return Content(rows, title, notes)


def _temperatures(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("temperature", options)
    values = sorted({*TEMPERATURES, options.temperature or 1.0})
    _check_room(runs, num, len(values))
    seed = options.seed or 0
    blocks = [
        row_panel(
            {
                f"temperature {t:g}": draw_scenes(run, num, _slots(run, options), t, seed).images
                for t in values
            },
            title_of(run),
        )
        for run in runs
    ]
    return Content(_flow(blocks), f"The same noise at several temperatures, seed {seed}")


def _failures(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("failures", options)
    columns = _grid_columns(runs, num)
    _check_room(runs, columns, math.ceil(num / columns))
    blocks, notes = [], []
    for run in runs:
        # Raters judged scenes as in training; scenes with other options are judged by the network.
        usual = (options.slots, options.temperature, options.seed) == (None, None, None)
        found = rater_verdicts(run) if usual else None
        found = found or judge_scenes(_scenes(run, options, JUDGED_SCENES).images, run.data_name)
        notes += found.notes
        broken = found.scores < 0.5
        count, total = int(broken.sum()), len(broken)
        if count == 0:
            notes.append(f"{run.run_dir.name}: none of {total} scenes was judged broken.")
            continue
        worst = np.argsort(found.scores, kind="stable")[: min(num, count)]
        caption = f"{title_of(run)}; {count} of {total} judged broken"
        names = [found.names[i] for i in worst]
        blocks.append(grid_panel(found.images[worst], caption, columns, names))
    if not blocks:
        raise SriError(f"no scene was judged broken; {notes[-1]}", "try another --seed")
    title = f"Random scenes judged broken, {_drawn_how(options)}"
    return Content(_flow(blocks), title, list(dict.fromkeys(notes)))


# Figures of images


def _reconstructions(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("reconstructions", options)
    _check_room(runs, num, 5)
    blocks, notes = [], []
    for run in runs:
        data = run.open_data(options.data)
        found = reconstruct(run, data, options.split, num, options.seed or 0)
        caption = _image_title(run, data.caption)
        blocks.append(
            reconstruction_panel(
                found.inputs,
                found.attention,
                found.images,
                found.masks,
                found.imagined,
                caption,
            )
        )
        if found.imagined is None:
            name = run.run_dir.name
            notes.append(f"{name} infers no scene latent from an image, so there is no rollout.")
    return Content(_flow(blocks), f"Images of the {options.split} split, reconstructed", notes)


def _segmentation(runs: Sequence[TrainedRun], options: Options) -> Content:
    num = _num("segmentation", options)
    _check_room(runs, 5 + max(int(run.model.num_slots) for run in runs), num)
    blocks, notes = [], []
    for run in runs:
        data = run.open_data(options.data)
        found = reconstruct(run, data, options.split, num, options.seed or 0)
        truth = None
        if data.split(options.split).has_masks:
            split = data.split(options.split)
            truth = np.concatenate([split.mask_rows(i, i + 1) for i in found.indices.tolist()])
            notes.append("True masks have the colours of the slots that fit them best.")
        else:
            notes.append(f"{data.caption} has no masks, so there are no true ones.")
        parts = found.inputs, found.attention, found.images, found.rgb, found.masks
        caption = _image_title(run, data.caption)
        blocks.append(segmentation_panel(*parts, truth, caption))
    title = f"Images of the {options.split} split, segmented"
    return Content(_flow(blocks), title, list(dict.fromkeys(notes)))


def _image_title(run: TrainedRun, data: str) -> str:
    """The title of a run; with the images' data set, where the run was trained on another."""
    other = "" if data == run.caption else f"; images of {data}"
    return title_of(run) + other


# Figures of logs and measurements


def _curves(runs: Sequence[TrainedRun], options: Options) -> Content:
    logs = []
    for run in runs:
        records = read_log(run.run_dir) if (run.run_dir / LOG_NAME).is_file() else []
        if not records:
            raise SriError(
                f"{run.run_dir} has no log of its training",
                f"name runs with a {LOG_NAME} (an imported one has none)",
            )
        name, target = title_of(run, step=False), run.recipe.train.geco_target
        logs.append(TrainingLog(name, run.recipe.model.normalised, target, records))
    title = "Training" if len(logs) > 1 else f"Training of {logs[0].name}"
    return Content(curve_rows(logs), title)


def _table(runs: Sequence[TrainedRun], options: Options) -> Content:
    """Everything that was measured of the runs, in the paper's tables; our rows are marked."""
    known = [measurement for run in runs for measurement in recorded(run)]
    if not known:
        raise SriError(
            f"nothing has been measured of {runs[0].run_dir}",
            f"sri eval --run {runs[0].run_dir}",
        )
    blocks = []
    for table in paper_tables(known):
        ours = (i for i, row in enumerate(table.rows) if i and row[1].startswith("measured"))
        parts = table.rows, table.caption, (), table.left, frozenset(ours), table.notes
        blocks.append([Table(*parts)])
    return Content(blocks, "")


# What the options mean


class Kind(NamedTuple):
    """A figure: how it is made, its number of scenes or images, the options that change it."""

    content: Callable[[Sequence[TrainedRun], Options], Content]
    num: int | None
    options: tuple[str, ...]


DRAWN = ("num", "slots", "temperature", "seed")
IMAGES = ("num", "seed", "data", "split", "dynamic_slots")
FIGURES: Mapping[str, Kind] = {
    "samples": Kind(_samples, 18, DRAWN),
    "order": Kind(_order, 6, DRAWN),
    "slots": Kind(_slot_counts, 8, DRAWN),
    "temperature": Kind(_temperatures, 10, DRAWN),
    "reconstructions": Kind(_reconstructions, 10, IMAGES),
    "segmentation": Kind(_segmentation, 4, IMAGES),
    "failures": Kind(_failures, 18, DRAWN),
    "curves": Kind(_curves, None, ()),
    "table": Kind(_table, None, ()),
}
FLAGS = {"temperature": "--temp", "dynamic_slots": "--dynamic-slots"}


def _check_options(name: str, options: Options) -> None:
    """SriError for a value out of range, or an option that the figure does not have."""
    check_request(
        1 if options.num is None else options.num,
        1 if options.slots is None else options.slots,
        1.0 if options.temperature is None else options.temperature,
        options.seed or 0,
    )
    for option, default in vars(Options()).items():
        if getattr(options, option) != default and option not in FIGURES[name].options:
            flag = FLAGS.get(option, f"--{option}")
            raise SriError(f"{flag} changes nothing in the figure {name}", "leave it out")


def _num(name: str, options: Options) -> int:
    return options.num or FIGURES[name].num or 1


def _slots(run: TrainedRun, options: Options) -> int:
    return options.slots or int(run.model.num_slots)


def _temperature_and_seed(options: Options) -> tuple[float, int]:
    return options.temperature or 1.0, options.seed or 0


def _scenes(run: TrainedRun, options: Options, num: int) -> Scenes:
    return draw_scenes(run, num, _slots(run, options), *_temperature_and_seed(options))


def _drawn_how(options: Options) -> str:
    return "temperature {:g}, seed {}".format(*_temperature_and_seed(options))


def _factor(scale: str, side: int | None) -> float:
    """4x -> 4; 256 -> as many times as images of `side` pixels become 256 pixels wide."""
    try:
        factor = float(scale.removesuffix("x"))
        if not scale.endswith("x"):
            factor = int(scale) / cell_side(side or 0)
    except (ValueError, ZeroDivisionError):
        factor = 0.0
    if not 0 < factor <= 50:
        raise SriError(
            f"--scale {scale}: neither a factor nor the side of an image in pixels",
            "--scale 4x, or --scale 256 for a figure of images",
        )
    return factor


# Layout


def _check_room(runs: Sequence[TrainedRun], columns: int, rows: int, beside: int = 0) -> None:
    """DoesNotFitError unless a block of so many images for each run fits on one page.

    `beside`: how many blocks stand side by side; 0: as many as the page is wide.
    """
    side = max(int(run.model.image_size) for run in runs)
    beside = beside or max(1, images_that_fit(side)[0] // columns)
    check_page(side, columns, rows * math.ceil(len(runs) / beside))


def _grid_columns(runs: Sequence[TrainedRun], num: int) -> int:
    """Columns of a grid of `num` scenes, twice as wide as high where the page is as wide."""
    across, _ = images_that_fit(max(int(run.model.image_size) for run in runs))
    return max(1, min(across // len(_data_sets(runs)), math.ceil(math.sqrt(2 * num))))


def _flow(panels: Sequence[Panel]) -> list[list[Block | None]]:
    """Panels side by side as far as the page is wide."""
    widths = []
    for panel in panels:
        side = next(cell for row in panel.cells for cell in row if cell is not None).shape[0]
        columns = max(len(row) for row in panel.cells)
        widths.append(columns * (cell_side(side) + 2) + 12 + 120 * bool(panel.rows))
    return flowed(panels, max(widths))


def _data_sets(runs: Sequence[TrainedRun]) -> list[str]:
    return list(dict.fromkeys(run.caption for run in runs))


def _by_data(runs: Sequence[TrainedRun], blocks: Sequence[Block]) -> list[list[Block | None]]:
    """A row for each system and a column for each data set; a second run of both has a new row."""
    data = _data_sets(runs)
    rows: list[tuple[str, list[Block | None]]] = []
    for run, block in zip(runs, blocks, strict=True):
        system = system_name(run.recipe.name, run.recipe.size)
        column = data.index(run.caption)
        free = (row for name, row in rows if name == system and row[column] is None)
        row = next(free, None)
        if row is None:
            row = [None] * len(data)
            rows.append((system, row))
        row[column] = block
    return [row for _, row in rows]
