"""`sri import`: an official checkpoint of any system becomes a run.

The file is read without running anything in it. Its tensors go into a model of ours by the name
tables of models/official.py, and the states of Adam and GECO as far as the file has them.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import list_folder, new_folder
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.models.official import TABLES, official_name, our_name
from sri_cli.run import Workspace, is_path
from sri_cli.training.run_folder import begin_command, describe_run, end_command, resolve_run
from sri_cli.training.step import TrainStep
from sri_cli.training.trainer import new_step

# The default recipe of a system; weights do not show which likelihood they are for.
DEFAULT_RECIPE = {
    "sri": "sri-mog",
    "genesis-v2": "genesis-v2-mog",
    "genesis": "genesis",
    "emorl": "emorl",
    "slot-vae": "slot-vae",
}
NAME_A_CHECKPOINT = "name a checkpoint of SRI, GENESIS, GENESIS-v2, EfficientMORL or Slot-VAE"
MODEL_KEYS = ("model_state_dict", "model", "state_dict")
OPTIMISER_KEYS = ("optimiser_state_dict", "optimizer_state_dict", "optimiser", "optimizer")
STEP_KEYS = ("iter_idx", "step", "global_step")
# GECO's multiplier and moving average, for each objective of the model in order.
GECO_KEYS = (("beta", "err_ema"), ("beta_sri", "err_sri_ema"))
MOMENTS = ("exp_avg", "exp_avg_sq")
# What DataParallel, torch.compile and Lightning put before every name, in any order.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# A weight beyond this is damage: the largest of trained models, BatchNorm's variances, are far
# below.
MAX_WEIGHT = 1e6
# Buffers of official modules that follow from the sizes: coordinate grids, zeros.
CONSTANTS = ("g_1", "g_2", "coords", "grid", "dec_step_0")
TIED = "p_z_given_g."  # Slot-VAE's prior shares the tensors of p_z_given_x.
FIXED = ("slots_mu", "slots_log_sigma")  # random buffers of Slot-VAE, which are not trained
COUNTER = "num_batches_tracked"  # of BatchNorm; old files lack it, and nothing depends on it
BATCH_STATISTICS = ("running_mean", "running_var", COUNTER)
IN_TRAINING_STATE = "gecos."  # prefix of our names for tensors that are not weights
MAX_NAMES = 10  # in a message


@dataclass(frozen=True)
class Imported:
    """The new run folder, its checkpoint and recipe; `notes` are for the user."""

    run: Path
    checkpoint: Path
    step: int
    system: str
    recipe: str
    image_size: int
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
            f" {first_names(list(official.tensors))}",
            NAME_A_CHECKPOINT,
        )
    name = recipe_name or DEFAULT_RECIPE[system]
    recipe, data, run_dir = resolve_run(
        *(workspace, name),
        data=data,
        run=run,
        overrides=overrides,
        follow=data is not None and is_path(data),  # else the published size of the data set
    )
    if recipe.model.system != system:
        raise SriError(
            f"{path} holds weights of {system}, but recipe {recipe.name} is for"
            f" {recipe.model.system}",
            f"--recipe {DEFAULT_RECIPE[system]}",
        )
    run_dir = run_dir if run else run_dir.with_name(f"{run_dir.name}-imported")
    if list_folder(run_dir) or (run_dir.exists() and not run_dir.is_dir()):
        raise SriError(f"{run_dir} exists already", "name another folder: --run DIR")
    source = describe_source(workspace, recipe, data)
    step = new_step(recipe, torch.device("cpu"))
    match = match_tensors(official, system, step.model)
    check_match(match, official, recipe, ignore_unexpected)
    notes = [] if recipe_name else [note_of_assumptions(name, recipe)]
    notes += [f"left out: {first_names(match.unexpected)}"] if match.unexpected else []
    weights = {ours: official.tensors[theirs] for ours, theirs in match.weights.items()}
    step.model.load_state_dict(step.model.state_dict() | weights)
    notes += load_training_state(step, official, match)
    done = official.step or 0
    step.set_phase(done)
    origin = {"file": path.name, "sha256": official.sha256, "system": system}
    write_run(run_dir, recipe, step, done, {"source": source, "imported": origin}, command)
    saved = checkpoints.checkpoint_path(run_dir, done)
    parameters = sum(p.numel() for p in step.params)
    size = recipe.model.image_size
    return Imported(run_dir, saved, done, system, name, size, parameters, notes)


def describe_source(workspace: Workspace, recipe: Recipe, data: str) -> dict[str, str]:
    """What figures say about the run's data, and its file where one is named."""
    if not is_path(data) and data == recipe.data:
        return {"caption": f"{recipe.data}, imported weights"}
    file = DataFile(workspace.find_data(data, recipe.model.image_size))
    file.check_size(recipe.model.image_size)
    return {"file": str(file.path.resolve()), "caption": f"{file.caption}, imported weights"}


