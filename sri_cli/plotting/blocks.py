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

from sri_cli.plotting.figures import Block, Chart, Legend, Panel, Points
from sri_cli.plotting.grid import Pixels
from sri_cli.plotting.palette import blend_masks, slot_colours

Masks = NDArray[np.floating]


def grid_panel(
    images: Pixels, caption: str = "", columns: int | None = None, names: Sequence[str] = ()
) -> Panel:
    """Scenes [N,H,W,3] row by row, twice as wide as high; `names` stand below them."""
    columns = columns or math.ceil(math.sqrt(2 * len(images)))
    starts = range(0, len(images), columns)
    cells = [list(images[i : i + columns]) for i in starts]
    return Panel(cells, caption, names=[names[i : i + columns] for i in starts] if names else ())


def row_panel(rows: Mapping[str, Pixels], caption: str = "") -> Panel:
    """Named rows of as many images [N,H,W,3] each."""
    return Panel([list(images) for images in rows.values()], caption, list(rows))


def order_panel(images: Pixels, rgb: Pixels, masks: Masks, caption: str = "") -> Panel:
    """A row for each scene: image, masks in slot colours, what each slot adds, in order.

    Args:
        images: [N,H,W,3].
        rgb: What each slot shows, [N,K,H,W,3].
        masks: [N,K,H,W].
        caption: Stands above.
    """
    return _slot_panel({"image": images, "masks": blend_masks(masks)}, rgb, masks, caption)


def segmentation_panel(
    inputs: Pixels,
    attention: Masks,
    reconstructed: Pixels,
    rgb: Pixels,
    masks: Masks,
    truth: NDArray[np.uint8] | None,
    caption: str = "",
) -> Panel:
    """A row for each image: input, attention, decoded and true masks, reconstruction, slots.

    Args:
        inputs: [N,H,W,3].
        attention: [N,K,H,W].
        reconstructed: [N,H,W,3].
        rgb: What each slot shows, [N,K,H,W,3].
        masks: The decoded masks, [N,K,H,W].
        truth: Labels [N,H,W]; None leaves them out.
        caption: Stands above.
    """
    columns = {
        "input": inputs,
        "attention masks": blend_masks(attention),
        "decoded masks": blend_masks(masks),
    }
    if truth is not None:
        pairs = zip(truth, masks, strict=True)
        columns["true masks"] = np.stack([label_colours(*pair) for pair in pairs])
    return _slot_panel(columns | {"reconstruction": reconstructed}, rgb, masks, caption)


def reconstruction_panel(
    inputs: Pixels,
    attention: Masks,
    reconstructed: Pixels,
    masks: Masks,
    rollout: Pixels | None,
    caption: str = "",
) -> Panel:
    """A column for each image, from the input to the rollout of the slot prior.

    Images are [N,H,W,3], masks [N,K,H,W]; a `rollout` of None is left out.
    """
    rows = {
        "input": inputs,
        "attention masks": blend_masks(attention),
        "reconstruction": reconstructed,
        "decoded masks": blend_masks(masks),
    }
    return row_panel(rows if rollout is None else rows | {"prior rollout": rollout}, caption)


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


def label_colours(truth: NDArray[np.uint8], masks: Masks) -> Pixels:
    """True labels [H,W], each in the colour of the slot whose mask fits it best, [H,W,3].

    The labels and slots of masks [K,H,W] are matched one to one by their IoU; labels left over
    have colours of no slot.
    """
    present = np.unique(truth)
    inside = truth == present[:, None, None]
    slots = masks.argmax(axis=0) == np.arange(len(masks))[:, None, None]
    both = (inside[:, None] & slots).sum(axis=(2, 3))
    either = (inside[:, None] | slots).sum(axis=(2, 3))
    labels, matched = linear_sum_assignment(both / np.maximum(either, 1), maximize=True)
    index = len(masks) + np.arange(len(present))
    index[labels] = matched
    colours: Pixels = slot_colours(int(index.max()) + 1)[index][np.searchsorted(present, truth)]
    return colours


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
    """The log of a run: its name in the legend, the target of GECO, records oldest first.

    `normalised`: the error counts the constant of the likelihood, and is in nats per dimension.
    """

    name: str
    normalised: bool
    target: float
    records: list[dict[str, Any]]


def training_charts(logs: Sequence[TrainingLog]) -> tuple[Legend, list[Chart]]:
    """A legend, and a chart of each quantity that some run has.

    Errors with and without the constant of the likelihood lie far apart, and have charts of
    their own.
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
                targets = sorted({log.target for log in own})
                unit = ", nats/dim" if normalised else " without constant"
                text = f"{caption}{unit} (target {', '.join(f'{t:g}' for t in targets)})"
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


def curve_rows(logs: Sequence[TrainingLog], across: int = 3) -> list[Sequence[Block | None]]:
    """The rows of a figure of training curves; one run needs no legend."""
    legend, charts = training_charts(logs)
    rows: list[Sequence[Block | None]] = [[legend]] if len(logs) > 1 else []
    return rows + [charts[i : i + across] for i in range(0, len(charts), across)]
