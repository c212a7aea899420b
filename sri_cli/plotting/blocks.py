"""Arrays and training logs to the blocks of figures: scenes, slots in order, test images, curves.

Axis legend: N scenes or images, K slots, H W pixels. Masks are float and sum to 1 over K; images
are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sri_cli.data.dataset import DataFile
from sri_cli.generation.encode import Encoding
from sri_cli.generation.sample import Scenes, quantise
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.plotting.figures import Chart, Legend, Panel, Points, images_that_fit
from sri_cli.plotting.images import Pixels, blend_masks, slot_colours
from sri_cli.run import LOG_NAME
from sri_cli.training.log import read_log

Masks = NDArray[np.floating]

SHEET_COLUMNS = 8
BACKGROUND_GREYS = 170, 240  # lighter than the grey among the slot colours
VOID_GREY = 128


def grid_panel(
    images: Pixels, caption: str = "", columns: int | None = None, names: Sequence[str] = ()
) -> Panel:
    """Scenes [N,H,W,3] row by row, twice as wide as high; `names` are written below them."""
    columns = columns or grid_columns(len(images))
    starts = range(0, len(images), columns)
    cells = [list(images[i : i + columns]) for i in starts]
    return Panel(cells, caption, names=[names[i : i + columns] for i in starts] if names else ())


def grid_columns(num: int) -> int:
    """Columns of a grid of `num` images that is twice as wide as high, its last row nearly full."""
    rows = math.ceil(num / math.ceil(math.sqrt(2 * num)))
    return math.ceil(num / rows)


def row_panel(rows: Mapping[str, Pixels], caption: str = "") -> Panel:
    """Named rows of as many images [N,H,W,3] each."""
    return Panel([list(images) for images in rows.values()], caption, list(rows))


def order_panel(scenes: Scenes, caption: str = "", most: int | None = None) -> Panel:
    """A row for each scene (`most`: the first of them): image, masks in slot colours, what each
    slot adds, in order."""
    columns = {"image": scenes.images[:most], "masks": blend_masks(scenes.masks[:most])}
    return _slot_panel(columns, scenes.rgb[:most], scenes.masks[:most], caption)


def segmentation_panel(
    inputs: Pixels,
    made: Encoding,
    truth: NDArray[np.uint8] | None,
    caption: str = "",
    void_label: int | None = None,
) -> Panel:
    """A row for each image: input, attention, decoded and true masks, reconstruction, slots.

    True masks are labels [N,H,W], `void_label` is grey; None leaves them out.
    """
    masks = made.masks.numpy()
    columns = {
        "input": inputs,
        "attention masks": blend_masks(made.attention.numpy()),
        "decoded masks": blend_masks(masks),
    }
    if truth is not None:
        pairs = zip(truth, masks, strict=True)
        columns["true masks"] = np.stack([label_colours(*pair, void_label) for pair in pairs])
    columns["reconstruction"] = quantise(made.image)
    return _slot_panel(columns, quantise(made.rgb), masks, caption)


def reconstruction_panel(inputs: Pixels, made: Encoding, caption: str = "") -> Panel:
    """A column for each image, from the input to the rollout of the slot prior, if there is one."""
    rows = {
        "input": inputs,
        "attention masks": blend_masks(made.attention.numpy()),
        "reconstruction": quantise(made.image),
        "decoded masks": blend_masks(made.masks.numpy()),
    }
    if made.rollout is not None:
        rows["prior rollout"] = quantise(made.rollout)
    return row_panel(rows, caption)


def _slot_panel(columns: Mapping[str, Pixels], rgb: Pixels, masks: Masks, caption: str) -> Panel:
    """Columns of whole images, then one for each slot."""
    parts, slots = contributions(rgb, masks), range(masks.shape[1])
    rows = zip(*columns.values(), parts, strict=True)
    return Panel(
        [[*whole, *part] for *whole, part in rows],
        caption,
        columns=[*columns, *(str(k + 1) for k in slots)],
        slots=[*(() for _ in columns), *((k,) for k in slots)],
        breaks=frozenset({len(columns)}),
    )


def contributions(rgb: Pixels, masks: Masks) -> Pixels:
    """What each slot adds to the scene, on white: mask * rgb + (1 - mask) * 255, [N,K,H,W,3]."""
    weight = masks[..., None].astype(np.float32)
    return np.rint(255 + weight * (rgb.astype(np.float32) - 255)).clip(0, 255).astype(np.uint8)


def label_colours(truth: NDArray[np.uint8], masks: Masks, void_label: int | None = None) -> Pixels:
    """True labels [H,W], each in the colour of the slot whose mask fits it best, [H,W,3].

    The labels and slots of masks [K,H,W] are matched one to one by their IoU; labels left over
    have colours of no slot, and `void_label` is grey.
    """
    present = np.setdiff1d(truth, [] if void_label is None else [void_label])
    inside = truth == present[:, None, None]
    slots = (masks.argmax(axis=0) == np.arange(len(masks))[:, None, None]) & inside.any(axis=0)
    both = (inside[:, None] & slots).sum(axis=(2, 3))
    either = (inside[:, None] | slots).sum(axis=(2, 3))
    labels, matched = linear_sum_assignment(both / np.maximum(either, 1), maximize=True)
    index = len(masks) + np.arange(len(present))
    index[labels] = matched
    colours = np.full((256, 3), VOID_GREY, np.uint8)
    colours[present] = slot_colours(len(masks) + len(present))[index]
    return colours[truth]


# Contact sheets of data sets


def contact_panel(data: DataFile, num: int, columns: int = SHEET_COLUMNS) -> tuple[Panel, str]:
    """`num` images of a data file, each above its masks if they are known; and what they are.

    At most `columns` in a row, as far as a page is wide.
    """
    name = (data.masked or data.splits)[0]
    nouns = {"train": "training images", "val": "validation images", "test": "test images"}
    split = data.split(name)
    picked = split.pick(num)
    parts, masks = [split.images[picked]], split.masks_of(picked)
    if masks is not None:
        parts.append(flat_labels(masks, data.background_labels, data.void_label))
    columns = min(columns, images_that_fit(data.size)[0])
    starts = range(0, len(picked), columns)
    rows = [list(part[i : i + columns]) for i in starts for part in parts]
    return Panel(rows, together=len(parts)), f"{len(picked)} {nouns[name]}"


def flat_labels(
    masks: NDArray[np.uint8], background_labels: int, void_label: int | None = None
) -> Pixels:
    """Labels [N,H,W] as colours [N,H,W,3]: objects in slot colours, background labels in light
    greys, the void in its own."""
    background = np.linspace(*BACKGROUND_GREYS, max(1, background_labels)).astype(np.uint8)
    colours = np.full((256, 3), 255, np.uint8)
    colours[:background_labels] = background[:background_labels, None]
    colours[background_labels:] = slot_colours(256 - background_labels)
    if void_label is not None:
        colours[void_label] = VOID_GREY
    return colours[masks]


# Training curves

STAGE = "segregation"  # has an objective of its own beside the model's
# Caption, quantity in the log (with / at its end: of the model's own objective), log scale?
QUANTITIES = (
    ("error", "error_per_element/", False),
    (f"error of {STAGE}", f"error_per_element/{STAGE}", False),
    ("KL, nats", "kl/", True),
    (f"KL of {STAGE}, nats", f"kl/{STAGE}", True),
    ("KL of the scene, nats", "kl_scene", True),
    ("KL of the slots, nats", "kl_slot", True),
    ("cross-order KL, nats", "kl_cross_order", True),
    ("KL of masks, nats", "kl_mask", True),
    ("KL of components, nats", "kl_component", True),
    ("weight of the KL (beta)", "beta/", True),
    (f"weight of the KL of {STAGE} (beta)", f"beta/{STAGE}", True),
)


class TrainingLog(NamedTuple):
    """The log of a run: its name in the legend, the target of GECO (None: no GECO), records oldest
    first.

    `normalised`: the error includes the constant of the likelihood, and is in nats per dimension.
    """

    name: str
    normalised: bool
    target: float | None
    records: list[dict[str, Any]]


def training_log(run: TrainedRun, name: str) -> TrainingLog:
    """The log of a run; an imported run has no records."""
    records = read_log(run.run_dir / LOG_NAME)
    return TrainingLog(name, run.recipe.model.normalised, run.recipe.train.geco_target, records)


def training_charts(logs: Sequence[TrainingLog]) -> tuple[Legend, list[Chart]]:
    """A legend, and a chart of each quantity that some run has.

    Errors with and without the constant of the likelihood differ widely, and have separate charts.
    """
    keys = [log.name for log in logs]
    charts = []
    for caption, quantity, log_y in QUANTITIES:
        lines = {log.name: line for log in logs if (line := _line(log, quantity))}
        if not quantity.startswith("error"):
            charts += [Chart(lines, keys, caption, (), log_y)] * bool(lines)
            continue
        for normalised in (True, False):
            own = [log for log in logs if log.name in lines and log.normalised == normalised]
            if own:
                targets = sorted({log.target for log in own if log.target is not None})
                unit = ", nats/dim" if normalised else " without constant"
                levels = ", ".join(f"{t:g}" for t in targets)
                text = f"{caption}{unit}" + (f" (target {levels})" if targets else "")
                charts.append(
                    Chart({log.name: lines[log.name] for log in own}, keys, text, targets)
                )
    return Legend(keys), charts


def _line(log: TrainingLog, quantity: str) -> Points:
    """(step, value) of a quantity; empty for a run without it."""
    names = {name for record in log.records for name in record}
    if quantity.endswith("/"):
        own = {name for name in names if name.startswith(quantity)} - {quantity + STAGE}
        quantity = min(own, default=quantity)
    return [(r["step"], r.get(quantity)) for r in log.records] if quantity in names else []
