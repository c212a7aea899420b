"""`sri bench train | sample | data | quality`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sri_cli.cli import completion
from sri_cli.cli.options import COUNT, JSON, OVERRIDES, RUN, data_option
from sri_cli.errors import SriError
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json

RECIPE = click.option(
    "--recipe",
    default="sri-mog",
    metavar="NAME|FILE",
    shell_complete=completion.recipes,
    help="Recipe to time.",
)
ONE_DEVICE = {"auto": "auto", "0": "cpu", "1": "cuda"}
SECONDS = click.FloatRange(min=0, min_open=True)
GPU = click.option(
    "--gpus", type=click.Choice(list(ONE_DEVICE)), default="auto", help="0 is the CPU."
)
PROFILE = click.option(
    "--profile", is_flag=True, help="Also profile one run and write sri-bench-trace.json.gz here."
)


@click.group()
def command() -> None:
    """Measure training, sampling and data loading on this machine.

    Nothing else should run meanwhile. KEY=VALUE changes a value of the recipe, as in
    train.precision=fp32.
    """


@command.command()
@RECIPE
@click.option(
    "--gpus",
    default="auto",
    metavar="N,...",
    help="Numbers of GPUs, one row each; 0 alone is the CPU.",
)
@click.option("--backend", type=click.Choice(["gloo"]), help="Use CPU processes in place of GPUs.")
@click.option("--seconds", type=SECONDS, metavar="S", default=10, help="Time to measure.")
@PROFILE
@JSON
@OVERRIDES
def train(
    recipe: str,
    gpus: str,
    backend: str | None,
    seconds: float,
    profile: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Seconds per training step, on random images."""
    from sri_cli.benchmarks import train as bench
    from sri_cli.config.load import load_recipe

    loaded = load_recipe(recipe, None, overrides)
    if gpus in ONE_DEVICE and backend is None:
        result = bench.bench_training(loaded, ONE_DEVICE[gpus], seconds, profile)
        show(result, bench.training_text, as_json)
        return
    if profile:
        raise SriError(
            "--profile measures one device", "leave out --profile, or --gpus and --backend"
        )
    result = bench.bench_gpus(loaded, counts(gpus), seconds, backend == "gloo")
    show(result, bench.gpus_text, as_json)


def counts(gpus: str) -> list[int]:
    """ "1,2,8" to sorted numbers of GPUs; SriError for anything else."""
    words = gpus.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise SriError(f"--gpus {gpus}: expected numbers such as 1,2,4", "--gpus 1,2,4")
    return sorted({int(word) for word in words})


@command.command()
@RECIPE
@click.option("--num", type=COUNT, default=64, metavar="N", help="Images per run.")
@GPU
@click.option("--seconds", type=SECONDS, metavar="S", default=5, help="Time to measure.")
@PROFILE
@JSON
@OVERRIDES
def sample(
    recipe: str,
    num: int,
    gpus: str,
    seconds: float,
    profile: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Images per second of sampling, with an untrained model."""
    from sri_cli.benchmarks.sample import bench_sampling, sampling_text
    from sri_cli.config.load import load_recipe

    loaded = load_recipe(recipe, None, overrides)
    result = bench_sampling(loaded, num, ONE_DEVICE[gpus], seconds, profile)
    show(result, sampling_text, as_json)


@command.command()
@RECIPE
@data_option("random images")
@GPU
@click.option("--seconds", type=SECONDS, metavar="S", default=2, help="Time for each row.")
@JSON
@OVERRIDES
@click.pass_obj
def data(
    workspace: Workspace,
    recipe: str,
    data: str | None,
    gpus: str,
    seconds: float,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Batches per second from memory and from a file, and what a training step needs."""
    from sri_cli.benchmarks.data import bench_data, data_text, noise_images
    from sri_cli.config.load import load_recipe
    from sri_cli.data.dataset import DataFile
    from sri_cli.training.trainer import check_data

    loaded = load_recipe(recipe, None, overrides)
    size = loaded.model.image_size
    if data is not None:
        file = DataFile(workspace.find_data(data, size))
        check_data(loaded, file)
        images, source = file.split("train").images, str(file.path)
    else:
        images, source = noise_images(size, loaded.train.batch), "random images"
    result = bench_data(loaded, images, source, ONE_DEVICE[gpus], seconds)
    show(result, data_text, as_json)


@command.command()
@RUN
@click.option(
    "--sacc",
    type=click.FloatRange(0, 100),
    default=80,
    metavar="PERCENT",
    help="S-Acc estimate to reach.",
)
@click.option(
    "--stack-fd",
    type=click.FloatRange(min=0, min_open=True),
    default=325,
    metavar="VALUE",
    help="stack-FD to fall below, by default that of an earlier shipped model of 32 px.",
)
@JSON
@click.pass_obj
def quality(
    workspace: Workspace, run: str | None, sacc: float, stack_fd: float, as_json: bool
) -> None:
    """Minutes of training until the samples of a run are good.

    Measures every checkpoint that the run has kept (train.keep_every) and that was not measured
    before. The time is that of training alone, from the run's log.
    """
    from sri_cli.benchmarks.quality import bench_quality, quality_text

    show(bench_quality(workspace, run, sacc / 100, stack_fd), quality_text, as_json)


def show(result: dict[str, Any], text: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Print one JSON object, or the text of it."""
    click.echo(to_json(result) if as_json else text(result))
