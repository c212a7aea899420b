"""The folders of data and runs: which file a name means, which run is the latest."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli import hub
from sri_cli.atomic import cannot_write, list_folder
from sri_cli.checkpoint import RunRef, checkpoints_in, is_checkpoint, newest_time
from sri_cli.errors import SriError, did_you_mean
from sri_cli.hub import COMMANDS as COMMANDS
from sri_cli.hub import LOG_NAME, RECIPE_NAME
from sri_cli.hub import MEASUREMENTS as MEASUREMENTS

# `--run NAME` -> the exported model in the package.
PRETRAINED = Path(__file__).parent / "pretrained"
SHIPPED = {
    "pretrained": PRETRAINED / "towers",
    "pretrained-rooms": PRETRAINED / "rooms",
    "pretrained-tables": PRETRAINED / "tables",
}
LOCK_NAME = ".lock"  # in a run folder, held by the process that trains it
HINTED_RUNS = 5  # in an error; the latest
# Data set name -> the arguments of `sri prepare` that make it.
PREPARED_AS = {
    "shapestacks": "shapestacks",
    "demo-towers": "shapestacks --preset demo",
    "objects-room": "objects-room",
    "objects-room-empty-room": "objects-room --from bucket --test-set empty_room",
    "objects-room-six-objects": "objects-room --from bucket --test-set six_objects",
    "objects-room-identical-color": "objects-room --from bucket --test-set identical_color",
    "clevr6": "clevr6",
    "clevr10": "clevr10",
    "multi-dsprites": "multi-dsprites",
    "multi-dsprites-colored-on-colored": "multi-dsprites --variant colored_on_colored",
    "multi-dsprites-binarized": "multi-dsprites --variant binarized",
    "tetrominoes": "tetrominoes",
    "clevrtex": "clevrtex --from DIR",
    "clevrtex-pbg": "clevrtex --from DIR --variant pbg",
    "clevrtex-vbg": "clevrtex --from DIR --variant vbg",
    "clevrtex-grassbg": "clevrtex --from DIR --variant grassbg",
    "clevrtex-camo": "clevrtex --from DIR --variant camo",
    "clevrtex-outd": "clevrtex --from DIR --variant outd",
}


def prepare_hint(how: str, name: str, size: int | str | None) -> str:
    """The hint that names the command which makes a data set, by default from the user's images."""
    return f"{how}: sri prepare {prepared_as(name)}" + (f" --size {size}" if size else "")


def prepared_as(name: str) -> str:
    """The arguments of `sri prepare` that make a data set, by default from the user's images."""
    return PREPARED_AS.get(name, f"folder DIR --name {name}")


