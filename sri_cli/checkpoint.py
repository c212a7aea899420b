"""Checkpoints: complete or absent, verified before use, without pickled classes.

A checkpoint is a folder `<run>/checkpoints/step-000025000/`:
  model.safetensors   the weights
  state.pt            training state: builtins and tensors, read with weights_only (shipped models
                      have none)
  meta.json           step, resolved recipe, version, SHA-256 of the other files and of itself
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sri_cli import __version__
from sri_cli.atomic import list_folder, new_folder, sync
from sri_cli.console import warn
from sri_cli.errors import SriError

if TYPE_CHECKING:
    from torch import Tensor


FORMAT = 1
DESCRIBED = ("data", "source", "imported", "started_from")  # sections of `extra`
CHECKPOINT_NAME = re.compile(r"step-\d+")
WEIGHTS, STATE, META = "model.safetensors", "state.pt", "meta.json"


class BrokenCheckpoint(SriError):
    """A checkpoint that is incomplete, altered, or of another format."""


@dataclass(frozen=True)
class RunRef:
    """A run and a checkpoint of it (None: the newest valid one)."""

    run_dir: Path
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `extra` holds data set, precision and origin."""

    path: Path
    step: int
    recipe: dict[str, Any]
    extra: dict[str, Any]
    skipped: tuple[BrokenCheckpoint, ...] = ()  # newer ones, which are not intact

    def weights(self) -> dict[str, Tensor]:
        """The model's state dict, on the CPU."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load((self.path / WEIGHTS).read_bytes())
        except SafetensorError as error:
            raise BrokenCheckpoint(
                f"{self.path}: {WEIGHTS} holds no tensors", "name another run or checkpoint"
            ) from error

    def state(self) -> dict[str, Any]:
        """The training state, on the CPU; SriError for a shipped model, which has none."""
        import torch

        if not (self.path / STATE).is_file():
            raise SriError(
                f"{self.path} holds no training state: this model cannot be trained further",
                "train another: sri train --recipe NAME --run DIR",
            )
        return torch.load(self.path / STATE, map_location="cpu", weights_only=True)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is named as a finished checkpoint folder."""
    return bool(CHECKPOINT_NAME.fullmatch(path.resolve().name)) and path.is_dir()


