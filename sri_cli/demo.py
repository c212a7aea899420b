"""`sri demo`: the whole path on a small data set, every step the real one, and a report of it."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from sri_cli.config.schema import Recipe
from sri_cli.console import duration
from sri_cli.data.dataset import DataFile
from sri_cli.data.prepare import OtherSettings, prepare
from sri_cli.data.source import Options, Simulation
from sri_cli.data.sources.shapestacks import simulated_towers
from sri_cli.demo_report import SAMPLES, TEMPERATURE, Shown, write_demo_report
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import open_run
from sri_cli.metrics.evaluate import METRICS, evaluate_run
from sri_cli.metrics.stack_classifiers.classifiers import open_judge
from sri_cli.plotting.from_runs import figure_of_runs, order_of_run
from sri_cli.plotting.grid import Pixels
from sri_cli.plotting.report import NAME
from sri_cli.plotting.samples import write_samples
from sri_cli.run import Workspace
from sri_cli.training.run_folder import RunChanged, resolve_run
from sri_cli.training.trainer import train

RECIPE = "sri-mog-tiny"
ORDER_SCENES = 100
STEPS = 6


def run_demo(out: Path, steps: int | None = None, scenes: int | None = None) -> tuple[Path, Shown]:
    """Prepare, train, sample, look and measure in `out`; the report and what is in it.

    Run again it goes on where it stopped. Fewer `steps` and `scenes` make it short and poor.
    """
    began = time.monotonic()
    workspace = Workspace(out / "data", out / "runs")
    command = shlex.join(["sri", *sys.argv[1:]])
    with other_folder_is_the_way_out():
        towers = simulated_towers(Options(scenes=scenes), "demo")
        # Bad numbers are errors before the work.
        overrides = [] if steps is None else [f"train.steps={steps}"]
        recipe, _, run_dir = resolve_run(workspace, RECIPE, overrides=overrides)
        check_scenes(towers, recipe.train.batch)
        tell(1, "towers of blocks, simulated")
        path = workspace.data_path(towers.header.name, towers.header.size)
        data = prepare(towers, path, command=command).data
        tell(2, f"training {RECIPE}")
        train(recipe, data, run_dir, command=command)
    shown = look(workspace, recipe, run_dir, data, began, repeat_commands(out, steps, scenes))
    return write_demo_report(workspace, shown, out / NAME), shown


def look(
    workspace: Workspace,
    recipe: Recipe,
    run_dir: Path,
    data: DataFile,
    began: float,
    commands: Sequence[str],
) -> Shown:
    """Everything that comes after training."""
    trained = open_run(workspace, str(run_dir))
    tell(3, "new scenes")
    samples = write_samples(trained, num=SAMPLES, temperature=TEMPERATURE)
    tell(4, "the order of slots")
    order_of_run(trained, num=ORDER_SCENES)
    tell(5, "reconstructions")
    figure_of_runs(workspace, "reconstructions", [str(trained.run_dir)])
    tell(6, "measurements")
    evaluate_run(trained)
    return Shown(
        recipe=recipe,
        trained=trained,
        samples=samples,
        sacc_estimate=estimate_sacc(read_pictures(samples / "images")),
        seconds=time.monotonic() - began,
        commands=commands,
    )


def check_scenes(towers: Simulation, batch: int) -> None:
    """SriError unless the training images fill a batch."""
    scenes = towers.scenes["train"]
    images = scenes * towers.views
    if images < batch:
        raise SriError(
            f"--scenes {scenes}: {images} training images are fewer than a batch of {batch}",
            f"--scenes {math.ceil(batch / towers.views)}",
        )


@contextmanager
def other_folder_is_the_way_out() -> Iterator[None]:
    """What lies in the folder was made with other numbers: the demo's own way out of that."""
    try:
        yield
    except (OtherSettings, RunChanged) as error:
        hint = "start afresh in another folder: sri demo --out DIR"
        raise SriError(error.message, hint) from error


def estimate_sacc(images: Pixels) -> float:
    """The S-Acc estimate of demo images [N,H,W,3], in [0,1]."""
    judge = open_judge()
    estimate = judge.estimate(judge.plausible(images), images.shape[1], demo=True)
    return float(estimate["value"])


def read_pictures(folder: Path) -> Pixels:
    """Every PNG of a folder, in order of name, [N,H,W,3]."""
    return np.stack([read_picture(path) for path in sorted(folder.glob("*.png"))])


def read_picture(path: Path) -> Pixels:
    """A PNG as uint8 [H,W,3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.uint8)


def repeat_commands(out: Path, steps: int | None, scenes: int | None) -> list[str]:
    """The demo as single commands."""
    roots = ["--data-root", str(out / "data"), "--runs-root", str(out / "runs")]
    sri = shlex.join(["sri", *roots])
    fewer_scenes = "" if scenes is None else f" --scenes {scenes}"
    fewer_steps = "" if steps is None else f" --steps {steps}"
    return [
        f"{sri} prepare shapestacks --preset demo{fewer_scenes}",
        f"{sri} train --recipe {RECIPE}{fewer_steps}",
        f"{sri} sample --num {SAMPLES} --temp {TEMPERATURE:g}",
        f"{sri} order --num {ORDER_SCENES}",
        f"{sri} figure reconstructions",
        f"{sri} eval --metrics {','.join(METRICS)}",
        f"{sri} report",
    ]


def words(report: Path, shown: Shown) -> str:
    """The outcome in lines for people."""
    return "\n".join(
        [
            f"S-Acc estimate: {shown.sacc_estimate:.0%} of {SAMPLES} samples are plausible stacks"
            f" ({shown.trained.title})",
            f"done in {duration(shown.seconds)}; samples: {shown.samples / 'grid.png'}",
            f"look: {report}",
        ]
    )


def tell(number: int, what: str) -> None:
    """The heading of a step, on stderr."""
    print(f"[{number}/{STEPS}] {what}", file=sys.stderr, flush=True)
