"""`sri figure` and `sri order`: trained runs to figures in files.

Axis legend: N scenes or images, K slots, H W pixels. Masks are float and sum to 1 over K; images
are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

Rows = Sequence[Sequence[Block | None]]

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)
MORE_SLOTS = (-2, 0, 2, 4)  # than in training
JUDGED_SCENES = 200  # among which `failures` looks for broken ones
ORDER_SCENES = 8  # that `sri order` shows
MAX_FACTOR = 8  # of --scale: a page has 20,000 pixels a side then


@dataclass(frozen=True)
class Options:
    """Which scenes and images a figure shows.

    `num` None: as many as suit the figure; `slots` None: as in training; `data` None: the data
    file that a run was trained on.
    """

    num: int | None = None
    slots: int | None = None
    temperature: float = 1.0
    seed: int = 0
    data: str | None = None
    split: str = "test"
    dynamic_slots: bool = False


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
) -> tuple[Path, list[str]]:
    """Draw a figure of runs into a file.

    Args:
        workspace: Where runs and data are.
        name: One of `IMAGE_FIGURES`, "curves" or "table".
        runs: Names, folders or checkpoints; none: the latest run.
        options: Which scenes and images.
        out: A .png or .pdf; None: figures/figure-NAME.png of the first run.
        scale: Of a PNG: a factor as 4x, or the side of an image in pixels as 256.
        captions: Whether text stands around the images.

    Returns:
        The file, and the notes of the figure.

    Raises:
        SriError: for options that the figure does not have, runs without what it shows, or more
            images than one page holds.
    """
    _check_options(name, options)
    check_file(out)
    opened = [open_run(workspace, run, options.dynamic_slots) for run in runs or (None,)]
    notes: list[str] = []
    rows: Rows
    if name in IMAGE_FIGURES:
        factor = _factor(scale, int(opened[0].model.image_size))
        rows, title = _image_figure(name, opened, options, notes)
    else:
        factor = _factor(scale)
        rows, title = _curves(opened) if name == "curves" else _table(opened)
    path = out or opened[0].run_dir / "figures" / f"figure-{name}.png"
    write_figure(draw(rows, title, notes, factor, captions), path)
    return path, notes


def order_of_run(
    run: TrainedRun, num: int = 100, seed: int = 0, out: Path | None = None
) -> dict[str, Any]:
    """Score the order of `num` random scenes and draw the first of them.

    Writes the figure to `out` (None: figures/order.png of the run); the record holds the scores
    and the path of the figure.
    """
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


# Figures of images: what each shows of one run, as blocks side by side


def _samples(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    return [grid_panel(_scenes(run, options).images, title_of(run))]


def _order(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    return [order_panel(*_scenes(run, options), title_of(run))]


def _slots(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    usual = int(run.model.num_slots)
    images, masks = {}, []
    for k in sorted({max(1, usual + more) for more in MORE_SLOTS} | {options.slots or usual}):
        found = _scenes(run, replace(options, slots=k))
        name = f"{k} slot{'s' * (k > 1)}{' (as in training)' * (k == usual)}"
        images[name] = found.images
        masks.append(list(blend_masks(found.masks)))
    if not run.model.has_scene:
        notes.append(f"{run.run_dir.name} has no scene variable: the noise of its slots is equal.")
    return [row_panel(images, title_of(run)), Panel(masks, "their masks in slot colours")]


def _temperature(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    rows = {
        f"temperature {t:g}": _scenes(run, replace(options, temperature=t)).images
        for t in sorted({*TEMPERATURES, options.temperature})
    }
    return [row_panel(rows, title_of(run))]


def _reconstructions(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    data = run.open_data(options.data)
    found = reconstruct(run, data, options.split, options.num or 1, options.seed)
    if found.imagined is None:
        notes.append(f"{run.run_dir.name} infers no scene latent from an image: no rollout.")
    parts = found.inputs, found.attention, found.images, found.masks, found.imagined
    return [reconstruction_panel(*parts, _image_title(run, data.caption))]


def _segmentation(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    data = run.open_data(options.data)
    found = reconstruct(run, data, options.split, options.num or 1, options.seed)
    truth = data.split(options.split).masks_of(found.indices)
    if truth is None:
        notes.append(f"{data.caption} has no masks: there are no true ones.")
    else:
        notes.append("True masks have the colours of the slots that fit them best.")
    parts = found.inputs, found.attention, found.images, found.rgb, found.masks
    return [segmentation_panel(*parts, truth, _image_title(run, data.caption))]


def _failures(run: TrainedRun, options: Options, notes: list[str]) -> list[Block]:
    # Raters judged scenes as in training; scenes with other options are judged by the network.
    usual = replace(options, num=None) == Options()
    found = rater_verdicts(run) if usual else None
    if found is None:
        images = _scenes(run, replace(options, num=JUDGED_SCENES)).images
        found = judge_scenes(images, run.data_name)
    notes += found.notes
    count, total = int((found.scores < 0.5).sum()), len(found.scores)
    if count == 0:
        notes.append(f"{run.run_dir.name}: none of {total} scenes was judged broken.")
        return []
    num = min(options.num or 1, count)
    worst = np.argsort(found.scores, kind="stable")[:num]
    caption = f"{title_of(run)}; {count} of {total} judged broken"
    columns = _grid_columns(options.num or 1)
    return [grid_panel(found.images[worst], caption, columns, [found.names[i] for i in worst])]


class Kind(NamedTuple):
    """A figure of images: its blocks for one run, its title, number of images, its options."""

    blocks: Callable[[TrainedRun, Options, list[str]], list[Block]]
    title: str
    num: int
    options: tuple[str, ...]


DRAWN = ("num", "slots", "temperature", "seed")
IMAGES = ("num", "seed", "data", "split", "dynamic_slots")
HOW = "temperature {temperature:g}, seed {seed}"
IMAGE_FIGURES = {
    "samples": Kind(_samples, f"Random scenes, {HOW}", 18, DRAWN),
    "order": Kind(_order, f"Random scenes and their slots in generation order, {HOW}", 6, DRAWN),
    "slots": Kind(_slots, f"The same scene latents with fewer and more slots, {HOW}", 8, DRAWN),
    "temperature": Kind(
        _temperature, "The same noise at several temperatures, seed {seed}", 10, DRAWN
    ),
    "reconstructions": Kind(
        _reconstructions, "Images of the {split} split, reconstructed", 10, IMAGES
    ),
    "segmentation": Kind(_segmentation, "Images of the {split} split, segmented", 4, IMAGES),
    "failures": Kind(_failures, f"Random scenes judged broken, {HOW}", 18, DRAWN),
}
FLAGS = {"temperature": "--temp", "dynamic_slots": "--dynamic-slots"}


def _image_figure(
    name: str, runs: Sequence[TrainedRun], options: Options, notes: list[str]
) -> tuple[Rows, str]:
    """Rows of blocks and the title; what does not fit a page is refused before it is drawn."""
    kind = IMAGE_FIGURES[name]
    options = replace(options, num=options.num or kind.num)
    side = max(int(run.model.image_size) for run in runs)
    slots = options.slots or max(int(run.model.num_slots) for run in runs)
    columns, rows = _shape(name, options.num or 1, slots)
    beside = max(1, images_that_fit(side)[0] // columns)
    check_page(side, columns, rows * math.ceil(len(runs) / beside))

    blocks = [kind.blocks(run, options, notes) for run in runs]
    notes[:] = dict.fromkeys(notes)
    title = kind.title.format(**vars(options))
    if name == "samples" and len({run.caption for run in runs}) > 1:
        return _by_data(runs, [block for (block,) in blocks]), title
    blocks = [own for own in blocks if own]
    if not blocks:
        raise SriError(f"no scene was judged broken; {notes[-1]}", "try another --seed")
    return flowed(blocks, beside), title


def _shape(name: str, num: int, slots: int) -> tuple[int, int]:
    """How many images a figure shows of one run, across and down."""
    if name in ("samples", "failures"):
        return _grid_columns(num), math.ceil(num / _grid_columns(num))
    return {
        "order": (2 + slots, num),
        "slots": (2 * num + 1, len(MORE_SLOTS) + 1),
        "temperature": (num, len(TEMPERATURES) + 1),
        "reconstructions": (num, 5),
        "segmentation": (5 + slots, num),
    }[name]


def _grid_columns(num: int) -> int:
    """Columns of a grid of `num` scenes: twice as wide as high."""
    return math.ceil(math.sqrt(2 * num))


def _by_data(runs: Sequence[TrainedRun], blocks: Sequence[Block]) -> list[list[Block | None]]:
    """A row for each system and a column for each data set; a second run of both has a new row."""
    data = list(dict.fromkeys(run.caption for run in runs))
    rows: list[tuple[str, list[Block | None]]] = []
    for run, block in zip(runs, blocks, strict=True):
        system, column = run.recipe.name, data.index(run.caption)
        free = (row for name, row in rows if name == system and row[column] is None)
        row = next(free, None)
        if row is None:
            row = [None] * len(data)
            rows.append((system, row))
        row[column] = block
    return [row for _, row in rows]


def _scenes(run: TrainedRun, options: Options) -> Scenes:
    slots = options.slots or int(run.model.num_slots)
    return draw_scenes(run, options.num or 1, slots, options.temperature, options.seed)


def _image_title(run: TrainedRun, data: str) -> str:
    """The title of a run; with the data set of the images, if the run was trained on another."""
    return title_of(run) + ("" if data == run.caption else f"; images of {data}")


# Figures of logs and measurements


def _curves(runs: Sequence[TrainedRun]) -> tuple[Rows, str]:
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
    return curve_rows(logs), "Training" if len(logs) > 1 else f"Training of {logs[0].name}"


def _table(runs: Sequence[TrainedRun]) -> tuple[Rows, str]:
    """Everything that was measured of the runs, in the paper's tables; our rows are marked."""
    known = [measurement for run in runs for measurement in recorded(run)]
    if not known:
        name = runs[0].run_dir
        raise SriError(f"nothing has been measured of {name}", f"sri eval --run {name}")
    rows = []
    for table in paper_tables(known):
        ours = (i for i, row in enumerate(table.rows) if i and row[1].startswith("measured"))
        marked = frozenset(ours)
        rows.append([Table(table.rows, table.caption, table.left, marked, table.notes)])
    return rows, ""


# Checks


def _check_options(name: str, options: Options) -> None:
    """SriError for a value out of range, or an option that the figure does not have."""
    num = 1 if options.num is None else options.num
    slots = 1 if options.slots is None else options.slots
    check_request(num, slots, options.temperature, options.seed)
    known = IMAGE_FIGURES[name].options if name in IMAGE_FIGURES else ()
    for option, default in vars(Options()).items():
        if getattr(options, option) != default and option not in known:
            flag = FLAGS.get(option, f"--{option}")
            raise SriError(f"{flag} changes nothing in the figure {name}", "leave it out")


def _factor(scale: str, side: int | None = None) -> float:
    """4x -> 4; 256 -> as many times as images of `side` pixels become 256 pixels wide."""
    try:
        factor = float(scale.removesuffix("x"))
        if not scale.endswith("x"):
            factor = int(scale) / cell_side(side or 0)
    except (ValueError, ZeroDivisionError):
        factor = 0.0
    if not 0 < factor <= MAX_FACTOR:
        raise SriError(
            f"--scale {scale}: neither a factor nor the side of an image in pixels",
            "--scale 4x, or --scale 256 for a figure of images",
        )
    return factor
