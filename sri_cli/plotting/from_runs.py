"""`sri figure` and `sri order`: trained runs to figures in files.

Axis legend: N scenes or images, K slots, H W pixels. Masks are float and sum to 1 over K; images
are uint8.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counting
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.generation.encode import encode_split
from sri_cli.generation.sample import Scenes, check_request, draw_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run, slots_notes
from sri_cli.labeling.ratings import rated_scenes
from sri_cli.labeling.session import FOLDER
from sri_cli.metrics import order
from sri_cli.metrics.evaluate import check_matches
from sri_cli.metrics.image_metrics import TOWERS
from sri_cli.metrics.model_metrics import SplitTask, matching_gaps
from sri_cli.metrics.records import recorded, run_subject
from sri_cli.metrics.stack_classifiers.classifiers import Judge
from sri_cli.metrics.tables import paper_tables
from sri_cli.models.matching import MATCHINGS
from sri_cli.plotting.blocks import (
    grid_columns,
    grid_panel,
    order_panel,
    reconstruction_panel,
    row_panel,
    segmentation_panel,
    training_charts,
    training_log,
)
from sri_cli.plotting.figures import (
    Block,
    Chart,
    Legend,
    Panel,
    cell_side,
    check_file,
    check_page,
    draw,
    flowed,
    images_that_fit,
    write_figure,
)
from sri_cli.plotting.images import Pixels, blend_masks, enlarge
from sri_cli.plotting.outputs import FIGURES, check_place, output_path, record_of, slots_of
from sri_cli.plotting.titles import title_of, titles_of
from sri_cli.run import LOG_NAME, SHIPPED, Workspace, run_argument

Rows = Sequence[Sequence[Block | None]]
T = TypeVar("T")

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)
MORE_SLOTS = (-2, 0, 2, 4)  # than in training
JUDGED_SCENES = 200  # drawn for `failures`, which shows the broken ones
ORDER_SCENES = 8  # shown by `sri order`
CURVES_ACROSS = 2
MIN_FACTOR = 0.25  # below it letters are less than 3 pixels high
MAX_FACTOR = 8  # of --scale: a page is up to 20,000 pixels wide then


@dataclass(frozen=True)
class Options:
    """Which scenes and images a figure shows.

    `num` 0: as many as suit the figure; `slots` None: as in training; `data` None: the data file
    that a run was trained on. `rows`: a row of scenes for each run, with a short name.
    """

    num: int = 0
    slots: int | None = None
    temperature: float = 1.0
    seed: int = 0
    data: str | None = None
    split: str = "test"
    dynamic_slots: bool = False
    rows: bool = False


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
        out: A .png or .pdf; None: figures/NAME-NNN.png of the first run.
        scale: Of a PNG: a factor as 4x, or the side of an image in pixels as 256.
        captions: Whether text stands around the images.

    Returns:
        The file, and the notes of the figure.

    Raises:
        SriError: for options out of range, runs without what it shows, or more images than one
            page holds.
    """
    slots = 1 if options.slots is None else options.slots
    check_request(options.num or 1, slots, options.temperature, options.seed)
    check_file(out)
    opened = [open_run(workspace, run, options.dynamic_slots) for run in runs or (None,)]
    folder = opened[0].run_dir / FIGURES
    check_place(out, folder)
    notes: list[str] = []
    settings: dict[str, Any] = {}
    if name in IMAGE_FIGURES:
        options = replace(options, num=options.num or IMAGE_FIGURES[name].num)
        settings = _settings(name, opened, options)
        shown = opened if options.rows else opened[:1]  # a row of each at the largest size
        factor = _factor(scale, max(run.model.image_size for run in shown))
        rows, title = _image_figure(name, opened, options, notes)
    else:
        factor = _factor(scale)
        rows, title = _curves(opened) if name == "curves" else _table(opened)
    figure = draw(rows, title, notes, factor, captions)
    record = record_of(opened, f"figure {name}", **settings, scale=scale, captions=captions)
    with output_path(out, folder, name, ".png", record) as path:
        write_figure(figure, path)
    return path, [*slots_notes(opened, options.slots), *notes]


