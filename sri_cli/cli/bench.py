"""`sri bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sri_cli.cli.options import COUNT, JSON, OVERRIDES, together
from sri_cli.run import Workspace

PRECISION = click.Choice(["auto", "fp32", "bf16"])
WAYS = click.Choice(["eager", "graph", "compiled", "compiled+graph"])


@click.group()
def command() -> None:
    """Time training, sampling, data and metrics on this machine."""


RECIPE = click.option(
    "--recipe", "recipe_name", default="sri-mog", show_default=True, metavar="NAME|FILE"
)
DATA = click.option("--data", metavar="NAME|FILE", help="Images to use.")
DEVICE = click.option("--gpus", default="auto", metavar="0|1|auto", show_default=True)
PROFILE = together(
    click.option("--profile", is_flag=True, help="Trace one of them; name what costs most."),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Of the trace [./sri-bench-VERB-trace.json.gz].",
    ),
)
SCALING = together(
    click.option("--backend", type=click.Choice(["gloo"]), help="As many processes, on the CPU."),
    click.option(
        "--bandwidth-gb", type=click.FloatRange(min=0, min_open=True), help="Of a link, GB/s."
    ),
    click.option("--latency-us", type=click.FloatRange(min=0), help="Of a hop, microseconds."),
    click.option(
        "--seconds-at", metavar="B:S,...", help="Model with these seconds a step at B images."
    ),
)


@command.command()
@RECIPE
@DATA
@click.option("--steps", type=COUNT, default=5, show_default=True, help="Timed.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop timing after so many.")
@click.option("--batch", type=COUNT, help="Images per step [the recipe's].")
@click.option("--precision", type=PRECISION, help="As train.precision=...")
@click.option("--way", type=WAYS, help="How steps are run [as train.compile says].")
@click.option(
    "--gpus",
    default="auto",
    metavar="0|1|auto|N,N,...",
    show_default=True,
    help="A list gives a row each, measured or modelled.",
)
@SCALING
@PROFILE
@click.option("--no-counts", is_flag=True, help="Leave out FLOP, calls and the machine's peak.")
@JSON
@OVERRIDES
@click.pass_obj
def train(
    workspace: Workspace,
    recipe_name: str,
    data: str | None,
    steps: int,
    seconds: float | None,
    batch: int | None,
    precision: str | None,
    way: str | None,
    gpus: str,
    profile: bool,
    out: Path | None,
    no_counts: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    **of_scaling: Any,
) -> None:
    """Seconds per training step, on random images or real ones.

    KEY=VALUE changes a value of the recipe, as in train.precision=fp32.
    """
    from sri_cli.benchmarks.asked import alone_only, data_for, recipe_for, scaling_for, trace_for
    from sri_cli.benchmarks.train import bench_training, training_text
    from sri_cli.device import device_for

    recipe = recipe_for(recipe_name, overrides, batch=batch, precision=precision)
    asked = scaling_for(gpus, steps, way, **of_scaling)
    if asked is not None:
        alone_only({"--data": data, "--seconds": seconds, "--profile": profile})
        from sri_cli.benchmarks.ranks import bench_scaling, scaling_text

        show(bench_scaling(recipe, asked), scaling_text, as_json)
        return
    result = bench_training(
        recipe,
        steps,
        device_for(gpus),
        way=way,
        data=data_for(workspace, data, recipe),
        trace=trace_for("train", profile, out),
        most_seconds=float("inf") if seconds is None else seconds,
        counted=not no_counts,
    )
    show(result, training_text, as_json)


@command.command()
@RECIPE
@click.option("--num", type=COUNT, default=64, show_default=True, help="Images.")
@click.option("--repeats", type=COUNT, default=3, show_default=True)
@click.option("--precision", type=PRECISION, help="As train.precision=...")
@DEVICE
@PROFILE
@JSON
@OVERRIDES
def sample(
    recipe_name: str,
    num: int,
    repeats: int,
    precision: str | None,
    gpus: str,
    profile: bool,
    out: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Images per second of sampling, with an untrained model."""
    from sri_cli.benchmarks.asked import recipe_for, trace_for
    from sri_cli.benchmarks.sample import bench_sampling, sampling_text
    from sri_cli.device import one_device_for

    recipe = recipe_for(recipe_name, overrides, precision=precision)
    trace = trace_for("sample", profile, out)
    show(
        bench_sampling(recipe, num, repeats, one_device_for(gpus), trace=trace),
        sampling_text,
        as_json,
    )


