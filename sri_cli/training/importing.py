"""`sri import`: an official checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL becomes a run.

The file is read without running anything in it. Its tensors go into a model of ours by the name
tables of models/official.py, and the states of Adam and GECO as far as the file has them.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import cannot_write, ensure_folder, list_folder, sync_folder
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.models.official import TABLES, official_name, our_name
from sri_cli.run import Workspace, is_path
from sri_cli.training.run_folder import describe_run, resolve_run
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import new_step

# The recipe of a system when none is named; weights do not show which likelihood they are for.
USUAL_RECIPE = {
    "sri": "sri-mog",
    "genesis-v2": "genesis-v2-mog",
    "genesis": "genesis",
    "emorl": "emorl",
}
MODEL_KEYS = ("model_state_dict", "model", "state_dict")
OPTIMISER_KEYS = ("optimiser_state_dict", "optimizer_state_dict", "optimiser", "optimizer")
STEP_KEYS = ("iter_idx", "step")
# GECO's multiplier and moving average, for each objective of the model in order.
GECO_KEYS = (("beta", "err_ema"), ("beta_sri", "err_sri_ema"))
MOMENTS = ("exp_avg", "exp_avg_sq")
PARALLEL = "module."  # DataParallel puts this before every name
# Coordinate grids of official modules, which follow from the image size.
GRIDS = ("g_1", "g_2", "coords", "grid")
COUNTER = "num_batches_tracked"  # of BatchNorm; old files lack it, and nothing depends on it
BATCH_STATISTICS = ("running_mean", "running_var", COUNTER)
IN_TRAINING_STATE = "gecos."  # prefix of our names for tensors that are not weights
MOST_NAMES = 10  # in a message


@dataclass(frozen=True)
class Imported:
    """The new run; `notes` are for the user, `recipe_name` is for `sri train --recipe`."""

    run_dir: Path
    checkpoint: Path
    step: int
    system: str
    recipe_name: str
    parameters: int
    notes: list[str]


def import_run(
    workspace: Workspace,
    path: Path,
    recipe_name: str | None = None,
    *,
    data: str | None = None,
    run: str | None = None,
    overrides: Sequence[str] = (),
    ignore_unexpected: bool = False,
    command: str = "sri import",
) -> Imported:
    """Write a run folder from the official checkpoint at `path`.

    Raises:
        SriError: the file is not a checkpoint, contains code, or does not fit the recipe; or the
            run exists already.
        SriFailure: a file could not be written.
    """
    official = read_official(path)
    system = system_of(official.tensors)
    if system is None:
        raise SriError(
            f"{path} holds {len(official.tensors)} tensors of an unknown system:"
            f" {some(list(official.tensors))}",
            "name a checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL",
        )
    name = recipe_name or USUAL_RECIPE[system]
    recipe, data, run_dir = resolve_run(workspace, name, data=data, run=run, overrides=overrides)
    if recipe.model.system != system:
        raise SriError(
            f"{path} holds weights of {system}, but recipe {recipe.name} is for"
            f" {recipe.model.system}",
            f"--recipe {USUAL_RECIPE[system]}",
        )
    run_dir = run_dir if run else run_dir.with_name(f"{run_dir.name}-imported")
    if list_folder(run_dir) or (run_dir.exists() and not run_dir.is_dir()):
        raise SriError(f"{run_dir} exists already", "name another folder: --run DIR")
    source = source_of(workspace, recipe, data)
    step = new_step(recipe, torch.device("cpu"))
    found = match(official, system, step.model)
    check_match(found, official, recipe, ignore_unexpected)
    notes = [] if recipe_name else [assumption(name, recipe)]
    notes += [f"left out: {some(found.unexpected)}"] if found.unexpected else []
    weights = {ours: official.tensors[theirs] for ours, theirs in found.weights.items()}
    step.model.load_state_dict(step.model.state_dict() | weights)
    notes += load_training_state(step, official, found)
    done = official.step or 0
    step.set_phase(done)
    origin = {"file": path.name, "sha256": official.sha256, "system": system}
    write_run(run_dir, recipe, step, done, {"source": source, "imported": origin}, command)
    saved = checkpoints.checkpoint_path(run_dir, done)
    parameters = sum(p.numel() for p in step.params)
    return Imported(run_dir, saved, done, system, name, parameters, notes)


def source_of(workspace: Workspace, recipe: Recipe, data: str) -> dict[str, str]:
    """What figures say about the run's data, and its file where one is named."""
    if not is_path(data):
        return {"caption": f"{recipe.data}, imported weights"}
    file = DataFile(workspace.find_data(data, recipe.model.image_size))
    file.check_size(recipe.model.image_size)
    return {"file": str(file.path.resolve()), "caption": f"{file.caption}, imported weights"}


def assumption(name: str, recipe: Recipe) -> str:
    """A note on the settings that were assumed because no recipe is named."""
    model = recipe.model
    return (
        f"assumed recipe {name} on {recipe.data}: {model.slots} slots, likelihood"
        f" {model.likelihood} with std {model.std:g}; weights do not show them (--recipe, --data,"
        " KEY=VALUE)"
    )


