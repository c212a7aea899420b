"""`sri import`: an official checkpoint becomes a run that every verb takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import cannot_write, ensure_folder, list_folder, sync_folder
from sri_cli.config.load import data_sets, load_recipe
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import Workspace, is_path
from sri_cli.training.official_file import OfficialFile, read_official
from sri_cli.training.official_match import Match, match, some, system_of, wanted_by
from sri_cli.training.official_mend import mending_words, shapes_fit
from sri_cli.training.official_state import take_up_state
from sri_cli.training.run_folder import describe_run, resolve_run
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import new_step

# A system's plain recipe; weights do not say which likelihood they were trained under.
USUAL_RECIPE = {
    "sri": "sri-mog",
    "genesis-v2": "genesis-v2-mog",
    "genesis": "genesis",
    "emorl": "emorl",
}


@dataclass(frozen=True)
class Order:
    """What the command line asked for; None: left out."""

    file: Path
    recipe: str | None = None
    data: str | None = None
    run: str | None = None
    overrides: Sequence[str] = ()
    ignore_unexpected: bool = False


@dataclass(frozen=True)
class Imported:
    """The new run; `notes` are for the user, `recipe_name` as `sri train --recipe` takes it."""

    run_dir: Path
    checkpoint: Path
    step: int
    system: str
    recipe_name: str
    parameters: int
    notes: list[str]


def import_run(workspace: Workspace, order: Order, command: str = "sri import") -> Imported:
    """Write the run folder of an official checkpoint.

    Raises SriError for a file that is none, that wants to run code or does not fit the recipe,
    and for a run that is there; SriFailure when the disk will not take it.
    """
    official = read_official(order.file)
    system = system_of(official.tensors)
    if system is None:
        raise unknown_system(official)
    name = order.recipe or USUAL_RECIPE[system]
    recipe, data, run_dir = resolve_run(
        workspace, name, data=order.data, run=order.run, overrides=order.overrides
    )
    check_system(recipe, system, order)
    run_dir = run_dir if order.run else run_dir.with_name(f"{run_dir.name}-imported")
    check_free(run_dir)
    source = source_of(workspace, recipe, data)
    step = new_step(recipe, torch.device("cpu"))
    found = checked_match(official, system, step, recipe, name, order)
    notes = [] if order.recipe else [assumed(name, recipe)]
    notes += [f"left out: {some(found.unexpected)}"] if found.unexpected else []
    done = official.step or 0
    fill_weights(step, official, found)
    notes += take_up_state(step, official, found)
    step.follow_schedule(done)
    origin = {"file": order.file.name, "sha256": official.sha256, "system": system}
    write_run(run_dir, recipe, step, done, {"source": source, "imported": origin}, command)
    return Imported(
        run_dir,
        checkpoints.checkpoint_path(run_dir, done),
        done,
        system,
        name,
        sum(p.numel() for p in step.params),
        notes,
    )


def check_system(recipe: Recipe, system: str, order: Order) -> None:
    """SriError unless the recipe is of the file's system."""
    if recipe.model.system != system:
        raise SriError(
            f"{order.file} holds weights of {system}, recipe {recipe.name} is of"
            f" {recipe.model.system}",
            f"--recipe {USUAL_RECIPE[system]}",
        )


def check_free(run_dir: Path) -> None:
    """SriError when something lies where the run is to be."""
    if list_folder(run_dir) or (run_dir.exists() and not run_dir.is_dir()):
        raise SriError(f"{run_dir} is there already", "name another folder: --run DIR")


def source_of(workspace: Workspace, recipe: Recipe, data: str) -> dict[str, str]:
    """What figures call the run's data; its file only where one was named."""
    if not is_path(data):
        return {"caption": f"{recipe.data}, imported weights"}
    file = DataFile(workspace.find_data(data, recipe.model.image_size))
    file.check_size(recipe.model.image_size)
    return {"file": str(file.path.resolve()), "caption": f"{file.caption}, imported weights"}


def checked_match(
    official: OfficialFile, system: str, step: TrainStep, recipe: Recipe, name: str, order: Order
) -> Match:
    """Every tensor's place; SriError with all that is wrong at once."""
    shapes = {key: tensor.shape for key, tensor in official.tensors.items()}
    found = match(system, shapes, wanted_by(step.model, system))
    kinds = {
        "missing": found.missing,
        "of another shape": found.misshapen,
        "not finite": [
            key for key in found.weights.values() if not official.tensors[key].isfinite().all()
        ],
        "unexpected": [] if order.ignore_unexpected else found.unexpected,
    }
    faults = [f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]
    if not faults:
        return found
    hint = f"name the {system} recipe that it was trained with: --recipe NAME|FILE KEY=VALUE"
    if found.misshapen:
        hint = mending_hint(recipe, system, shapes, name, order) or hint
    elif len(faults) == 1 and kinds["unexpected"]:
        hint = "--ignore-unexpected imports the rest"
    raise SriError(f"{order.file} does not fit recipe {recipe.name}: {'; '.join(faults)}", hint)


def mending_hint(
    recipe: Recipe, system: str, shapes: Mapping[str, torch.Size], name: str, order: Order
) -> str | None:
    """The words with which the shapes fit: another data set of the recipe, else keys of it."""
    for other in data_sets(name):
        if shapes_fit(load_recipe(name, other, order.overrides).model, system, shapes):
            return f"these shapes are those of --data {other}"
    words = mending_words(recipe.model, system, shapes)
    return f"these shapes are those of {' '.join(words)}" if words else None


def fill_weights(step: TrainStep, official: OfficialFile, found: Match) -> None:
    """The file's numbers for every parameter and running statistic of the model."""
    filled = {ours: official.tensors[name] for ours, name in found.weights.items()}
    step.model.load_state_dict(step.model.state_dict() | filled)


def write_run(
    run_dir: Path, recipe: Recipe, step: TrainStep, done: int, extra: dict[str, Any], command: str
) -> None:
    """The folder as training leaves it: made beside its place, there whole or not at all."""
    ensure_folder(run_dir.parent)
    beside = run_dir.with_name(f".{run_dir.name}.{os.getpid()}.tmp")
    try:
        describe_run(beside, recipe, command)
        state = {"step": step.state(), "attempt": 0}
        values = recipe.model_dump(mode="json")
        checkpoints.save(beside, done, step.model.state_dict(), values, state, extra)
        os.rename(beside, run_dir)
        sync_folder(run_dir.parent)
    except OSError as error:
        raise cannot_write(run_dir, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def assumed(name: str, recipe: Recipe) -> str:
    """What was taken for granted without --recipe."""
    model = recipe.model
    return (
        f"taken for recipe {name} on {recipe.data}: {model.slots} slots, likelihood"
        f" {model.likelihood} of deviation {model.std:g}; weights do not say (--recipe, --data,"
        " KEY=VALUE)"
    )


def unknown_system(official: OfficialFile) -> SriError:
    """The error for names that no official implementation has."""
    return SriError(
        f"{official.path} holds {len(official.tensors)} tensors of no system known here:"
        f" {some(list(official.tensors))}",
        "name a checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL",
    )
