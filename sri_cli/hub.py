"""Exported models, in the layout of the Hugging Face Hub: a local folder or a repository.

`sri export` writes
  model.safetensors   the weights
  config.json         what a checkpoint's meta.json holds: step, recipe, origin, SHA-256
  README.md           the model card, and samples.png for it
  recipe.yaml, command.txt, log.jsonl, metrics.jsonl   as in a run folder

To be used it is copied to a run in the runs folder, where samples and figures will be: the folder
and the hub's cache stay as they are. The copy records what it was opened from. Only these files are
read, nothing is unpickled, and what does not fit its SHA-256 is refused.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from sri_cli import __version__
from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import write_atomic
from sri_cli.checkpoint import (
    META,
    STATE,
    WEIGHTS,
    BrokenCheckpoint,
    RunRef,
    checkpoint_path,
    checkpoints_in,
    verify,
)
from sri_cli.console import is_quiet
from sri_cli.errors import SriError, SriFailure, pip_install

PREFIX = "hf:"
CONFIG, CARD, GRID = "config.json", "README.md", "samples.png"
# In exported models and in run folders
RECIPE_NAME = "recipe.yaml"  # resolved, and what it was trained on
COMMANDS = "command.txt"  # the commands that trained it
LOG_NAME = "log.jsonl"  # of the training
MEASUREMENTS = "metrics.jsonl"  # every evaluation appends to it
TEXTS = (RECIPE_NAME, COMMANDS, LOG_NAME, MEASUREMENTS)
OPENED_FROM = "opened-from.txt"  # in a run folder: the exported model that it is a copy of
# Control characters, also escaped as in JSON and YAML: they could rewrite what a terminal shows.
CONTROL = re.compile(
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]"
    rb"|(?<!\\)(?:\\\\)*\\((u00|U000000|x)([0189]|7[fF])|[abefrvN0])"
)
EXPORTED = "name a folder or repository that `sri export` wrote"


def open_folder(folder: Path, runs_root: Path) -> RunRef:
    """Copy an exported model to a run named after the folder and what is in it.

    Raises:
        SriError: it is no exported model, damaged, or has links out of it.
    """
    name = folder.resolve().name
    digest = checkpoints.sha256(_read_text(folder, CONFIG))[:8]
    return copy_to_run(folder, runs_root / f"{name}-{digest}", f"{name} {digest}")


def open_repository(spec: str, runs_root: Path) -> RunRef:
    """Copy the model of `hf:OWNER/NAME[@REVISION]` to a run, downloaded unless it is in the cache.

    Cache, access token, HF_HUB_OFFLINE and HF_ENDPOINT are those of huggingface_hub.

    Raises:
        SriError: there is no such repository, or it is no exported model; or huggingface_hub is
            missing.
        SriFailure: the hub cannot be reached, and the cache does not have it.
    """
    repository, _, revision = spec.removeprefix(PREFIX).partition("@")
    snapshot = _download(spec, repository, revision or None)
    commit = snapshot.name
    run_dir = runs_root / f"{repository.replace('/', '--')}-{commit[:8]}"
    return copy_to_run(snapshot, run_dir, f"{PREFIX}{repository}@{commit}")


def opened_from(run_dir: Path) -> str | None:
    """What a run is a copy of, as `hf:OWNER/NAME@COMMIT`; None for a run of its own."""
    try:
        return (run_dir / OPENED_FROM).read_text("utf-8").strip()
    except OSError:
        return None


def copy_to_run(folder: Path, run_dir: Path, origin: str | None = None) -> RunRef:
    """Copy an exported model to the run folder where it differs; returns the run.

    The model of an earlier version is deleted there; samples, figures and measurements stay, and
    those of this model are added. `origin` is recorded.

    Raises:
        SriError: the folder is no exported model, damaged, or has links out of it; or a training
            wrote to the run folder.
    """
    if any((path / STATE).exists() for path in checkpoints_in(run_dir)):
        raise SriError(
            f"{run_dir} is a run that was trained here, and its name that of an exported model",
            f"rename it: mv {shlex.quote(str(run_dir))} NAME",
        )
    config = _read_text(folder, CONFIG)
    weights = _read(folder, WEIGHTS)  # refuses a link out of the folder, which `verify` follows
    try:
        saved = verify(folder, CONFIG)
    except BrokenCheckpoint as error:
        raise SriError(f"no exported model: {error.message}", EXPORTED) from error
    checkpoint = checkpoint_path(run_dir, saved.step)
    files = {name: _read_text(folder, name) for name in TEXTS if os.path.lexists(folder / name)}
    for name, data in {CONFIG: config, **files}.items():
        if CONTROL.search(data):
            raise SriError(f"{folder}: {name} has control characters", EXPORTED)
    targets = {run_dir / name: data for name, data in files.items()}
    targets |= {checkpoint / WEIGHTS: weights, checkpoint / META: config}
    if origin is not None:
        targets[run_dir / OPENED_FROM] = f"{origin}\n".encode()
    for target, data in targets.items():
        existing = target.read_bytes() if target.is_file() else b""
        if target.name == MEASUREMENTS:
            lines = existing.splitlines()
            lines += [line for line in data.splitlines() if line not in lines]
            data = b"".join(line + b"\n" for line in lines)
        if data != existing:
            write_atomic(target, data)
    for path in checkpoints_in(run_dir):
        if path != checkpoint:
            checkpoints.delete(path)
    return RunRef(run_dir, checkpoint)


def _read_text(folder: Path, name: str) -> bytes:
    """A text file with the line ends that it was written with: git may have changed them."""
    return _read(folder, name).replace(b"\r\n", b"\n")


def _read(folder: Path, name: str) -> bytes:
    """A file of an exported model; SriError if it is missing or a link out of the folder.

    In the hub's cache files are links to blobs of the same repository.
    """
    in_cache = folder.parent.name == "snapshots"
    root = (folder.parents[1] if in_cache else folder).resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(root):
        raise SriError(f"{folder / name} is a link out of its folder", EXPORTED)
    if not path.is_file():
        raise SriError(f"no exported model: {folder} has no {name}", EXPORTED)
    return path.read_bytes()


def _download(spec: str, repository: str, revision: str | None) -> Path:
    """The snapshot folder in the cache."""
    try:
        from huggingface_hub import errors, snapshot_download
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise SriError(
            f"{spec} needs the package huggingface_hub", pip_install("sri-cli[hub]")
        ) from error
    if is_quiet.get() or not sys.stderr.isatty():
        disable_progress_bars()
    try:
        if repository.count("/") != 1:
            raise errors.HFValidationError
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[CONFIG, WEIGHTS, *TEXTS],
            library_name="sri-cli",
            library_version=__version__,
        )
    except errors.HFValidationError as error:
        raise SriError(f"{spec} is no repository", "--run hf:OWNER/NAME[@REVISION]") from error
    except errors.GatedRepoError as error:
        raise SriError(f"{spec} needs its owner's consent", "ask on its page") from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the name; a private one needs `hf auth login`"
        raise SriError(f"no repository {spec} that you can read", hint) from error
    except errors.RevisionNotFoundError as error:
        raise SriError(f"{repository} has no revision {revision}", "leave @REVISION out") from error
    except errors.LocalEntryNotFoundError as error:
        raise SriFailure(
            f"{spec} is not in the cache, and the hub cannot be reached",
            "check the network, and that HF_HUB_OFFLINE is not set",
        ) from error
    except Exception as error:  # of the network, the server or the disk
        reason = " ".join(str(error).split()[:30]) or type(error).__name__
        raise SriFailure(f"{spec} cannot be downloaded: {reason}", "try again") from error
    return Path(folder)