@dataclass(frozen=True)
class Workspace:
    """The folders of data and runs that all commands share."""

    data_root: Path
    runs_root: Path

    def __post_init__(self) -> None:
        for name in ("data_root", "runs_root"):  # a variable or the API may have ~
            object.__setattr__(self, name, Path(os.path.expanduser(getattr(self, name))))

    def data_path(self, name: str, size: int) -> Path:
        """The file of the data set `name` at `size` px."""
        return self.data_root / f"{name}-{size}.h5"

    def data_files(self) -> dict[str, dict[int, Path]]:
        """The prepared files: data set -> image size in px -> file, from their names alone."""
        files: dict[str, dict[int, Path]] = {}
        for path in list_folder(self.data_root):
            name, _, px = path.stem.rpartition("-")
            if path.suffix == ".h5" and px.isdecimal():
                files.setdefault(name, {})[int(px)] = path
        return files

    def find_data(self, name_or_file: str, size: int | None) -> Path:
        """The data file of a name (at `size` px) or a path; SriError when it does not exist.

        The file's name without .h5 is a name, too.
        """
        if is_path(name_or_file):
            path = Path(name_or_file)
            if path.is_file():
                return path
            fault = "is a folder, not a data file" if path.is_dir() else "does not exist"
            raise SriError(f"data file {path} {fault}", "`sri prepare --list` lists the data files")
        plain = self.data_root / f"{name_or_file}.h5"
        path = plain if size is None else self.data_path(name_or_file, size)
        for candidate in (path, plain):
            if candidate.is_file():
                return candidate
        what = path if size is not None else f"of {name_or_file} in {self.data_root}"
        others = ", ".join(map(str, self.data_files().get(name_or_file, {}).values()))
        known = [*self.data_files(), *PREPARED_AS]
        near = "" if name_or_file in known else did_you_mean(name_or_file, known)
        raise SriError(
            f"no data file {what}" + (f", but {others} exists" if others else near),
            prepare_hint("make it with", name_or_file, size),
        )

    def run_dir(self, name_or_path: str) -> Path:
        """The folder of a new run, given by path or name; SriError for that of a shipped model."""
        path = Path(name_or_path) if is_path(name_or_path) else self.runs_root / name_or_path
        if path.name in SHIPPED and path.parent.resolve() == self.runs_root.resolve():
            raise SriError(f"{path.name} is the name of a shipped model", "choose another name")
        return path

    def find_run(self, arg: str | None = None) -> RunRef:
        """The run that `arg` names: a folder, a name or a checkpoint; None: the latest run.

        The names of SHIPPED are the shipped models, `hf:OWNER/NAME` is one of the Hugging Face Hub;
        these and folders of `sri export` are copied to the runs folder, where samples and figures
        will be.

        Raises:
            SriError: when there is no such run, or it has no checkpoint.
            SriFailure: the hub cannot be reached.
        """
        if arg in SHIPPED:
            return hub.copy_to_run(SHIPPED[arg], self.runs_root / arg)
        if arg is not None and arg.startswith(hub.PREFIX):
            return hub.open_repository(arg, self.runs_root)
        if arg is None:
            names = self.run_names()
            if not names:
                raise SriError(f"no trained run in {self.runs_root}", self._runs_hint())
            return RunRef(self.runs_root / names[0])
        candidates = [self.runs_root / arg, Path(arg)]
        if is_path(arg):
            candidates.reverse()
        path = next((candidate for candidate in candidates if candidate.is_dir()), None)
        if path is None:
            near = did_you_mean(arg, [*self.run_names(), *SHIPPED])
            raise SriError(f"no run {arg}{near}", self._runs_hint())
        run_dir = path.parent.parent if is_checkpoint(path) else path
        if run_dir.name in ("", ".."):  # captions and tables have the name of the folder
            path = path.resolve()
        if is_checkpoint(path):
            return RunRef(path.parent.parent, path)
        if (path / hub.CONFIG).exists() and not (path / "checkpoints").exists():  # of `sri export`
            return hub.open_folder(path, self.runs_root)
        if not checkpoints_in(path):
            raise SriError(
                f"run {path} has no checkpoint",
                "run its `sri train` command again, or choose another run with --run",
            )
        return RunRef(path)

    def run_names(self) -> list[str]:
        """All runs with a checkpoint but the shipped and exported ones, latest first."""
        found = (run for run in visible(self.runs_root) if run.name not in SHIPPED)
        folders = [run for run in found if checkpoints_in(run) and not hub.opened_from(run)]
        return [run.name for run in sorted(folders, key=newest_time, reverse=True)]

    def _runs_hint(self) -> str:
        names = self.run_names()
        if names:
            more = "; `sri runs ls` lists all" if len(names) > HINTED_RUNS else ""
            return f"trained runs: {', '.join(names[:HINTED_RUNS])}{more}"
        return (
            f"use a shipped model (--run {' or '.join(SHIPPED)}), or train one in"
            " minutes with `sri train sri-g --data demo-towers size=tiny`"
        )


def visible(folder: Path) -> list[Path]:
    """The sorted contents of `folder` without what is being written or deleted."""
    return [path for path in list_folder(folder) if not path.name.startswith(".")]


def is_run(folder: Path) -> bool:
    """Whether a run was begun in the folder; it may have no checkpoint yet."""
    marks = ("checkpoints", RECIPE_NAME, LOG_NAME, LOCK_NAME)
    return any((folder / name).exists() for name in marks)


def runs_in(folder: Path) -> list[Path]:
    """The runs in `folder` and in folders of it, as studies have them."""
    runs = []
    for path in visible(folder):
        runs += [path] if is_run(path) else [below for below in visible(path) if is_run(below)]
    return runs


def recipe_file(run_dir: Path) -> dict[str, Any]:
    """The run's recipe.yaml; empty where it cannot be read."""
    from sri_cli.config.strict_yaml import read_yaml

    try:
        tree = read_yaml((run_dir / RECIPE_NAME).read_text("utf-8"), RECIPE_NAME)
    except (OSError, ValueError, SriError):
        return {}
    return tree if isinstance(tree, dict) else {}


def is_training(run_dir: Path) -> bool | None:
    """Whether a `sri train` writes to the run now; None where locks cannot be read."""
    try:
        descriptor = os.open(run_dir / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


@contextmanager
def lock_run(run_dir: Path, hint: str) -> Iterator[None]:
    """Hold the lock of a run folder; SriError with this hint when a `sri train` has it."""
    try:
        lock = open(run_dir / LOCK_NAME, "w")  # noqa: SIM115 (open until the block ends)
    except OSError as error:
        raise cannot_write(run_dir, error) from error
    with lock:
        for patience in (0.1, 0):  # `is_training` may have it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not patience:
                    raise SriError(f"another sri train is writing to {run_dir}", hint) from error
                time.sleep(patience)
            except OSError as error:  # a disk without locks
                raise cannot_write(run_dir / LOCK_NAME, error) from error
        yield


def run_argument(path: Path) -> str:
    """A folder as `--run` takes it: without a slash it would be a name in the runs folder."""
    return str(path) if is_path(str(path)) else os.path.join(os.curdir, path)


def is_path(text: str) -> bool:
    """Whether `text` means a file or folder rather than a name to look up."""
    return os.sep in text or text in (".", "..") or text.endswith(".h5")