@command.command()
@RECIPE
@click.option(
    "--data", metavar="NAME|FILE", help="Data file [the recipe's where prepared, else noise]."
)
@click.option("--repeats", type=COUNT, default=5, show_default=True, help="Of 20 batches.")
@click.option("--steps", type=COUNT, default=3, show_default=True, help="Training steps beside.")
@click.option("--way", type=WAYS, help="How steps are run [as train.compile says].")
@DEVICE
@JSON
@OVERRIDES
@click.pass_obj
def data(
    workspace: Workspace,
    recipe_name: str,
    data: str | None,
    repeats: int,
    steps: int,
    way: str | None,
    gpus: str,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Batches per second from memory and file.

    Resident on the device, held by the host, streamed; beside them noise and the step.
    """
    from sri_cli.benchmarks.asked import data_or_made, recipe_for
    from sri_cli.benchmarks.data import bench_data, data_text
    from sri_cli.device import one_device_for

    recipe = recipe_for(recipe_name, overrides)
    with data_or_made(workspace, data, recipe) as (file, caption):
        result = bench_data(
            recipe, file, repeats, one_device_for(gpus), steps=steps, way=way, caption=caption
        )
    show(result, data_text, as_json)


@command.command()
@click.option("--sets", metavar="NAMES", help="Simulators, with commas between [all].")
@click.option("--scenes", type=COUNT, default=8, show_default=True, help="A repeat and worker.")
@click.option("--repeats", type=COUNT, default=3, show_default=True)
@click.option("--workers", metavar="N,N,...", help="Numbers of workers [1 and one a core].")
@JSON
def prepare(
    sets: str | None, scenes: int, repeats: int, workers: str | None, as_json: bool
) -> None:
    """Scenes per second of the simulators."""
    from sri_cli.benchmarks.asked import numbers
    from sri_cli.benchmarks.prepare import bench_prepare, parse_simulators, prepare_text

    crews = None if workers is None else numbers("--workers", workers)
    result = bench_prepare(parse_simulators(sets), scenes, repeats, crews)
    show(result, prepare_text, as_json)


@command.command("eval")
@RECIPE
@click.option(
    "--metrics",
    metavar="NAMES",
    help="Of ari, msc, frechet-128, frechet-2048, root-128, root-2048, stack, elbo, inception"
    " [all that can be measured here].",
)
@click.option("--num", type=COUNT, default=64, show_default=True, help="Images or maps.")
@click.option("--repeats", type=COUNT, default=3, show_default=True)
@click.option("--random-inception", is_flag=True, help="Inception with random weights.")
@DEVICE
@JSON
@OVERRIDES
def evaluation(
    recipe_name: str,
    metrics: str | None,
    num: int,
    repeats: int,
    random_inception: bool,
    gpus: str,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """What each metric takes."""
    from sri_cli.benchmarks.asked import recipe_for
    from sri_cli.benchmarks.metrics import bench_metrics, metrics_text, parse_rows
    from sri_cli.device import one_device_for

    recipe, names = recipe_for(recipe_name, overrides), parse_rows(metrics, random_inception)
    result = bench_metrics(recipe, names, num, repeats, one_device_for(gpus), random_inception)
    show(result, metrics_text, as_json)


@command.command("gpu-suite")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="sri-gpu-suite",
    show_default=True,
    metavar="DIR",
    help="Of the report, the records and a trace.",
)
@click.option("--minutes", type=click.FloatRange(min=0.1), default=9.5, show_default=True)
@click.option("--only", metavar="NAMES", help="Parts that begin so, with commas between.")
@click.option("--quick", is_flag=True, help="Every part tiny.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True
)
@JSON
def gpu_suite(
    out: Path, minutes: float, only: str | None, quick: bool, device: str, as_json: bool
) -> None:
    """All that a GPU should be asked, in one run.

    Each part in a process of its own. A second run in the same folder adds to the report.
    """
    from sri_cli.benchmarks.gpu_suite import gpu_suite, suite_text

    names = None if only is None else only.split(",")
    result = gpu_suite(out, minutes, names, quick, device, lambda line: click.echo(line, err=True))
    show(result, suite_text, as_json)


def show(result: dict[str, Any], text: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """One JSON object, or what `text` makes of it."""
    click.echo(json.dumps(result) if as_json else text(result))
