"""`sri train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sri_cli.cli import completion
from sri_cli.cli.options import JSON, RECIPE_DATA, THREADS
from sri_cli.console import counted, duration, warn
from sri_cli.cores import Threads
from sri_cli.errors import Interrupted, SriError
from sri_cli.run import Workspace, run_argument
from sri_cli.strict_json import to_json

if TYPE_CHECKING:
    from sri_cli.config.schema import Recipe


@click.command()
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    show_default="the argument without =",
    shell_complete=completion.recipes,
    help="Recipe to train.",
)
@RECIPE_DATA
@click.option(
    "--run",
    metavar="DIR",
    show_default="runs/<recipe>-<data set>[-<size>]",
    shell_complete=completion.runs,
    help="Run folder.",
)
@click.option(
    "--steps",
    type=int,
    metavar="N",
    help="Last step; a larger number trains a run further (not one of size=small, whose learning"
    " rate falls to its last step).",
)
@click.option(
    "--gpus",
    default="auto",
    metavar="N|auto",
    help="GPUs to use; auto is one, or the CPU where there is none; 0 is the CPU.",
)
@THREADS
@click.option(
    "--seed", type=int, metavar="S", help="Seed for initialisation, data order and noise."
)
@click.option("--new", is_flag=True, help="Start another run, in <folder>-2 and so on.")
@click.option(
    "--init-from",
    metavar="RUN|FILE",
    shell_complete=completion.sources,
    help="Start from the weights of a run or of a .pth file.",
)
@click.option(
    "--tracker",
    "trackers",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.trackers,
    show_default="those in SRI_TRACKER, or tensorboard where it is installed",
    help="tensorboard, mlflow, wandb or csv, or none; repeat for several.",
)
@click.option("--dry-run", is_flag=True, help="Show recipe, size and time per step; train nothing.")
@JSON
@click.argument(
    "arguments", nargs=-1, metavar="[RECIPE] [KEY=VALUE]...", shell_complete=completion.train_words
)
@click.pass_obj
def command(
    workspace: Workspace,
    recipe: str | None,
    data: str | None,
    run: str | None,
    steps: int | None,
    gpus: str,
    threads: Threads,
    seed: int | None,
    new: bool,
    init_from: str | None,
    trackers: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    arguments: tuple[str, ...],
) -> None:
    """Train a recipe; the same command again resumes.

    `sri train sri-mog` is short for `sri train --recipe sri-mog`. KEY=VALUE changes a value of the
    recipe, as in train.lr=2e-4. SIGINT, SIGTERM, SIGHUP and SIGUSR1 save a checkpoint and stop
    (exit code 75). Several machines: torchrun ... -m -- sri_cli train ...
    """
    from sri_cli.data.dataset import DataFile
    from sri_cli.device import choose_device, parse_gpus
    from sri_cli.plotting.previews import draw_preview
    from sri_cli.run import checkpoints_in
    from sri_cli.training.distributed import is_first, is_launched, processes_here
    from sri_cli.training.initial_weights import begin_run, with_weights_of
    from sri_cli.training.run_folder import note_on_settings, resolve_run
    from sri_cli.training.trackers import choose_trackers
    from sri_cli.training.trainer import check_data, train

    recipe_name, words = recipe_and_overrides(recipe, arguments)
    words += [] if steps is None else [f"train.steps={steps}"]
    words += [] if seed is None else [f"train.seed={seed}"]
    resolved, data, run_dir = resolve_run(
        workspace, recipe_name, data=data, run=run, overrides=words
    )
    typed = list(sys.argv[1:])
    if new:
        run_dir = new_folder(run_dir, run)
        typed = [word for word in typed if word != "--new"] + (
            [] if run else ["--run", str(run_dir)]
        )
    note = note_on_settings(recipe_name, resolved, data, words)
    note = note if is_first() and not checkpoints_in(run_dir) else None
    device, count = parse_gpus(gpus)
    if is_launched() and count > processes_here():
        raise SriError(
            f"--gpus {count}, but by RANK and WORLD_SIZE a launcher started {processes_here()} of"
            " its processes here",
            "leave --gpus out, or without a launcher: env -u RANK -u WORLD_SIZE sri train ...",
        )
    together = count > 1 and not is_launched()
    if together:
        from sri_cli.training.launch import check_gpus, launch

        check_gpus(count)
    else:
        choose_device(device)
    if dry_run:
        from sri_cli.training.step_timing import dry_run as measure

        if init_from is not None:
            with_weights_of(workspace, init_from, resolved)
        result = measure(
            workspace, resolved, data, run_dir, device, threads=threads, processes=max(1, count)
        )
        show_dry_run(result, resolved, note, as_json)
        return
    chosen = choose_trackers(trackers or None)  # before anything is written
    file = DataFile(workspace.find_data(data, resolved.model.image_size))
    notes = [note] if note else []
    if init_from is not None and is_first():
        check_data(resolved, file)  # before anything is written
        started = begin_run(workspace, init_from, resolved, file, run_dir)
        notes += [started] if started else []
    for text in notes:
        warn(f"Note: {text}")
    options: dict[str, Any] = {
        "device": device,
        "command": shlex.join(["sri", *typed]),
        "threads": threads,
        "trackers": chosen,
        "preview": draw_preview,
    }
    try:
        if together:
            outcome = launch(count, resolved, file, run_dir, **options)
        else:
            outcome = train(resolved, file, run_dir, **options)
    except KeyboardInterrupt as stop:  # the second one; with --new the typed command is another
        raise Interrupted("Stopped.", f"Resume with: {options['command']}") from stop
    if is_first():
        folder = shlex.quote(run_argument(outcome.run))
        text = f"step {outcome.step}: {outcome.checkpoint}\nnext: sri sample --run {folder}"
        click.echo(to_json(asdict(outcome)) if as_json else text)


def recipe_and_overrides(recipe: str | None, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The recipe and the KEY=VALUE words; without --recipe the recipe is the argument without =.

    Raises:
        SriError: there is none.
    """
    words = list(arguments)
    if recipe is None:
        recipe = next((word for word in words if "=" not in word), None)
        if recipe is None:
            raise SriError("name a recipe", "sri train sri-mog; `sri recipes ls` lists them")
        words.remove(recipe)
    return recipe, words