def order_of_run(
    run: TrainedRun, num: int = 100, seed: int = 0, out: Path | None = None
) -> dict[str, Any]:
    """Score the order of `num` random scenes and draw the first of them.

    Writes the figure to `out` (None: figures/order-NNN.png of the run); the record holds the
    scores and the path of the figure.
    """
    check_file(out)
    check_place(out, run.run_dir / FIGURES)
    scenes = _scenes(run, Options(num, seed=seed))
    record = {
        "run": str(run.run_dir),
        "step": run.step,
        "trained_on": run.caption,
        "seed": seed,
        "temperature": 1.0,
    } | order.report(scenes.masks, seed)
    panel = order_panel(scenes, title_of(run), ORDER_SCENES)
    figure = draw([[panel]], "Random scenes and their slots in generation order")
    settings = {"num": num, "slots": run.model.num_slots, "temperature": 1.0, "seed": seed}
    about = record_of([run], "order", **settings)
    with output_path(out, run.run_dir / FIGURES, "order", ".png", about) as path:
        write_figure(figure, path)
    return record | {"figure": str(path)}


# Figures of images: what each shows of one run, as blocks side by side


def _samples(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    return [grid_panel(_scenes(run, options).images, title)]


def _order(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    return [order_panel(_scenes(run, options), title)]


def _slots(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    usual = run.model.num_slots
    images, masks = {}, []
    for k in sorted({max(1, usual + more) for more in MORE_SLOTS} | {options.slots or usual}):
        scenes = _scenes(run, replace(options, slots=k))
        name = f"{k} slot{'s' * (k > 1)}{' (as in training)' * (k == usual)}"
        images[name] = scenes.images
        masks.append(list(blend_masks(scenes.masks)))
    if not run.model.has_scene:
        notes.append(f"{run.run_dir.name} has no scene variable: the noise of its slots is equal.")
    return [row_panel(images, title), Panel(masks, "their masks in slot colours")]


def _temperature(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    rows = {
        f"temperature {t:g}": _scenes(run, replace(options, temperature=t)).images
        for t in sorted({*TEMPERATURES, options.temperature})
    }
    return [row_panel(rows, title)]


def _reconstructions(
    run: TrainedRun, options: Options, title: str, notes: list[str]
) -> list[Block]:
    data = run.open_data(options.data)
    _, inputs, made = encode_split(
        run.model, data, options.split, options.num, options.seed, rollout=True
    )
    if made.rollout is None:
        notes.append(f"{run.run_dir.name} infers no scene latent from an image: no rollout.")
    return [reconstruction_panel(inputs, made, _image_title(run, title, data.caption))]


def _segmentation(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    data = run.open_data(options.data)
    indices, inputs, made = encode_split(run.model, data, options.split, options.num, options.seed)
    truth = data.split(options.split).masks_of(indices)
    if truth is None:
        notes.append(f"{data.caption} has no masks: there are no true ones.")
    else:
        grey = "" if data.void_label is None else "; grey is void and counts nowhere"
        notes.append(f"True masks have the colours of the slots that fit them best{grey}.")
    return [
        segmentation_panel(
            inputs, made, truth, _image_title(run, title, data.caption), data.void_label
        )
    ]


def _matching(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    check_matches(run)
    data = run.open_data(options.data)
    data.check_size(run.model.image_size)
    task = SplitTask(run, data, options.split, options.num, options.seed)
    with counting("measuring", len(task.chosen)) as task.advance:
        gaps = matching_gaps(task)
    own = run.recipe.model.order
    notes.append(
        f"{run.run_dir.name}, {len(task.chosen):,} images: nats more than with the order of {own},"
        " its own matching."
    )
    percent = 100 * (np.arange(len(task.chosen)) + 0.5) / len(task.chosen)
    charts: list[Block] = []
    captions = {"kl_slot": f"{_image_title(run, title, data.caption)}: slot KL", "elbo": "-ELBO"}
    for key, caption in captions.items():
        lines = {o: list(zip(percent, np.sort(gaps[key, o]), strict=True)) for o in ORDERS}
        charts.append(Chart(lines, ORDERS, caption, x="% of images, from the smallest difference"))
    return charts


def _failures(run: TrainedRun, options: Options, title: str, notes: list[str]) -> list[Block]:
    # Raters judge scenes with default options; scenes with others are judged by the network.
    slots = None if options.slots == run.model.num_slots else options.slots
    is_default = replace(options, num=0, seed=0, slots=slots) == Options()
    judged = rater_verdicts(run, options.seed) if is_default else None
    if judged is None:
        images = _scenes(run, replace(options, num=JUDGED_SCENES)).images
        judged = network_verdicts(images, run.data_name)
    notes += judged.notes
    count, total = int((judged.scores < 0.5).sum()), len(judged.scores)
    if count == 0:
        notes.append(f"{run.run_dir.name}: none of {total} scenes was judged broken.")
        return []
    worst = np.argsort(judged.scores, kind="stable")[: min(options.num, count)]
    notes.append(f"{run.run_dir.name}: {count} of {total} scenes were judged broken.")
    names = [judged.names[i] for i in worst]
    return [grid_panel(judged.images[worst], title, grid_columns(options.num), names)]


class Verdicts(NamedTuple):
    """Judged scenes.

    Attributes:
        images: [N,H,W,3].
        scores: [N], the share or probability of plausible; below 0.5 a scene is broken.
        names: A line for each scene: its number, from 1, and its verdict.
        notes: Who judged, and what the names mean.
    """

    images: Pixels
    scores: NDArray[np.float64]
    names: list[str]
    notes: list[str]


def network_verdicts(images: Pixels, data: str) -> Verdicts:
    """The verdicts of the network behind the S-Acc estimate on scenes of a data set."""
    plausible = Judge(choose_device()).plausible(images).astype(np.float64)
    names = [f"{i}: {share:.2f}" for i, share in enumerate(plausible.tolist(), start=1)]
    notes = [
        "Judged by the network of the S-Acc estimate.",
        "Below each scene: its number, and the probability that all blocks touch.",
    ]
    if data not in TOWERS:
        notes.append(f"The network was trained on towers of blocks, not on {data}.")
    return Verdicts(images, plausible, names, notes)


def rater_verdicts(run: TrainedRun, seed: int) -> Verdicts | None:
    """The scenes of these weights and this seed that any rater decided on; None without one."""
    scenes = rated_scenes(run.workspace.runs_root / FOLDER, run_subject(run)["model"])
    scenes = [
        scene for scene in scenes if scene.seed == seed and {*scene.verdicts.values()} != {"unsure"}
    ]
    if not scenes:
        return None
    votes = [list(scene.verdicts.values()) for scene in scenes]
    against = np.array([own.count("implausible") for own in votes])
    decided = against + [own.count("plausible") for own in votes]
    raters = len({rater for scene in scenes for rater in scene.verdicts})
    names = [
        f"{scene.index + 1}: {no} of {all_}"
        for scene, no, all_ in zip(scenes, against, decided, strict=True)
    ]
    notes = [
        f"Judged by {raters} rater{'s' * (raters > 1)}.",
        "Below each scene: its number, and how many of those who were sure found it not plausible.",
    ]
    images = np.stack([scene.image for scene in scenes])
    return Verdicts(images, 1 - against / decided, names, notes)


class Kind(NamedTuple):
    """A figure of images: its blocks for one run, title, number of images, and options."""

    blocks: Callable[[TrainedRun, Options, str, list[str]], list[Block]]
    title: str
    num: int
    options: set[str]


DRAWN = {"num", "slots", "temperature", "seed"}
IMAGES = {"num", "seed", "data", "split", "dynamic_slots"}
HOW = "temperature {temperature:g}, seed {seed}"
ORDERS = [*MATCHINGS, "random"]
IMAGE_FIGURES = {
    "samples": Kind(_samples, f"Random scenes, {HOW}", 18, DRAWN | {"rows"}),
    "order": Kind(_order, f"Random scenes and their slots in generation order, {HOW}", 6, DRAWN),
    "slots": Kind(_slots, f"The same scene latents with fewer and more slots, {HOW}", 7, DRAWN),
    "temperature": Kind(
        _temperature, "The same noise at several temperatures, seed {seed}", 10, DRAWN
    ),
    "reconstructions": Kind(
        _reconstructions, "Images of the {split} split, reconstructed", 10, IMAGES
    ),
    "segmentation": Kind(_segmentation, "Images of the {split} split, segmented", 4, IMAGES),
    "matching": Kind(
        _matching,
        "What an order of the slots costs, images of the {split} split",
        320,
        IMAGES - {"dynamic_slots"},
    ),
    "failures": Kind(_failures, f"Random scenes judged broken, {HOW}", 18, DRAWN),
}


def _image_figure(
    name: str, runs: Sequence[TrainedRun], options: Options, notes: list[str]
) -> tuple[Rows, str]:
    """Rows of blocks and the title; too many for a page is an error before any is drawn."""
    kind = IMAGE_FIGURES[name]
    if options.rows:
        return [[_row_of_each(runs, options)]], kind.title.format(**vars(options))
    side = max(run.model.image_size for run in runs)
    slots = options.slots or max(run.model.num_slots for run in runs)
    columns, rows = _shape(name, options.num, slots)
    beside = max(1, images_that_fit(side)[0] // columns)
    sets = len({run.caption for run in runs}) if name == "samples" else 1
    down = len(_by_data(runs, runs)) if sets > 1 else len(flowed([[]] * len(runs), beside))
    check_page(side, columns * sets, rows * down)

    titles, shared = titles_of(runs)
    blocks = [
        kind.blocks(run, options, title, notes) for run, title in zip(runs, titles, strict=True)
    ]
    notes[:] = dict.fromkeys(notes)
    title = "; ".join([kind.title.format(**vars(options)), *shared])
    if sets > 1:
        return _by_data(runs, [block for (block,) in blocks]), title
    blocks = [own for own in blocks if own]
    if not blocks:
        raise SriError(f"no scene was judged broken; {notes[-1]}", "try another --seed")
    if name == "matching":
        return [[Legend(ORDERS)], *blocks], title
    return flowed(blocks, beside), title


def _settings(name: str, runs: Sequence[TrainedRun], options: Options) -> dict[str, Any]:
    """What decides a figure of images, for its record."""
    used, settings = IMAGE_FIGURES[name].options, asdict(options)
    settings = {k: v for k, v in settings.items() if k in used}
    if not options.rows:  # as it was recorded before there were rows
        settings.pop("rows", None)
    if "slots" in used:
        settings["slots"] = slots_of(runs, options.slots)
    if "data" in used:
        files = [run.open_data(options.data) for run in runs]
        settings["data"] = [{"name": one.name, "sha256": str(one.attrs["sha256"])} for one in files]
    return settings


def _shape(name: str, num: int, slots: int) -> tuple[int, int]:
    """How many images a figure shows of one run, across and down."""
    if name in ("samples", "failures"):
        return grid_columns(num), math.ceil(num / grid_columns(num))
    return {
        "order": (2 + slots, num),
        "slots": (2 * num + 1, len(MORE_SLOTS) + 1),
        "temperature": (num, len(TEMPERATURES) + 1),
        "reconstructions": (num, 5),
        "segmentation": (5 + slots, num),
        "matching": (8, 4),
    }[name]


def _row_of_each(runs: Sequence[TrainedRun], options: Options) -> Panel:
    """A row of scenes for each run, enlarged to the size of the largest."""
    sides = [run.model.image_size for run in runs]
    side = max(sides)
    if any(side % own for own in sides):
        listed = ", ".join(f"{own} px" for own in sorted(set(sides)))
        raise SriError(f"--rows: images of {listed} have no common size", "leave --rows out")
    check_page(side, options.num, len(runs))
    cells = [
        list(enlarge(_scenes(run, options).images, side // own))
        for run, own in zip(runs, sides, strict=True)
    ]
    names = [SHIPPED.get(run.run_dir.name, run.run_dir).name for run in runs]
    if len({*names}) < len(names):
        names = [f"{run.run_dir.parent.name}/{run.run_dir.name}, step {run.step:,}" for run in runs]
    return Panel(cells, rows=names)


def _by_data(runs: Sequence[TrainedRun], blocks: Sequence[T]) -> list[list[T | None]]:
    """A row for each system and a column for each data set; a second run of both has a new row."""
    data = list(dict.fromkeys(run.caption for run in runs))
    rows: list[tuple[str, list[T | None]]] = []
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
    slots = options.slots or run.model.num_slots
    label = f"drawing {run.run_dir.name}"
    return draw_scenes(run.model, options.num, slots, options.temperature, options.seed, label)


def _image_title(run: TrainedRun, title: str, data: str) -> str:
    """The title of a run; with the data set of the images, if the run was trained on another."""
    return title + ("" if data == run.caption else f"; images of {data}")


# Figures of logs and measurements


def _curves(runs: Sequence[TrainedRun]) -> tuple[Rows, str]:
    names = [title_of(run, step=False) for run in runs]
    logs = [
        training_log(run, name if names.count(name) == 1 else f"{name}; {run.run_dir}")
        for run, name in zip(runs, names, strict=True)
    ]
    for run, log in zip(runs, logs, strict=True):
        if not log.records:
            raise SriError(
                f"{run.run_dir} has no log of its training",
                f"name runs with a {LOG_NAME} (an imported one has none)",
            )
    legend, charts = training_charts(logs)
    starts = range(0, len(charts), CURVES_ACROSS)
    rows: list[Sequence[Block]] = [charts[i : i + CURVES_ACROSS] for i in starts]
    if len(logs) == 1:
        return rows, f"Training of {logs[0].name}"
    return [[legend], *rows], "Training"


def _table(runs: Sequence[TrainedRun]) -> tuple[Rows, str]:
    """Everything that was measured of the runs, in the paper's tables; our rows are marked."""
    known = [measurement for run in runs for measurement in recorded(run)]
    if not known:
        name = runs[0].run_dir
        command = shlex.join(["sri", "eval", "--run", run_argument(name)])
        raise SriError(f"nothing has been measured of {name}", command)
    rows = []
    for table in paper_tables(known):
        ours = (i for i, row in enumerate(table.rows) if i and row[1].startswith("measured"))
        rows.append([table._replace(marked=frozenset(ours))])
    return rows, ""


def _factor(scale: str, side: int | None = None) -> float:
    """4x -> 4; 256 -> as many times as images of `side` pixels become 256 pixels wide."""
    try:
        factor = float(scale.removesuffix("x"))
        if not scale.endswith("x"):
            factor = int(scale) / cell_side(side or 0)
    except (ValueError, ZeroDivisionError):
        factor = 0.0
    if not MIN_FACTOR <= factor <= MAX_FACTOR:
        raise SriError(
            f"--scale {scale}: neither a factor nor the side of an image in pixels",
            f"a factor from {MIN_FACTOR}x to {MAX_FACTOR}x, or --scale 256 for a figure of images",
        )
    return factor
