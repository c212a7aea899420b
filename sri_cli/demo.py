"""`sri demo`: prepare, train, sample, evaluate and report, on a small data set."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sri_cli.config.load import load_recipe
from sri_cli.console import print_line
from sri_cli.cores import Threads
from sri_cli.data.dataset import DataFile
from sri_cli.data.prepare import OtherSettings, prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.choose import simulated
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import MAX_ORDER_SCENES, evaluate_run
from sri_cli.metrics.image_metrics import ImageMetrics
from sri_cli.metrics.images import real_images
from sri_cli.metrics.order import order_consistency
from sri_cli.metrics.records import (
    COUNTS,
    METRICS,
    Context,
    Estimate,
    Measurement,
    data_facts,
    read_records,
)
from sri_cli.metrics.tables import COLUMNS, estimate
from sri_cli.plotting.from_runs import figure_of_runs, order_of_run
from sri_cli.plotting.report import NAME, make_subjects, write_report
from sri_cli.plotting.samples import write_samples
from sri_cli.run import SHIPPED, Workspace
from sri_cli.signals import this_command
from sri_cli.training.run_folder import RunChanged
from sri_cli.training.trainer import train

RECIPE, RUN = "sri-2", "demo"
MODEL = "pretrained"  # the shipped one that it is compared with
SIZE, STEPS = "size=tiny", 6000
SAMPLES, TEMPERATURE = 64, 0.7
ORDER_SCENES = 100
PARTS = 6
COMPARED = {"stack_fd": "stack-fd", "sacc_estimate": "sacc-estimate", "order_information": "order"}
COMPARISON = (
    "stack-FD is a distance from the test images (lower is better), the S-Acc estimate the share of"
    " plausible stacks, order MI how much of an image the slot's number tells (0: no order). Real"
    " images are of the training split, the order of their objects is from the bottom up."
    " A size beside the shipped model: its values are of its own test images, of that size."
)


@dataclass(frozen=True)
class Demo:
    """The results: `samples` is a folder, `comparison` a table with its header."""

    run: TrainedRun
    samples: Path
    comparison: list[list[str]]
    report: Path
    seconds: float


def run_demo(
    out: Path, steps: int = STEPS, scenes: int | None = None, threads: Threads | None = None
) -> Demo:
    """Run the whole demo in the folder `out`, or resume it there.

    Args:
        steps: Training steps. Few of them train a poor model.
        scenes: Training scenarios, by default the preset's.
        threads: CPU threads of the training and of what follows.

    Raises:
        SriError: for too few scenes or steps, or an `out` that was made with other numbers.
    """
    began = time.monotonic()
    workspace = Workspace(out / "data", out / "runs")
    command = this_command()
    towers = simulated("demo-towers", Options(scenes=scenes))
    path = workspace.data_path(towers.header.name, towers.header.size)
    recipe = load_recipe(RECIPE, towers.header.name, [SIZE, f"train.steps={steps}"])
    run_dir = workspace.run_dir(RUN)
    images, batch = towers.scenes["train"] * towers.views, recipe.train.batch
    if images < batch:
        raise SriError(
            f"--scenes {scenes}: {images} training images are fewer than a batch of {batch}",
            f"use --scenes {math.ceil(batch / towers.views)}",
        )
    try:
        announce(1, "simulating towers of blocks")
        data = prepare(towers, path, command=command).data
        announce(2, f"training {RECIPE} at {recipe.model.image_size} px")
        train(recipe, data, run_dir, command=command, threads=threads)
    except (OtherSettings, RunChanged) as error:
        raise SriError(error.message, "start in another folder: sri demo --out DIR") from error
    run = open_run(workspace, str(run_dir))
    announce(3, "sampling scenes")
    samples = write_samples(run, num=SAMPLES, temperature=TEMPERATURE)
    announce(4, "drawing the order of slots")
    order_of_run(run, num=ORDER_SCENES)
    announce(5, "reconstructing test images")
    figure_of_runs(workspace, "reconstructions", [str(run_dir)])
    announce(6, "measuring, also real images and the shipped model")
    rows = compare(run, data)
    report = write_report(
        workspace,
        make_subjects([run]),
        out / NAME,
        comparison={
            "title": "Beside real images and the shipped model",
            "text": COMPARISON,
            "tables": [{"header": rows[0], "rows": rows[1:]}],
        },
    )
    return Demo(run, samples, rows, report, time.monotonic() - began)


def compare(run: TrainedRun, data: DataFile) -> list[list[str]]:
    """Measure the run, and real images and the shipped model likewise: a row each, and a header.

    With fewer test images than stack-FD needs, all are measured on as many images as there are. The
    values of the shipped model are those recorded, of another image size, on its own test images.
    """
    few = data.counts["test"] < COUNTS["stack-fd"] // 2
    num = data.counts["test"] if few else None
    networks = ImageMetrics(run.workspace)
    measured = evaluate_run(run, [*METRICS, *COMPARED.values()], num=num, networks=networks)
    own = {m["metric"]: m for m in measured}
    model = open_run(run.workspace, MODEL)
    shipped = {m["metric"]: m for m in read_records(SHIPPED[MODEL])}
    subjects = {
        f"{run.run_dir.name}, step {run.step:,}": own,
        f"shipped model, {model.model.image_size} px, step {model.step:,}": shipped,
        "real images": measure_real(data, networks, num),
    }
    header = [COLUMNS[key][0] for key in COMPARED]

    def cell(m: dict[str, Measurement], key: str) -> str:
        value = estimate([m[key]] if key in m else [], key)
        # Of fewer images than the shipped model's: stack-FD is named with its counts.
        return f"{value} ({m[key]['name']})" if few and key == "stack_fd" and key in m else value

    rows = [[name, *(cell(m, key) for key in COMPARED)] for name, m in subjects.items()]
    return [["", *header], *rows]


def measure_real(data: DataFile, networks: ImageMetrics, num: int | None) -> dict[str, Measurement]:
    """The measures that are compared, of images of the training split and of their true masks."""
    split = data.split("train")
    context = Context({"kind": "images", "images": str(data.path)}, data_facts(data, "test"), 0)
    measured = {}
    for key, metric in COMPARED.items():
        if metric in COUNTS:
            some = real_images(data, "train", num or COUNTS[metric], networks.reference_dir)
            measured[key] = networks.measure(metric, some, data, context, num)[0]
    labels = split.masks_of(split.pick(min(num or MAX_ORDER_SCENES, MAX_ORDER_SCENES)))
    assert labels is not None  # simulated
    masks = labels[:, None] == np.arange(labels.max() + 1)[:, None, None]
    found = order_consistency(masks.astype(np.float32))["mutual_information"]
    measured["order_information"] = context.measurement(
        "order_information",
        "order MI",
        Estimate(found["value"], found["low"], found["high"]),
        counts={"scenes": len(masks)},
        protocol="true masks, from the bottom up",
    )
    return measured


def announce(part: int, text: str) -> None:
    """Print the heading of a part to stderr."""
    print_line(f"[{part}/{PARTS}] {text}")