def write_run(
    run_dir: Path, recipe: Recipe, step: TrainStep, done: int, extra: dict[str, Any], command: str
) -> None:
    """Write the run folder as training would, beside its place, then rename it."""
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


# Reading the file.


@dataclass(frozen=True)
class OfficialFile:
    """`tensors` by official name, in the official order; `rest`: the other entries, unchecked."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    rest: Mapping[Any, Any]

    @property
    def step(self) -> int | None:
        """Steps trained; None where the file does not say."""
        value = self.number(*STEP_KEYS)
        return int(value) if value is not None and value >= 0 else None

    def number(self, *keys: str) -> float | None:
        """The first finite number under one of `keys`, plain or a tensor."""
        values = (as_number(self.rest.get(key)) for key in keys)
        return next((value for value in values if value is not None), None)


def as_number(value: Any) -> float | None:
    """A finite number, plain or a tensor of one element; None for anything else."""
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_official(path: Path) -> OfficialFile:
    """Read `path`; SriError for what is not a whole checkpoint, or would run code."""
    if path.is_dir():
        raise SriError(f"{path} is a folder, not a checkpoint file", "name the .pth file in it")
    if not path.exists():
        raise SriError(f"{path} does not exist", "name a file that torch.save wrote")
    content = load_plain(path)
    if not isinstance(content, Mapping):
        content = {}
    tensors = next((c for c in (*map(content.get, MODEL_KEYS), content) if is_state_dict(c)), None)
    if tensors is None:
        keys = ", ".join(sorted(str(key) for key in content)[:MOST_NAMES]) or "nothing"
        raise SriError(
            f"{path} holds no model, but {keys}",
            "name a checkpoint of SRI, GENESIS, GENESIS-v2 or EfficientMORL",
        )
    if all(name.startswith(PARALLEL) for name in tensors):
        tensors = {name.removeprefix(PARALLEL): tensor for name, tensor in tensors.items()}
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OfficialFile(path, digest, dict(tensors), content)


def load_plain(path: Path) -> Any:
    """The file's dicts, lists, numbers and tensors; SriError for everything else."""
    try:
        with warnings.catch_warnings():  # about unusual files, which are refused anyway
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # arbitrary bytes make the reader fail in any way
        code = unsafe_names(path)
        if code:
            raise SriError(
                f"{path} is refused: reading it would run {', '.join(code)}; only tensors and"
                " plain values are read",
                "if you trust its source, save its model_state_dict alone to another file with"
                " torch.save, and import that",
            ) from error
        raise SriError(
            f"{path} is not a file that torch.save wrote, or it is incomplete",
            "download it again, or name the .pth file of an official implementation",
        ) from error


