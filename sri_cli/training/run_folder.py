"""The run folder of a training: its name, its lock, what may change on resume."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, ensure_folder, list_folder, write_atomic
from sri_cli.checkpoint import Checkpoint, newest_good, remove_leftovers
from sri_cli.config.load import data_sets, load_recipe, recipe_from_dict, recipe_to_yaml
from sri_cli.config.schema import Recipe, flatten
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import Workspace, is_path
from sri_cli.training.log import RunLog

LOCK_NAME = ".lock"

# Recipe keys that may differ on resume: they do not change what is learned at a given step.
FREE_KEYS = {
    "name",
    "description",
    "model.encoder",  # a path; the checkpoint holds the SHA-256 of the file
    "train.steps",
    "train.precision",
    "train.compile",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
}


class RunChanged(SriError):
    """The run was trained with another recipe or other data."""


def resolve_run(
    workspace: Workspace,
    recipe_name: str,
    *,
    data: str | None = None,
    run: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Recipe, str, Path]:
    """The recipe, the name or file of its data, and the run folder that a command line names.

    A data file selects the recipe's settings for the data set that it holds, if there are any.
    """
    if data is None or not is_path(data):
        recipe = load_recipe(recipe_name, data, overrides)
        stem = recipe.data
    else:
        file = Path(data)
        name, stem = DataFile(file).name if file.is_file() else file.stem, file.stem
        data_set = name if name in data_sets(recipe_name) else None
        recipe = load_recipe(recipe_name, data_set, overrides)
    # The size comes last, because recipes may be called NAME-tiny.
    size = "" if recipe.size == "paper" else f"-{recipe.size}"
    run_dir = workspace.run_dir(run or f"{recipe.name}-{stem}{size}")
    return recipe, data or recipe.data, run_dir


@contextmanager
def open_run(run_dir: Path, fresh: bool) -> Iterator[RunLog]:
    """Lock the folder and yield its log.

    Raises:
        SriError: another process trains in it, or `fresh` and it is not empty.
    """
    if fresh and any(path.name != LOCK_NAME for path in list_folder(run_dir)):
        raise SriError(
            f"--fresh would overwrite {run_dir}",
            f"choose another folder with --run, or delete it: rm -r {run_dir}",
        )
    ensure_folder(run_dir)
    try:
        lock = open(run_dir / LOCK_NAME, "w")  # noqa: SIM115 (open until the run ends)
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


def describe_run(run_dir: Path, recipe: Recipe, command: str) -> None:
    """Write recipe.yaml (resolved) and command.txt."""
    write_atomic(run_dir / "recipe.yaml", recipe_to_yaml(recipe).encode())
    write_atomic(run_dir / "command.txt", f"{command}\n".encode())


def find_checkpoint(run_dir: Path, recipe: Recipe, data: Mapping[str, Any]) -> Checkpoint | None:
    """The newest intact checkpoint, checked against `recipe` and `data`; None for a new run.

    Raises:
        RunChanged: it was trained with another recipe or other data.
        SriError: there are checkpoints, but none is intact.
    """
    saved = newest_good(run_dir)
    if saved is None:
        return None
    # An imported model does not say what it was trained on: any data will do.
    data_before = saved.extra.get("data", data)
    before = flatten({"data file": data_before} | recipe_from_dict(saved.recipe).model_dump())
    after = flatten({"data file": data} | recipe.model_dump())
    changes = [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if key not in FREE_KEYS and before.get(key) != after.get(key)
    ]
    if changes:
        raise RunChanged(
            f"{run_dir} was trained otherwise: {'; '.join(changes)}",
            "undo the change to resume it, or start another run: --run DIR",
        )
    return saved
