"""`sri demo`: prepare, train, sample, evaluate and report, on a small data set."""

from __future__ import annotations

import math
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sri_cli.console import duration
from sri_cli.data.prepare import OtherSettings, prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.choose import simulated
from sri_cli.device import cpu_model
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import METRICS, evaluate_run
from sri_cli.metrics.images import open_folder
from sri_cli.metrics.stack_classifiers.classifiers import open_judge
from sri_cli.plotting.from_runs import figure_of_runs, order_of_run
from sri_cli.plotting.report import NAME, make_subjects, write_report
from sri_cli.plotting.samples import write_samples
from sri_cli.run import Workspace
from sri_cli.training.run_folder import RunChanged, resolve_run
from sri_cli.training.trainer import train

RECIPE, RUN = "sri-g", "demo"
SETTINGS = ["size=tiny"]
SAMPLES, TEMPERATURE = 64, 0.7
ORDER_SCENES = 100
PARTS = 6


@dataclass(frozen=True)
class Demo:
    """The results. `samples` is a folder, `sacc_estimate` that of the samples, in [0,1]."""

    run: TrainedRun
    samples: Path
    sacc_estimate: float
    report: Path
    seconds: float


def run_demo(out: Path, steps: int | None = None, scenes: int | None = None) -> Demo:
    """Run the whole demo in the folder `out`, or resume it there.

    Args:
        steps: Training steps, by default the recipe's. Few of them train a poor model.
        scenes: Training scenarios, by default the preset's.

    Raises:
        SriError: for too few scenes or steps, or an `out` that was made with other numbers.
    """
    began = time.monotonic()
    workspace = Workspace(out / "data", out / "runs")
    command = shlex.join(["sri", *sys.argv[1:]])
    towers = simulated("demo-towers", Options(scenes=scenes))
    path = workspace.data_path(towers.header.name, towers.header.size)
    overrides = [*SETTINGS, *([] if steps is None else [f"train.steps={steps}"])]
    recipe, _, run_dir = resolve_run(
        workspace, RECIPE, data=str(path), run=RUN, overrides=overrides
    )
    images, batch = towers.scenes["train"] * towers.views, recipe.train.batch
    if images < batch:
        raise SriError(
            f"--scenes {scenes}: {images} training images are fewer than a batch of {batch}",
            f"use --scenes {math.ceil(batch / towers.views)}",
        )
    try:
        announce(1, "simulating towers of blocks")
        data = prepare(towers, path, command=command).data
        announce(2, f"training {RECIPE}")
        train(recipe, data, run_dir, command=command)
    except (OtherSettings, RunChanged) as error:
        raise SriError(error.message, "start in another folder: sri demo --out DIR") from error
    run = open_run(workspace, str(run_dir))
    announce(3, "sampling scenes")
    samples = write_samples(run, num=SAMPLES, temperature=TEMPERATURE)
    announce(4, "drawing the order of slots")
    order_of_run(run, num=ORDER_SCENES)
    announce(5, "reconstructing test images")
    figure_of_runs(workspace, "reconstructions", [str(run_dir)])
    announce(6, "measuring")
    evaluate_run(run)
    judge, scenes_drawn = open_judge(), open_folder(samples / "images").read(0, SAMPLES)
    estimate = judge.estimate(judge.plausible(scenes_drawn), recipe.model.image_size, demo=True)
    share, seconds = float(estimate["value"]), time.monotonic() - began
    report = write_report(
        workspace,
        make_subjects([run]),
        out / NAME,
        title="From nothing to new scenes",
        lead=f"sri demo simulated towers of blocks, trained {RECIPE} on them and sampled new"
        f" scenes. {share:.0%} of {SAMPLES} samples at temperature {TEMPERATURE:g} are plausible"
        " stacks by the S-Acc estimate.",
        facts=[
            ("S-Acc estimate", f"{share:.0%} of {SAMPLES} samples"),
            ("time of this run of the demo", duration(seconds)),
            ("processor", cpu_model()),
        ],
        commands=commands(out, steps, scenes),
    )
    return Demo(run, samples, share, report, seconds)


def announce(part: int, text: str) -> None:
    """Print the heading of a part to stderr."""
    print(f"[{part}/{PARTS}] {text}", file=sys.stderr, flush=True)


def commands(out: Path, steps: int | None, scenes: int | None) -> list[str]:
    """The demo as single commands."""
    sri = shlex.join(["sri", "--data-root", str(out / "data"), "--runs-root", str(out / "runs")])
    data = shlex.quote(str(out / "data" / "demo-towers-32.h5"))
    return [
        f"{sri} prepare shapestacks --preset demo" + f" --scenes {scenes}" * (scenes is not None),
        f"{sri} train --recipe {RECIPE} --data {data} --run {RUN}"
        + f" --steps {steps}" * (steps is not None)
        + "".join(f" {setting}" for setting in SETTINGS),
        f"{sri} sample --num {SAMPLES} --temp {TEMPERATURE:g}",
        f"{sri} order --num {ORDER_SCENES}",
        f"{sri} figure reconstructions",
        f"{sri} eval --metrics {','.join(METRICS)}",
        f"{sri} report",
    ]
