"""The demo's report: what it made, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sri_cli.data.store import DataFile
from sri_cli.figures.curves import curve_picture
from sri_cli.figures.grids import Picture, grid
from sri_cli.figures.report import Figure, Page, Section, Table, render
from sri_cli.looking.trained import Trained
from sri_cli.metrics.record import Measurement
from sri_cli.metrics.table import footnotes, table_rows
from sri_cli.precision import cpu_model
from sri_cli.progress import duration
from sri_cli.recipe.load import recipe_to_yaml
from sri_cli.training.log import read_log
from sri_cli.training.plan import Plan

SAMPLES, TEMPERATURE = 64, 0.7
SHEET_IMAGES, SHEET_COLUMNS = 40, 10
SHEET_PX = 64


@dataclass(frozen=True)
class Shown:
    """Everything that the report shows."""

    plan: Plan
    data: DataFile
    trained: Trained
    samples: Path  # folder
    order: dict[str, Any]
    reconstructions: Path
    scores: Sequence[Measurement]
    recognisable: int  # of SAMPLES
    seconds: float
    commands: Sequence[str]


def demo_page(shown: Shown) -> str:
    """The report as HTML."""
    trained, recipe = shown.trained, shown.plan.recipe
    page = Page(
        title="From nothing to new scenes",
        lead=(
            f"sri demo simulated towers of blocks, trained {recipe.name} on them and let it draw"
            f" scenes of its own. All pictures here are of {shown.data.caption}."
        ),
        facts=[
            ("training steps", f"{trained.loaded.step:,}"),
            ("training images", f"{shown.data.counts['train']:,}"),
            ("image size", f"{shown.data.size} px"),
            ("slots", str(recipe.model.slots)),
            ("parameters", f"{parameters(trained.loaded.model):,}"),
            ("this run of the demo took", duration(shown.seconds)),
            ("recognisable objects", f"{shown.recognisable} of {SAMPLES} samples"),
            ("processor", cpu_model()),
        ],
        sections=[
            _samples(shown),
            _order(shown),
            _reconstructions(shown),
            _measurements(shown),
            _training(shown),
            _data(shown),
            Section("Recipe", "Every value of this run.", code=recipe_to_yaml(recipe)),
            Section(
                "Do it yourself",
                "The same step by step; sri demo again goes on where it stopped.",
                code="\n".join(shown.commands),
            ),
        ],
    )
    return render(page)


def read_picture(path: Path) -> Picture:
    """A PNG as uint8 [H,W,3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def parameters(model: Any) -> int:
    """How many numbers were learned."""
    return sum(p.numel() for p in model.parameters())


def _samples(shown: Shown) -> Section:
    figure = Figure(
        read_picture(shown.samples / "grid.png"),
        f"{SAMPLES} new scenes at temperature {TEMPERATURE:g}; trained on {shown.data.caption}.",
        "A grid of generated scenes",
    )
    words = (
        f"Drawn by the model, slot after slot. {shown.recognisable} of {SAMPLES} show a"
        " recognisable object: one connected coloured region that reaches the ground and covers"
        " 3 to 40 % of the picture."
    )
    return Section("Samples", words, [figure])


def _order(shown: Shown) -> Section:
    figure = Figure(
        read_picture(Path(shown.order["figure"])),
        "Each row a random scene: the image, its masks in slot colours, and what each slot adds, "
        "in generation order.",
        "Random scenes taken apart into slots",
    )
    words = "Where a slot draws the same kind of thing in every scene, the model has an order."
    return Section("The order of slots", words, [figure])


def _reconstructions(shown: Shown) -> Section:
    figure = Figure(
        read_picture(shown.reconstructions),
        f"Test images of {shown.data.caption}. The last row is imagined from the scene variable.",
        "Inputs, segregation masks, reconstructions, decoded masks and imagination rollouts",
    )
    return Section("Test images as the model sees them", figures=[figure])


def _measurements(shown: Shown) -> Section:
    _, *rows = table_rows(shown.scores)
    table = Table(["measure", "value"], rows, ". ".join(map(str.strip, footnotes(shown.scores))))
    return Section("Measurements", tables=[table])


def _training(shown: Shown) -> Section:
    records = read_log(shown.plan.run_dir)
    goal = shown.plan.recipe.train.geco_target
    charts = [
        ("error, nats per pixel and channel", "error_per_element/", goal, False),
        ("KL, nats per image", "kl/", None, True),
        ("weight of the KL (beta)", "beta/", None, True),
        ("images per second", "images_per_second", None, False),
    ]
    figures = [
        Figure(curve_picture(series(records, key), title, goal=goal, log_y=log), "", title)
        for title, key, goal, log in charts
    ]
    words = "GECO holds the error at its goal while the KL falls; each stage has its own weight."
    return Section("Training", words, figures)


def series(records: Sequence[dict[str, Any]], key: str) -> dict[str, list[tuple[float, Any]]]:
    """The log's values under `key` (a name, or a prefix ending in /), one line per name."""
    names = [n for n in dict.fromkeys(n for r in records for n in r) if n.startswith(key)]
    return {name.removeprefix(key): [(r["step"], r.get(name)) for r in records] for name in names}


def _data(shown: Shown) -> Section:
    split = shown.data.split("train")
    scale = max(1, SHEET_PX // shown.data.size)
    sheet = grid(split.images[split.pick(SHEET_IMAGES)], SHEET_COLUMNS, scale=scale)
    figure = Figure(
        sheet,
        f"{shown.data.caption}: training images made by the simulator, not photographs.",
        "A contact sheet of training images",
    )
    return Section("Data", figures=[figure])
