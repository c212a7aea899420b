"""Runs as a whole: what is in the runs folder, what differs between two runs, their removal.

No weights are read, and torch is not imported: `sri runs ls` is quick with hundreds of runs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sri_cli.atomic import disk_hint, lock_file
from sri_cli.checkpoint import BrokenCheckpoint, checkpoint_path, newest_good, read_meta
from sri_cli.errors import SriError, SriFailure, did_you_mean
from sri_cli.metrics.records import HALF, Measurement, largest, read_records
from sri_cli.run import (
    LOCK_NAME,
    LOG_NAME,
    Workspace,
    checkpoints_in,
    is_run,
    is_training,
    lock_run,
    recipe_file,
    runs_in,
)
from sri_cli.training.log import error_and_kl, last_record, record_at

Settings = dict[str, str]
WAIT = "stop it, or wait for its end"


@dataclass(frozen=True)
class Summary:
    """A run in a list.

    `step` is that of the newest checkpoint, or of the log while it is trained; `steps` the
    recipe's. `time` (of the last change to checkpoints or log) is in UTC; `bytes` is the size of
    all files. `error` and `kl` are the log's last, in nats; `metrics` what is recorded of the
    newest checkpoint. None: not known.
    """

    run: str
    path: Path
    recipe: str | None
    size: str | None
    data: str | None
    step: int
    steps: int | None
    training: bool | None
    time: str
    bytes: int
    checkpoints: int
    error: float | None
    kl: float | None
    metrics: list[Measurement]


def summaries(workspace: Workspace) -> list[Summary]:
    """All runs of the runs folder, latest first."""
    found = [summarise(workspace.runs_root, run) for run in runs_in(workspace.runs_root)]
    return sorted(found, key=lambda one: one.time, reverse=True)


def summarise(runs_root: Path, run_dir: Path) -> Summary:
    """The run in a list."""
    meta, checkpoints = newest_meta(run_dir), checkpoints_in(run_dir)
    recipe = meta.get("recipe") or recipe_file(run_dir)
    train = recipe.get("train")  # of an unfinished file maybe nothing, or text
    record, training = last_record(run_dir / LOG_NAME), is_training(run_dir)
    step = meta.get("step", 0)
    error, kl = error_and_kl(record)
    newest = checkpoints[-1] if checkpoints else run_dir
    changed = max(path.stat().st_mtime for path in (newest, run_dir / LOG_NAME) if path.exists())
    return Summary(
        run=str(run_dir.relative_to(runs_root)),
        path=run_dir,
        recipe=recipe.get("name"),
        size=recipe.get("size"),
        data=meta.get("extra", {}).get("data", {}).get("name") or recipe.get("data"),
        step=max(step, record.get("step", 0)) if training else step,
        steps=train.get("steps") if isinstance(train, dict) else None,
        training=training,
        time=datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"),
        bytes=bytes_in(run_dir),
        checkpoints=len(checkpoints),
        error=error,
        kl=kl,
        metrics=[
            {key: value for key, value in m.items() if key != "subject"}
            for m in measured(run_dir, newest)
        ],
    )


def newest_meta(run_dir: Path, checkpoint: Path | None = None) -> dict[str, Any]:
    """The meta.json of `checkpoint`, by default of the newest that can be read; empty without."""
    for path in [checkpoint] if checkpoint else reversed(checkpoints_in(run_dir)):
        with suppress(BrokenCheckpoint):
            return read_meta(path)
    return {}


def measured(run_dir: Path, checkpoint: Path) -> list[Measurement]:
    """The measurements of the checkpoint, of each kind that of the largest sample."""
    records = [
        m
        for m in read_records(run_dir)
        if m["subject"].get("checkpoint") == checkpoint.name and HALF not in m["subject"]
    ]
    # Other weights after as many steps: of an earlier shipped model
    return largest(m for m in records if m["subject"]["model"] == records[-1]["subject"]["model"])


def bytes_in(folder: Path) -> int:
    """The size of all files in a folder, in bytes; links count as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            with suppress(FileNotFoundError):  # a training may delete some
                total += 0 if os.path.islink(path) else os.path.getsize(path)
    return total


# What differs


def settings_of(run_dir: Path, recipe: dict[str, Any], extra: dict[str, Any]) -> Settings:
    """`section.key` -> value of what decided the weights of a run.

    Settings of the recipe that have an effect, the images, and the weights that it began with.
    """
    from sri_cli.config.schema import flatten, without_effect

    idle = {"description", *without_effect(recipe["model"])}
    values = {
        key: "none" if value is None else str(value)
        for key, value in flatten(recipe).items()
        if key.rpartition(".")[2] not in idle
    }
    data = dict(extra.get("data", {}))
    data.pop("crop", None)  # older runs lack it, and `content` tells images apart
    values["data"] = str(data.pop("name", recipe["data"]))
    file = (recipe_file(run_dir).get("trained_on") or extra.get("source", {})).get("file")
    data |= {"file": Path(file).name} if file else {}
    start = extra.get("started_from") or extra.get("imported") or {}
    started = ", ".join(f"{key} {start[key]}" for key in ("run", "step", "file") if key in start)
    facts = {f"data.{key}": str(value) for key, value in data.items()}
    return values | facts | {"initial weights": started or "random"}


