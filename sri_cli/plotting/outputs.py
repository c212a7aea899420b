"""Names of output in a run's folder: short numbers, with the settings in a JSON file beside each.

The same settings of the same weights have the same name, so that a command that is run again writes
the same files. Other settings have another number: nothing is overwritten.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sri_cli import __version__
from sri_cli.atomic import (
    cannot_write,
    check_writable,
    ensure_folder,
    list_folder,
    new_folder,
    temporary_beside,
    write_atomic,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.records import run_subject
from sri_cli.signals import this_command
from sri_cli.strict_json import Record, from_json, to_json

FIGURES, SAMPLES, SEGMENTS = "figures", "samples", "segments"  # folders of a run
LATEST = "latest"
OF_RUN = ("run", "opened_from", "step", "checkpoint", "model")
NOT_COMPARED = ("command", "sri", "run", "trained_on", "trained_slots")  # what decides no pixel


def record_of(runs: Sequence[TrainedRun], verb: str, **settings: Any) -> Record:
    """The content of a JSON file: command, version, the checkpoints, and the settings."""
    facts = []
    for run in runs:
        subject = run_subject(run)
        facts.append(
            {key: subject[key] for key in OF_RUN if key in subject} | {"trained_on": run.caption}
        )
    about = facts[0] if len(facts) == 1 else {"runs": facts}
    return {"command": this_command(), "sri": __version__, "verb": verb, **about, **settings}


def slots_of(runs: Sequence[TrainedRun], slots: int | None) -> int | list[int]:
    """The number of slots for a record: `slots`, by default that of the runs' training."""
    usual = [run.model.num_slots for run in runs]
    return slots or (usual[0] if len(set(usual)) == 1 else usual)


def check_place(out: Path | None, folder: Path) -> None:
    """SriFailure unless `out`, or without it `folder`, can be written to: known before drawing."""
    check_writable(folder if out is None else out.parent)


@contextmanager
def output_path(
    out: Path | None, folder: Path, stem: str, suffix: str, record: Record
) -> Iterator[Path]:
    """The file to write: `out`, by default STEM-NNN with the suffix in `folder`.

    The record is written beside a numbered file when the block ends without an error.
    """
    if out is not None:
        yield out
        return
    with locked(folder):
        path = folder / (name_for(folder, f"{stem}-", record, "{}.json") + suffix)
        yield path
        write_atomic(folder / f"{path.name.removesuffix(suffix)}.json", json_bytes(record))


def write_folder(
    out: Path | None, parent: Path, record_name: str, record: Record, write: Callable[[Path], None]
) -> Path:
    """Let `write` fill a folder, and write its record to the file `record_name` in it.

    The folder is filled under another name and renamed at the end: it is complete or absent.

    Args:
        out: A new or empty folder, by default a numbered one in `parent`, to which parent/latest
            then points.
        parent: Folder of the run.
        record_name: File of the record.
        record: Of the folder; `write` may add to it.
        write: Fills the folder.

    Raises:
        SriError: for a folder that is not empty.
        SriFailure: if the disk refuses.
    """
    check_place(out, parent)
    if out is not None:
        target = out.resolve()
        with new_folder(target) as folder:
            write(folder)
            (folder / record_name).write_bytes(json_bytes(record))
        return target
    temporary = temporary_beside(ensure_folder(parent) / "new")
    try:
        temporary.mkdir()
        write(temporary)
        (temporary / record_name).write_bytes(json_bytes(record))
        with locked(parent):
            target = parent / name_for(parent, "", record, f"{{}}/{record_name}")
            shutil.rmtree(target, ignore_errors=True)  # the same output, written before
            os.replace(temporary, target)
            link_latest(parent, target.name)
    except OSError as error:
        raise cannot_write(parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, created when missing, so that two commands never choose the same number."""
    descriptor = os.open(ensure_folder(folder), os.O_RDONLY)
    try:
        with suppress(OSError):  # some network disks have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def name_for(folder: Path, prefix: str, record: Record, beside: str) -> str:
    """The name of the output in `folder` with these settings, or the next free one.

    Args:
        folder: Where outputs and their records are.
        prefix: What stands before the number.
        record: Of the output.
        beside: Where the record of an output is, `{}` being its name.
    """
    wanted, last = _compared(from_json(json_bytes(record))), 0
    names = {path.name.partition(".")[0] for path in list_folder(folder)}
    for name in sorted(names):
        number = re.fullmatch(re.escape(prefix) + r"(\d{3,})", name)
        if number:
            last = max(last, int(number[1]))
            with suppress(OSError, ValueError):
                if _compared(from_json((folder / beside.format(name)).read_bytes())) == wanted:
                    return name
    return f"{prefix}{last + 1:03d}"


def link_latest(folder: Path, name: str) -> None:
    """Point `folder`/latest to the output `name`, where the disk has links."""
    temporary = temporary_beside(folder / LATEST)
    with suppress(OSError):
        os.symlink(name, temporary)
        os.replace(temporary, folder / LATEST)
    temporary.unlink(missing_ok=True)


def json_bytes(record: Record) -> bytes:
    """The record as the content of a file."""
    return f"{to_json(record, indent=2)}\n".encode()


def _compared(record: Any) -> Any:
    """The settings that decide what an output shows."""
    if isinstance(record, dict):
        return {k: _compared(v) for k, v in record.items() if k not in NOT_COMPARED}
    return [_compared(one) for one in record] if isinstance(record, list) else record