def checkpoints_in(run_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, without links such as `best`."""
    entries = list_folder(run_dir / "checkpoints")
    checkpoints = [p for p in entries if CHECKPOINT_NAME.fullmatch(p.name) and p.is_dir()]
    return sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step-")))


def newest_time(run_dir: Path) -> float:
    """The modification time of the run's newest checkpoint, in seconds; 0 for none."""
    times = [0.0]
    for path in checkpoints_in(run_dir):
        with suppress(FileNotFoundError):  # a training removes old ones
            times.append(path.stat().st_mtime)
    return max(times)


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return run_dir / "checkpoints" / f"step-{step:09d}"


def save(
    run_dir: Path,
    step: int,
    weights: Mapping[str, Tensor],
    recipe: dict[str, Any],
    state: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint after `step` steps, and return its folder.

    The files are serialised in memory and written to a folder beside it, which is renamed at the
    end: a kill at any moment leaves no checkpoint of this step or a complete one.

    Raises:
        SriFailure: a file could not be written.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    files = {WEIGHTS: weights_bytes(weights), STATE: buffer.getvalue()}
    files[META] = meta_bytes(step, files, recipe, extra or {})
    target = checkpoint_path(run_dir, step)
    if target.exists():  # not intact
        delete(target)
    with new_folder(target) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
            sync(folder / name)
        sync(folder)
    return target


def meta_bytes(
    step: int, files: Mapping[str, bytes], recipe: dict[str, Any], extra: dict[str, Any]
) -> bytes:
    """The content of meta.json for these files."""
    meta = {
        "format": FORMAT,
        "version": __version__,
        "step": step,
        "files": {name: sha256(data) for name, data in files.items()},
        "recipe": recipe,
        "extra": extra,
    }
    return json.dumps(meta | {"sha256": _digest(meta)}, indent=2).encode()


def verify(path: Path, meta_name: str = META) -> Checkpoint:
    """The checkpoint at `path`, every byte checked; BrokenCheckpoint names the bad file."""
    meta = read_meta(path, meta_name)
    for name, digest in meta["files"].items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            raise BrokenCheckpoint(f"{path}: {name} cannot be read ({error.strerror})") from error
        if sha256(data) != digest:
            raise BrokenCheckpoint(f"{path}: {name} is incomplete or altered")
    return Checkpoint(path, meta["step"], meta["recipe"], meta["extra"])


def newest_good(
    run_dir: Path, upto: Path | None = None, *, quiet: bool = False
) -> Checkpoint | None:
    """The newest intact checkpoint (not after `upto`); None for a run that has none at all.

    Broken ones are noted on stderr unless `quiet`, and are in `Checkpoint.skipped`.

    Raises:
        SriError: there are checkpoints, but none is intact.
    """
    last = None if upto is None else upto.resolve().name
    paths = [path for path in checkpoints_in(run_dir) if last is None or path.name <= last]
    skipped: list[BrokenCheckpoint] = []
    for path in reversed(paths):
        try:
            return replace(verify(path), skipped=tuple(skipped))
        except BrokenCheckpoint as error:
            skipped.append(error)
            if not quiet:
                warn(f"Note: {error.message}; using the checkpoint before it")
    if last is not None:
        raise SriError(f"no checkpoint of {run_dir} up to {last} is intact", "name the run itself")
    if paths:
        raise SriError(
            f"none of the {len(paths)} checkpoints of {run_dir} is intact",
            "train again into another folder: sri train ... --run DIR",
        )
    return None


def prune(run_dir: Path, keep: int, keep_every: int) -> None:
    """Delete all but the last `keep` checkpoints and those at multiples of `keep_every` steps.

    What was kept stays: a checkpoint also counts by the `keep_every` of its own recipe.
    """
    for path in checkpoints_in(run_dir)[:-keep]:
        step = int(path.name.removeprefix("step-"))
        if step % keep_every and step % (_keep_every_of(path) or keep_every):
            delete(path)


def _keep_every_of(path: Path) -> int | None:
    with suppress(BrokenCheckpoint):
        return read_meta(path)["recipe"].get("train", {}).get("keep_every")
    return None


def set_aside_after(run_dir: Path, step: int) -> None:
    """Rename checkpoints after `step`, so that they do not count as newest."""
    for path in checkpoints_in(run_dir):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(f"broken-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def delete(path: Path) -> None:
    """Delete a checkpoint; renamed first, so that half of it does not count as one."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old")
    with suppress(FileNotFoundError):  # another process deletes it, too
        os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(run_dir: Path) -> None:
    """Delete what a killed process left half-written or half-deleted."""
    for path in (run_dir / "checkpoints").glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def weights_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """A state dict as safetensors, in row-major layout."""
    from safetensors.torch import save as to_bytes

    return to_bytes({name: t.detach().cpu().contiguous() for name, t in weights.items()})


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _digest(meta: dict[str, Any]) -> str:
    return sha256(json.dumps(meta, sort_keys=True).encode())


def read_meta(path: Path, name: str = META) -> dict[str, Any]:
    """The content of meta.json without its digest; BrokenCheckpoint if that does not fit."""
    try:
        meta = json.loads((path / name).read_bytes())
        digest = meta.pop("sha256")
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise BrokenCheckpoint(f"{path}: {name} cannot be read") from error
    if digest != _digest(meta):
        raise BrokenCheckpoint(f"{path}: {name} is incomplete or altered")
    if meta.get("format") != FORMAT:
        raise BrokenCheckpoint(f"{path}: format {meta.get('format')}, this version reads {FORMAT}")
    extra = meta.get("extra")
    if not (
        type(meta.get("step")) is int
        and meta["step"] >= 0
        and isinstance(meta.get("version"), str)
        and isinstance(meta.get("recipe"), dict)
        and isinstance(extra, dict)
        and all(isinstance(extra.get(key, {}), dict) for key in DESCRIBED)
        and isinstance(meta.get("files"), dict)
        and {WEIGHTS} <= meta["files"].keys() <= {WEIGHTS, STATE}
    ):
        raise BrokenCheckpoint(f"{path}: {name} does not describe a model")
    return meta