def note_of_assumptions(name: str, recipe: Recipe) -> str:
    """The settings that were assumed because no recipe is named."""
    model = recipe.model
    return (
        f"assumed recipe {name} on {recipe.data}: {model.image_size} px, {model.slots} slots,"
        f" likelihood {model.likelihood} with std {model.std:g}; weights do not show them"
        " (--recipe, --data, KEY=VALUE)"
    )


def write_run(
    run_dir: Path, recipe: Recipe, step: TrainStep, done: int, extra: dict[str, Any], command: str
) -> None:
    """Write the run folder as training would, completely or not at all."""
    with new_folder(run_dir) as folder:
        describe_run(folder, recipe, {"started_from": extra["imported"]})
        begin_command(folder, command, done)
        end_command(folder, done)
        state = {"step": step.state(), "attempt": 0}
        values = recipe.model_dump(mode="json")
        checkpoints.save(folder, done, step.model.state_dict(), values, state, extra)


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
        values = (as_number(self.rest.get(key)) for key in STEP_KEYS)
        return next((int(value) for value in values if value is not None and value >= 0), None)


def as_number(value: Any) -> float | None:
    """A finite number, plain or a tensor of one element; None for anything else."""
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if isinstance(value, np.generic):
        value = value.item()
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
        keys = ", ".join(sorted(str(key) for key in content)[:MAX_NAMES]) or "nothing"
        raise SriError(f"{path} holds no model, but {keys}", NAME_A_CHECKPOINT)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OfficialFile(path, digest, without_wrappers(tensors), content)


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without prefixes of WRAPPERS that all names carry."""
    named = dict(tensors)
    while wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in named)), None):
        named = {name.removeprefix(wrapper): tensor for name, tensor in named.items()}
    return named


def harmless() -> list[Any]:
    """What files of torch.save hold besides tensors and builtins, and what runs no code: scalars
    of NumPy, under both names of its module, and defaultdict, which becomes a dict."""
    scalar = np.float64(0).__reduce__()[0]
    number_types = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"}
    names = [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]
    return [
        *((scalar, name) for name in names),
        (lambda *factory: {}, "collections.defaultdict"),  # only dicts of torch's own list fill
        *(np.dtype, codecs.encode, dict, list, set, int, float),
        *number_types,
    ]


def load_plain(path: Path) -> Any:
    """The file's dicts, lists, numbers and tensors; SriError for everything else.

    torch.load does not compare the checksums in the file, so that is done here.

    Raises:
        OSError: if it cannot be opened.
    """
    open(path, "rb").close()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{damaged} does not have its checksum")
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless()):
            warnings.simplefilter("ignore")  # about unusual files, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # arbitrary bytes make the reader fail in any way
        try:
            with torch.serialization.safe_globals(harmless()):
                code = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a file of torch.save
            code = []
        if code and not isinstance(error, zipfile.BadZipFile):
            raise SriError(
                f"{path} is refused: reading it would run {', '.join(code)}; only tensors and"
                " plain values are read",
                "if you trust its source, save its model_state_dict alone to another file with"
                " torch.save, and import that",
            ) from error
        raise SriError(
            f"{path} is damaged, incomplete, or no file that torch.save wrote",
            "download it again, or name the .pth file of an official implementation",
        ) from error


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
    counts = {s: sum(our_name(s, name) is not None for name in names) for s in TABLES}
    best = max(counts, key=lambda system: counts[system])
    return best if 2 * counts[best] > len(names) else None


def match_tensors(official: OfficialFile, system: str, model: nn.Module) -> Match:
    """Assign every tensor of the file to a parameter or buffer of the model."""
    saved = model.state_dict().keys()
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, buffer in model.named_buffers():
        if name in saved and official_name(system, name) is not None:
            expected[name] = buffer.shape
    match = Match()
    for theirs, tensor in official.tensors.items():
        ours, leaf = our_name(system, theirs), theirs.rpartition(".")[2]
        if ours is not None and ours.startswith(IN_TRAINING_STATE):
            match.scalars[ours.removeprefix(IN_TRAINING_STATE)] = theirs
        elif ours is not None and ours in expected:
            match.weights[ours] = theirs
            if tensor.shape != expected[ours]:
                shapes = f"{list(tensor.shape)}, expected {list(expected[ours])}"
                match.misshapen.append(f"{theirs} {shapes}")
        elif leaf in CONSTANTS or leaf == COUNTER or theirs.startswith(TIED):
            continue
        else:
            match.unexpected.append(theirs)
        if leaf not in (*BATCH_STATISTICS, *FIXED):
            match.order.append(theirs)
    match.missing = [
        official_name(system, name) or name
        for name in expected
        if name not in match.weights and not name.endswith(COUNTER)
    ]
    return match


def check_match(
    match: Match, official: OfficialFile, recipe: Recipe, ignore_unexpected: bool
) -> None:
    """SriError that lists all tensors that do not fit."""
    names = match.weights.values()
    kinds = {
        "missing": match.missing,
        "of another shape": match.misshapen,
        f"not finite or beyond {MAX_WEIGHT:g}": [
            name
            for name in names
            if not (name.endswith(COUNTER) or (official.tensors[name].abs() <= MAX_WEIGHT).all())
        ],
        "unexpected": [] if ignore_unexpected else match.unexpected,
    }
    faults = {kind: names for kind, names in kinds.items() if names}
    if faults:
        lists = [f"{len(names)} {kind}: {first_names(names)}" for kind, names in faults.items()]
        raise SriError(
            f"{official.path} does not fit recipe {recipe.name}: {'; '.join(lists)}",
            "--ignore-unexpected imports the rest"
            if faults.keys() == {"unexpected"}
            else "name the recipe, data set and sizes that it was trained with: --recipe NAME|FILE"
            " --data NAME model.KEY=VALUE",
        )


def first_names(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def load_training_state(step: TrainStep, official: OfficialFile, match: Match) -> list[str]:
    """Load Adam's moments and GECO's multipliers, where the file has them; notes for the user."""
    state = step.state()
    moments = read_moments(official, match)
    for i, (name, parameter) in enumerate(step.model.named_parameters()):
        entry = moments.get(match.weights[name])
        if entry is not None:
            state["optimiser"]["state"][i] = {"step": entry["step"]} | {
                # The fused kernel walks parameter and moments side by side.
                key: torch.empty_like(parameter).detach().copy_(entry[key])
                for key in MOMENTS
            }
    gecos = read_gecos(step, official, match)
    for name, value in gecos.items():
        state["gecos"][name] = torch.full_like(state["gecos"][name], value)
    step.load_state(state)
    betas = [f"{name} {value:.4g}" for name, value in gecos.items() if name.endswith(".beta")]
    adam = (
        f"Adam resumes with {len(moments)} moments"
        if moments
        else "Adam starts without moments: the file has none that fit the parameters"
    )
    if step.model.geco == "none":
        return [adam]
    start = (
        f"GECO resumes with {', '.join(betas)}" if betas else "GECO starts from the recipe's beta"
    )
    return [adam, start]


def read_moments(official: OfficialFile, match: Match) -> dict[str, dict[str, Tensor]]:
    """Official parameter name -> Adam's state; empty where the file has none that fits.

    An optimiser's state has no names: entry i belongs to parameter i in the official order, if
    number and shapes agree.
    """
    optimiser: Any = next((official.rest[k] for k in OPTIMISER_KEYS if k in official.rest), None)
    try:
        groups, state = optimiser["param_groups"], optimiser["state"]
        keys = [key for group in groups for key in group["params"]]
        entries = {i: adam_entry(state[key]) for i, key in enumerate(keys) if key in state}
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return {}
    # GECO's scalars and unexpected tensors may or may not have been among the parameters.
    weights = set(match.weights.values())
    with_scalars = weights | set(match.scalars.values())
    for trained in (weights, with_scalars, set(match.order)):
        names = [name for name in match.order if name in trained]
        if len(names) == len(keys) and all(
            entry[moment].shape == official.tensors[names[i]].shape
            for i, entry in entries.items()
            for moment in MOMENTS
        ):
            return {names[i]: entry for i, entry in entries.items()}
    return {}


def adam_entry(entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """`step` and both moments of one parameter; ValueError for values that cannot be."""
    count = as_number(entry["step"])
    moments = {name: entry[name] for name in MOMENTS}
    finite = all(moment.isfinite().all() for moment in moments.values())
    if count is None or not finite or (moments["exp_avg_sq"] < 0).any():
        raise ValueError("no state of Adam")
    return {"step": torch.tensor(count), **moments}


def read_gecos(step: TrainStep, official: OfficialFile, match: Match) -> dict[str, float]:
    """Values of GECO's buffers that the file holds, by name, as `imagination.beta`."""
    if step.model.geco == "none":
        return {}
    values = {ours: as_number(official.tensors[name]) for ours, name in match.scalars.items()}
    for objective, keys in zip(step.model.objective_names, GECO_KEYS, strict=False):
        for buffer, key in zip(("beta", "err_ema"), keys, strict=True):
            values.setdefault(f"{objective}.{buffer}", as_number(official.rest.get(key)))
    ours = step.gecos.state_dict()
    known = {name: value for name, value in values.items() if value is not None and name in ours}
    for name, geco in step.gecos.items():
        # A moving average of 0 has not begun. A file without a step counts as past the warm-up.
        if known.get(f"{name}.err_ema") or known.get(f"{name}.gap_ema"):
            seen = official.step or geco.warmup + 1  # type: ignore[operator]
            known[f"{name}.seen"] = float(seen)
    return known
