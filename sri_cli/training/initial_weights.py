"""`sri train --init-from`: a new run with the weights of another run or of an official checkpoint.

The weights become the checkpoint of step 0, with a new optimiser, GECO and schedule: from there on
the run is like any other, and resuming never reads the source again. Data, number of slots,
likelihood and training settings are free; which settings must agree shows in the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import recipe_from_dict
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.hub import opened_from
from sri_cli.run import Workspace, checkpoints_in
from sri_cli.strict_json import to_json
from sri_cli.training.importing import (
    check_match,
    first_names,
    match_tensors,
    read_official,
    system_of,
)
from sri_cli.training.run_folder import commands_until, data_sections, open_run, write_commands
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import new_step

FREE_KEYS = {"likelihood", "std", "normalised"}  # of the model section: no tensor depends on them
OFFICIAL_ENDINGS = (".pth", ".pt")
VERSION = re.compile("[@ ][0-9a-f]+$")  # of an exported model: its commit or digest
Origin = dict[str, Any]


def begin_run(
    workspace: Workspace, source: str, recipe: Recipe, data: DataFile, run_dir: Path
) -> str | None:
    """Write the checkpoint of step 0 into `run_dir`; a note, or None for a run that has begun.

    Args:
        workspace: Where runs are.
        source: Run, checkpoint or official file.
        recipe: Of the new run.
        data: Its data.
        run_dir: Its folder.

    Raises:
        SriError: there is no such source, tensors do not fit, or the run was started otherwise.
    """
    if checkpoints_in(run_dir):
        check_started_from(workspace, source, run_dir)
        return None
    step, origin = with_weights_of(workspace, source, recipe)
    state = {"step": step.state(), "attempt": 0}
    values = recipe.model_copy(update={"data": data.name}).model_dump(mode="json")
    extra = data_sections(data) | {"started_from": origin}
    with open_run(run_dir):
        if not is_official(source):  # command.txt begins with the commands of the source
            lines = commands_until(workspace.find_run(source).run_dir, origin["step"])
            if lines:
                write_commands(run_dir, lines)
        checkpoints.save(run_dir, 0, step.model.state_dict(), values, state, extra)
    facts = ", ".join(f"{key} {origin[key]}" for key in ("run", "step", "file") if key in origin)
    return f"starts from the weights of {facts}"


def with_weights_of(workspace: Workspace, source: str, recipe: Recipe) -> tuple[TrainStep, Origin]:
    """A model of `recipe` before its first step with the weights of `source`; what these are.

    Raises:
        SriError: there is no such source, or tensors are missing, left over, of another shape or
            not finite.
    """
    step = new_step(recipe, torch.device("cpu"))
    if is_official(source):
        weights, origin = from_official(source, recipe, step)
    else:
        weights, origin = from_run(workspace, source, recipe, step)
    step.model.load_state_dict(weights)
    return step, origin


def is_official(source: str) -> bool:
    """Whether it is an official file rather than a run."""
    return Path(source).suffix in OFFICIAL_ENDINGS or Path(source).is_file()


def from_run(
    workspace: Workspace, source: str, recipe: Recipe, step: TrainStep
) -> tuple[Mapping[str, Tensor], Origin]:
    """The weights of a run of ours, checked against the model."""
    ref = workspace.find_run(source)
    saved = checkpoints.newest_good(ref.run_dir, ref.checkpoint)
    if saved is None:
        raise SriError(f"run {ref.run_dir} has no checkpoint yet", "name another run")
    expected = step.model.state_dict()
    # EMORL's refinement steps are a setting of the training.
    weights = saved.weights() | {n: t for n, t in expected.items() if n.endswith("_extra_state")}
    shared = [name for name in expected if name in weights]
    faults = {
        "missing": [name for name in expected if name not in weights],
        "of another shape": [
            f"{name} {list(weights[name].shape)}, expected {list(expected[name].shape)}"
            for name in shared
            if weights[name].shape != expected[name].shape
        ],
        "not finite": [name for name in shared if not weights[name].isfinite().all()],
        "unexpected": sorted(weights.keys() - expected.keys()),  # a file has no order
    }
    lists = [
        f"{len(names)} {kind}: {first_names(names)}" for kind, names in faults.items() if names
    ]
    if lists:
        before, now = recipe_from_dict(saved.recipe).model, recipe.model.model_dump()
        words = [
            f"model.{key}={value if isinstance(value, str) else to_json(value)}"
            for key, value in before.model_dump(exclude=FREE_KEYS).items()
            if value != now[key]
        ]
        raise SriError(
            f"the weights of {saved.path} do not fit recipe {recipe.name}: {'; '.join(lists)}",
            f"they are of a model with {' '.join(words)}" if words else "name another run",
        )
    exported = opened_from(ref.run_dir)
    origin = {
        "run": ref.run_dir.name,
        **({"opened_from": exported} if exported else {}),
        "step": saved.step,
        "data": saved.extra.get("data", {}).get("name", saved.recipe["data"]),
        "sha256": checkpoints.sha256((saved.path / checkpoints.WEIGHTS).read_bytes()),
    }
    return weights, origin


def from_official(
    source: str, recipe: Recipe, step: TrainStep
) -> tuple[Mapping[str, Tensor], Origin]:
    """The weights of an official file under our names, checked against the model."""
    official, system = read_official(Path(source)), recipe.model.system
    theirs = system_of(official.tensors)
    if theirs != system:
        raise SriError(
            f"{source} holds weights of {theirs or 'an unknown system'}, recipe {recipe.name} is"
            f" for {system}",
            "name a recipe of that system",
        )
    match = match_tensors(official, system, step.model)
    try:
        check_match(match, official, recipe, ignore_unexpected=False)
    except SriError as error:
        hint = "train a recipe with the sizes of the file: model.KEY=VALUE"
        raise SriError(error.message, hint) from error
    weights = {ours: official.tensors[name] for ours, name in match.weights.items()}
    origin = {"file": official.path.name, "sha256": official.sha256, "system": system}
    # Grids and BatchNorm's counters, which old files lack, are those of a new model.
    return step.model.state_dict() | weights, origin


def check_started_from(workspace: Workspace, source: str, run_dir: Path) -> None:
    """SriError unless the run began with the weights of `source`, which may have changed since."""
    saved = checkpoints.newest_good(run_dir, quiet=True)  # training notes a broken one
    origin = saved.extra.get("started_from", {}) if saved else {}
    name = Path(source).name
    if not is_official(source):
        try:
            copy = workspace.find_run(source).run_dir
            opened = (opened_from(copy), origin.get("opened_from"))
            models = {VERSION.sub("", one) for one in opened if one}
            name = origin["run"] if all(opened) and len(models) == 1 else copy.name
        except SriError:  # deleted since
            name = origin.get("run", "")
    checkpoint = Path(source).name  # a run may have been trained on since
    is_step = not checkpoints.CHECKPOINT_NAME.fullmatch(checkpoint) or (
        int(checkpoint.removeprefix("step-")) == origin.get("step")
    )
    if not origin or name not in (origin.get("run"), origin.get("file")) or not is_step:
        raise SriError(
            f"{run_dir} holds a run that did not start from {source}",
            "leave --init-from out to resume it, or start another run with --new",
        )