def unsafe_names(path: Path) -> list[str]:
    """The classes and functions that unpickling the file would call."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a file of torch.save
        return []


def is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether it is a mapping of names to dense real tensors."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(
        isinstance(name, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_complex() or tensor.is_quantized)
        for name, tensor in value.items()
    )


# Matching tensors.


@dataclass
class Match:
    """`weights` and GECO's `scalars`: our name -> official name; then official names of faults.

    `order` lists the official names of everything that may have been trained, as in the file.
    """

    weights: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def system_of(names: Iterable[str]) -> str | None:
    """The system whose name table fits most of these names; None if none fits half of them."""
    names = list(names)
    counts = {s: sum(known_name(s, name) is not None for name in names) for s in TABLES}
    best = max(counts, key=lambda system: counts[system])
    return best if 2 * counts[best] > len(names) else None


def known_name(system: str, official: str) -> str | None:
    """Our name, which our model need not have; None if it is not in the table."""
    try:
        return our_name(system, official)
    except (KeyError, ValueError):  # no prefix fits, or a decoder layer has no number
        return None


def match(official: OfficialFile, system: str, model: nn.Module) -> Match:
    """Assign every tensor of the file to a parameter or buffer of the model."""
    kept = model.state_dict().keys()
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, buffer in model.named_buffers():
        if name in kept and official_name(system, name) is not None:
            expected[name] = buffer.shape
    found = Match()
    for theirs, tensor in official.tensors.items():
        ours, leaf = known_name(system, theirs), theirs.rpartition(".")[2]
        if ours is not None and ours.startswith(IN_TRAINING_STATE):
            found.scalars[ours.removeprefix(IN_TRAINING_STATE)] = theirs
        elif ours is not None and ours in expected:
            found.weights[ours] = theirs
            if tensor.shape != expected[ours]:
                shapes = f"{list(tensor.shape)}, expected {list(expected[ours])}"
                found.misshapen.append(f"{theirs} {shapes}")
        elif leaf in GRIDS or leaf == COUNTER:
            continue
        else:
            found.unexpected.append(theirs)
        if leaf not in BATCH_STATISTICS:
            found.order.append(theirs)
    found.missing = [
        official_name(system, name) or name
        for name in expected
        if name not in found.weights and not name.endswith(COUNTER)
    ]
    return found


def check_match(
    found: Match, official: OfficialFile, recipe: Recipe, ignore_unexpected: bool
) -> None:
    """SriError that lists all tensors that do not fit."""
    names = found.weights.values()
    kinds = {
        "missing": found.missing,
        "of another shape": found.misshapen,
        "not finite": [name for name in names if not official.tensors[name].isfinite().all()],
        "unexpected": [] if ignore_unexpected else found.unexpected,
    }
    faults = [f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]
    if not faults:
        return
    only_unexpected = len(faults) == 1 and kinds["unexpected"]
    raise SriError(
        f"{official.path} does not fit recipe {recipe.name}: {'; '.join(faults)}",
        "--ignore-unexpected imports the rest"
        if only_unexpected
        else "name the recipe, data set and sizes that it was trained with: --recipe NAME|FILE"
        " --data NAME model.KEY=VALUE",
    )


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


# Training state.


def load_training_state(step: TrainStep, official: OfficialFile, found: Match) -> list[str]:
    """Load Adam's moments and GECO's multipliers, where the file has them; notes for the user."""
    state = step.state()
    moments = read_moments(official, found)
    if moments:
        state["optimiser"]["state"] = place_moments(step, found, moments)
    gecos = read_gecos(step, official, found)
    for name, value in gecos.items():
        state["gecos"][name] = torch.full_like(state["gecos"][name], value)
    step.load_state(state)
    betas = [f"{name} {value:.4g}" for name, value in gecos.items() if name.endswith(".beta")]
    return [
        f"Adam resumes with {len(moments)} moments"
        if moments
        else "Adam starts without moments: the file has none that fit the parameters",
        f"GECO resumes with {', '.join(betas)}" if betas else "GECO starts from the recipe's beta",
    ]


def read_moments(official: OfficialFile, found: Match) -> dict[str, dict[str, Tensor]]:
    """Official parameter name -> Adam's state; empty where the file has none that fits.

    An optimiser's state has no names: entry i belongs to parameter i in the official order, if
    number and shapes agree.
    """
    optimiser: Any = next((official.rest[k] for k in OPTIMISER_KEYS if k in official.rest), None)
    try:
        groups, state = optimiser["param_groups"], optimiser["state"]
        keys = [key for group in groups for key in group["params"]]
        entries = {i: adam_entry(state[key]) for i, key in enumerate(keys) if key in state}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return {}
    # GECO's scalars and unexpected tensors may or may not have been among the parameters.
    weights, scalars = set(found.weights.values()), set(found.scalars.values())
    with_scalars = weights | scalars
    for names in (
        [name for name in found.order if name in weights],
        [name for name in found.order if name in with_scalars],
        found.order,
    ):
        if len(names) == len(keys) and all(
            entry[moment].shape == official.tensors[names[i]].shape
            for i, entry in entries.items()
            for moment in MOMENTS
        ):
            return {names[i]: entry for i, entry in entries.items()}
    return {}


def adam_entry(entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """`step` and both moments of one parameter; ValueError for values that are not finite."""
    count = as_number(entry["step"])
    moments = {name: entry[name] for name in MOMENTS}
    if count is None or not all(moment.isfinite().all() for moment in moments.values()):
        raise ValueError("not finite")
    return {"step": torch.tensor(count), **moments}


def place_moments(
    step: TrainStep, found: Match, moments: Mapping[str, dict[str, Tensor]]
) -> dict[int, dict[str, Tensor]]:
    """The moments by the index of our parameter, in its memory format."""
    named = [(name, p) for name, p in step.model.named_parameters() if p.requires_grad]
    placed = {}
    for i, (name, parameter) in enumerate(named):
        entry = moments.get(found.weights[name])
        if entry is not None:
            placed[i] = {"step": entry["step"]} | {
                # The fused kernel walks parameter and moments side by side.
                key: torch.empty_like(parameter).detach().copy_(entry[key])
                for key in MOMENTS
            }
    return placed


def read_gecos(step: TrainStep, official: OfficialFile, found: Match) -> dict[str, float]:
    """Values of GECO's buffers that the file holds, by name, as `imagination.beta`."""
    values = {ours: as_number(official.tensors[name]) for ours, name in found.scalars.items()}
    for objective, keys in zip(step.model.objective_names, GECO_KEYS, strict=False):
        for buffer, key in zip(("beta", "err_ema"), keys, strict=True):
            values.setdefault(f"{objective}.{buffer}", official.number(key))
    kept = step.gecos.state_dict()
    known = {name: value for name, value in values.items() if value is not None and name in kept}
    for name, geco in step.gecos.items():
        # A moving average of 0 has not begun. A file without a step counts as past the warm-up.
        if known.get(f"{name}.err_ema") or known.get(f"{name}.gap_ema"):
            seen = official.step or geco.warmup + 1  # type: ignore[operator]
            known[f"{name}.seen"] = float(seen)
    return known
