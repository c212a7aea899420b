"""`sri order`: the order figure of new scenes and their order consistency.

Axis legend: N scenes, K slots, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.atomic import write_atomic
from sri_cli.console import counting
from sri_cli.errors import SriError
from sri_cli.generation.sample import check_request, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics import order
from sri_cli.metrics.table import estimate_words
from sri_cli.plotting.grid import Picture, png_bytes
from sri_cli.plotting.order import order_figure
from sri_cli.run import Workspace

DRAWN_SCENES = 8
MAX_SCENES = 1024  # every pair of them is compared


@dataclass(frozen=True)
class OrderResult:
    """The figure, and the record that `--json` prints."""

    figure: Picture
    record: dict[str, Any]


def look_at_order(
    trained: TrainedRun, num: int = 100, seed: int = 0, temperature: float = 1.0
) -> OrderResult:
    """Score `num` random scenes with the training number of slots, and draw the first few."""
    slots = trained.model.num_slots
    check_request(num, slots, temperature, seed)
    check_num(num)
    images: list[Picture] = []
    rgb: list[Picture] = []
    masks: list[np.ndarray] = []
    with counting("sampling", num) as advance:
        for scene in sample_scenes(trained.model, num, slots, temperature, seed):
            masks.append(scene.masks[:, :, 0].cpu().numpy())
            if sum(len(chunk) for chunk in images) < DRAWN_SCENES:
                images.append(quantise(scene.image))
                rgb.append(quantise(scene.rgb))
            advance(len(masks[-1]))
    record = {
        "run": str(trained.run_dir),
        "step": trained.step,
        "trained_on": trained.caption,
        "seed": seed,
        "temperature": temperature,
    } | order.report(np.concatenate(masks), seed)
    figure = order_figure(
        np.concatenate(images)[:DRAWN_SCENES],
        np.concatenate(rgb)[:DRAWN_SCENES],
        np.concatenate(masks)[: min(DRAWN_SCENES, num)],
        f"{trained.title}: random scenes and their slots in generation order",
    )
    return OrderResult(figure, record)


def write_order(
    trained: TrainedRun, out: Path | None = None, num: int = 100, seed: int = 0
) -> dict[str, Any]:
    """Write the figure to `out` (None: the run's figures/order.png); the record, with its path."""
    result = look_at_order(trained, num, seed)
    path = out or trained.run_dir / "figures" / "order.png"
    write_atomic(path, png_bytes(result.figure))
    return result.record | {"figure": str(path)}


def order_of_run(
    workspace: Workspace, run: str | None, num: int, seed: int, out: Path | None
) -> dict[str, Any]:
    """`write_order` for a run (None: the latest)."""
    check_num(num)
    return write_order(open_run(workspace, run), out, num, seed)


def check_num(num: int) -> None:
    """SriError unless there are scenes to compare, and not too many."""
    if not order.MIN_SCENES <= num <= MAX_SCENES:
        raise SriError(
            f"--num {num}: order is compared between {order.MIN_SCENES} to {MAX_SCENES} scenes",
            "--num 100",
        )


def words(record: dict[str, Any]) -> str:
    """The scores in lines for people."""
    lines = [f"order consistency over {record['scenes']} random scenes, {record['slots']} slots"]
    names = {"iou_over_chance": "IoU over chance", "mutual_information": "mutual information"}
    for key, name in names.items():
        values = [estimate_words(**record[which][key]) for which in ("model", "shuffled")]
        lines.append(f"{name:<20}{values[0]}   slots shuffled: {values[1]}")
    return "\n".join([*lines, f"look: {record['figure']}"])