def new_folder(run_dir: Path, run: str | None) -> Path:
    """An unused folder for --new; SriError when --run names one in use, and under torchrun."""
    from sri_cli.training.distributed import is_launched
    from sri_cli.training.run_folder import holds_files, unused_folder

    unused = unused_folder(run_dir)
    other = f"--run {run_argument(unused)}"
    if is_launched():  # a process that starts late, or again, would find the folder in use
        raise SriError("--new does not go with torchrun", f"name an unused folder instead: {other}")
    if run is not None and holds_files(run_dir):
        raise SriError(
            f"--new: {run_dir} holds a run already",
            f"leave --new out to resume it, or name another folder: {other}",
        )
    return unused


def show_dry_run(result: dict[str, Any], recipe: Recipe, note: str | None, as_json: bool) -> None:
    """Print what would be trained, and how long it would take."""
    from sri_cli.config.load import recipe_to_yaml
    from sri_cli.cores import shared_note

    shared = shared_note(result["busy_cores"])
    shared = shared and f"{shared}; alone it may be faster"
    for text in filter(None, (note, result["missing"], result["download"], shared)):
        warn(f"Note: {text}")
    if as_json:
        click.echo(to_json(result))
        return
    click.echo(recipe_to_yaml(recipe))
    click.echo(
        f"run             {result['run']}\n"
        f"parameters      {result['parameters']:,}\n"
        f"time per step   {result['seconds_per_step']:.3f} s"
        f" (batch {recipe.train.batch}, {result['precision']}, {result['device']},"
        f" {counted(result['threads'], 'thread')})\n"
        f"expected total  {duration(result['expected_seconds'])} for {recipe.train.steps:,} steps"
    )