def differing(settings: Sequence[Settings]) -> dict[str, list[str]]:
    """The keys whose values are not all the same; a dash where a setting has no effect."""
    keys = dict.fromkeys(key for own in settings for key in own)
    rows = {key: [own.get(key, "-") for own in settings] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


@dataclass(frozen=True)
class Difference:
    """Two runs compared; each list has the value of the first and of the second.

    `settings` holds those that differ of `compared`.
    """

    runs: list[str]
    steps: list[int]
    compared: int
    settings: dict[str, list[str]]
    code: dict[str, list[str]]
    training: dict[str, list[float | None]]
    metrics: list[list[Measurement]]
    commands: list[list[str]]


def compare(workspace: Workspace, runs: Sequence[str]) -> Difference:
    """What differs between two runs or checkpoints.

    Raises:
        SriError: there is no such run, or it has no readable checkpoint.
    """
    from sri_cli.config.load import recipe_from_dict
    from sri_cli.training.run_folder import read_commands

    refs = [workspace.find_run(run) for run in runs]
    found = [(ref, newest_meta(ref.run_dir, ref.checkpoint)) for ref in refs]
    metas, settings = [meta for _, meta in found], []
    for ref, meta in found:
        if not meta:
            checked = ref.checkpoint or ref.run_dir
            raise SriError(f"no checkpoint of {checked} can be read", "name another run")
        recipe = recipe_from_dict(meta["recipe"]).model_dump(mode="json")
        settings.append(settings_of(ref.run_dir, recipe, meta["extra"]))
    names = [ref.run_dir.name for ref in refs]
    paths = [str(ref.checkpoint or ref.run_dir) for ref in refs]
    last = [error_and_kl(record_at(ref.run_dir / LOG_NAME, meta["step"])) for ref, meta in found]
    return Difference(
        runs=names if names[0] != names[1] else paths,
        steps=[meta["step"] for meta in metas],
        compared=len(dict.fromkeys(key for own in settings for key in own)),
        settings=differing(settings),
        code={
            "sri": [meta["version"] for meta in metas],
            "precision": [str(meta["extra"].get("precision")) for meta in metas],
        },
        training={"error": [error for error, _ in last], "KL": [kl for _, kl in last]},
        metrics=[
            measured(ref.run_dir, checkpoint_path(ref.run_dir, meta["step"])) for ref, meta in found
        ],
        commands=[read_commands(ref.run_dir) for ref in refs],
    )


# Removal


def runs_of(folder: Path) -> list[Path]:
    """The folder if it is a run, else the runs in it, as of a study; empty for no folder."""
    return [folder] if is_run(folder) else runs_in(folder)


def removable(workspace: Workspace, names: Sequence[str]) -> list[Path]:
    """The folders of these runs or studies, all inside the runs folder, and none in another.

    Raises:
        SriError: one is no run, outside of the runs folder, a link, or trained now.
    """
    root = workspace.runs_root.resolve()
    folders = []
    for name in names:
        path = workspace.runs_root / name
        path = Path(os.path.abspath(path if os.path.lexists(path) else name))
        if path.is_symlink():
            raise SriError(
                f"{path} is a link to {path.resolve()}", "remove the link yourself: rm LINK"
            )
        path = path.resolve()
        if not runs_of(path):
            near = did_you_mean(name, [str(run.relative_to(root)) for run in runs_in(root)])
            raise SriError(f"no run {name}{near}", "`sri runs ls` lists the runs")
        if root not in path.parents:
            raise SriError(
                f"{path} is not in the runs folder {workspace.runs_root}",
                "name its folder: sri --runs-root DIR runs rm RUN",
            )
        for run in runs_of(path):
            if is_training(run):
                raise SriError(f"a sri train is writing to {run}", WAIT)
        folders.append(path)
    return [one for one in dict.fromkeys(folders) if not {*folders} & {*one.parents}]


def remove(folder: Path, old_checkpoints: bool = False) -> int:
    """Delete a run, or a study with its runs and results; returns the bytes that were freed.

    Links are deleted, what they point to is not. A removal that was stopped is finished by another
    one.

    Args:
        folder: From `removable`.
        old_checkpoints: Delete all checkpoints but the newest intact one, and nothing else.

    Raises:
        SriError: a run is trained now, or no checkpoint is intact; nothing has been deleted then.
        SriFailure: the disk refuses.
    """
    runs = [run for run in runs_of(folder) if run.resolve() == run]  # none behind a link
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(lock_run(run, WAIT))
        for lock in folder.glob("study-*.lock"):
            stack.callback(os.close, lock_file(lock, "running", WAIT))
        before = bytes_in(folder)
        doomed = list(_older_checkpoints(runs) if old_checkpoints else _contents(runs, folder))
        try:
            for path in doomed:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            message = f"could not delete {error.filename}: {error.strerror}"
            raise SriFailure(message, disk_hint(error)) from error
        return before - (bytes_in(folder) if folder.exists() else 0)


def _older_checkpoints(runs: Sequence[Path]) -> Iterator[Path]:
    """All but the newest intact checkpoint of each run and links to it."""
    for run in runs:
        newest = newest_good(run, quiet=True)
        if newest is not None:
            kept, paths = os.path.realpath(newest.path), (run / "checkpoints").iterdir()
            yield from (path for path in paths if os.path.realpath(path) != kept)


def _contents(runs: Sequence[Path], folder: Path) -> Iterator[Path]:
    """What to delete, in order: the lock of a run last, so that an interrupted removal shows."""
    for run in runs:
        yield from (path for path in run.iterdir() if path.name != LOCK_NAME)
        yield run
    if folder not in runs:
        yield folder
