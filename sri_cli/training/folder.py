"""A run's folder: one writer at a time, what it was started with, and whether it may go on."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, ensure_folder, list_folder, write_atomic
from sri_cli.checkpoint import remove_leftovers, set_aside_after
from sri_cli.config.load import recipe_to_yaml
from sri_cli.config.schema import Recipe
from sri_cli.errors import SriError
from sri_cli.training.log import RunLog

LOCK_NAME = ".lock"

# Changing these does not change what is learned at a given step.
FREE = {
    "name",
    "description",
    "model.encoder",  # where it lies; that it is the same one is held by its SHA-256
    "train.steps",
    "train.precision",
    "train.compile",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
}


@contextmanager
def open_run(run_dir: Path, fresh: bool) -> Iterator[RunLog]:
    """Hold the folder for this process; SriError when another has it or --fresh would overwrite."""
    if fresh and any(path.name != LOCK_NAME for path in list_folder(run_dir)):
        raise SriError(
            f"--fresh would overwrite {run_dir}",
            f"choose another folder with --run, or delete it yourself: rm -r {run_dir}",
        )
    ensure_folder(run_dir)
    try:
        lock = open(run_dir / LOCK_NAME, "w")  # noqa: SIM115 (held until the run ends)
    except OSError as error:
        raise cannot_write(run_dir, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SriError(
                f"another sri train is writing to {run_dir}", "choose another folder: --run DIR"
            ) from error
        remove_leftovers(run_dir)
        log = RunLog(run_dir)
        try:
            yield log
        finally:
            log.close()


def describe(run_dir: Path, recipe: Recipe, command: str) -> None:
    """Write recipe.yaml (resolved) and command.txt."""
    write_atomic(run_dir / "recipe.yaml", recipe_to_yaml(recipe).encode())
    write_atomic(run_dir / "command.txt", f"{command}\n".encode())


def forget_after(run_dir: Path, log: RunLog, step: int) -> None:
    """A run that goes on from `step` leaves no records or checkpoints of later steps."""
    log.drop_after(step)
    set_aside_after(run_dir, step)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two recipes, as `train.lr 0.0001 -> 0.0002`; FREE keys aside."""
    was, now = flatten(old), flatten(new)
    return [
        f"{key} {was.get(key)} -> {now.get(key)}"
        for key in sorted(was.keys() | now.keys())
        if key not in FREE and was.get(key) != now.get(key)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'lr': 1}} -> {'train.lr': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
