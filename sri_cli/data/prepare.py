"""From a source to a data file: scenes made by worker processes, written in order, resumable.

The rows of a file depend on the source alone, so any number of workers, and any interruption,
gives the same file.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.atomic import check_writable
from sri_cli.console import Progress, counted
from sri_cli.cores import available_cores
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.parallel import parallel_map, worker_killed
from sri_cli.data.source import TASK_ROWS, Scenario, Source
from sri_cli.data.writer import DataFileWriter, Header
from sri_cli.errors import Interrupted, SriError
from sri_cli.signals import stop_on_signal

ROWS_PER_FLUSH = 1000
FLUSH_BYTES = 2**28  # of images and masks: fewer rows if they have more than 256 px


class OtherSettings(SriError):
    """The data file that exists was made with other settings."""


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`; `made` counts the images of this call (0: the file existed)."""

    data: DataFile
    made: int = 0
    resumed_from: int = 0  # images
    seconds: float = 0.0


def prepare(
    source: Source,
    path: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare",
) -> Prepared:
    """Make the data file `path`, or resume making it; a finished file of this source is kept.

    Args:
        workers: Processes; None: as many as the source can use. The file is the same.
        force: Replace a file made from another source or with other parameters.
        command: What the user typed, for hints.

    Raises:
        OtherSettings: Another file is at `path`, and not `force`.
        SriError: The source is faulty.
        Interrupted: A signal came; the rows so far are saved.
        SriFailure: The file cannot be written; or the disk of the source failed, and the rows so
            far are saved.
    """
    if path.suffix != ".h5":
        raise SriError(f"{path} is not the name of a data file", f"name it {path}.h5")
    workers = workers or source.max_workers or available_cores()
    if not force and path.exists():
        data = DataFile(path)
        if changed := differences(data, source.header):
            raise OtherSettings(
                f"{path} was made with other settings: {'; '.join(changed)}",
                "write another file with --out FILE, or replace this one with --force",
            )
        if source.writes_files:  # in a folder of which the data file knows nothing
            survey(source, workers, command)
        Progress(0, 0, source.header.name).note(f"{path} is up to date")
        return Prepared(data)
    check_writable(path.parent)
    began = time.monotonic()
    header, plan = survey(source, workers, command)
    needed = ("test",) if source.test_only else SPLITS
    empty = [split for split in needed if not header.counts[split]]
    if empty:
        raise SriError(
            f"{source.header.name}: no images for {' and '.join(empty)}",
            f"{', '.join(needed)} need at least one image each: add data, or change --scenes,"
            " --val-scenes and --test-scenes",
        )
    total = sum(header.counts.values())
    with (
        Progress(total, 0, f"prepare {header.name}", "image") as progress,
        DataFileWriter(path, header) as writer,
    ):
        done = sum(writer.rows.values())
        progress.start_at(done)
        for note in header.notes:
            progress.note(f"Note: {note}")
        progress.note(opening(source, writer, workers))
        write_missing(source, plan, writer, progress, workers, command)
        writer.finish()
    return Prepared(DataFile(path), total - done, done, time.monotonic() - began)


def survey(source: Source, workers: int, command: str) -> tuple[Header, Any]:
    """The source's survey; see `prepare` for what it raises."""
    try:
        with stop_on_signal() as stop:
            stop.at_once = True  # what was read or written so far needs no finishing
            return source.survey(workers)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped during the survey of {source.header.name}.", f"Resume with: {command}"
        ) from None
    except BrokenProcessPool as error:
        raise worker_killed(command) from error


def differences(data: DataFile, header: Header) -> list[str]:
    """What differs between a file and a header, as `seed 0 -> 1`.

    Parameters of different data sets or sources have nothing in common and are not compared, nor
    is the size of the source's file where only one of both knows it.
    """
    old = {"name": data.name, "source": data.source, "size": data.size}
    new: dict[str, object] = {"name": header.name, "source": header.source, "size": header.size}
    if (data.name, data.source) == (header.name, header.source):
        old |= data.attrs["parameters"]
        new |= header.parameters
    if "bytes" not in old.keys() & new.keys():  # downloads, and files of earlier versions
        old.pop("bytes", None)
        new.pop("bytes", None)
    return [
        f"{key} {old.get(key, 'not given')} -> {new.get(key, 'not given')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def write_missing(
    source: Source,
    plan: Any,
    writer: DataFileWriter,
    progress: Progress,
    workers: int,
    command: str,
) -> None:
    """Make the scenes that are missing, and append many rows at once."""
    waiting: dict[str, list[Scenario]] = {split: [] for split in SPLITS}
    keyed, items = itertools.tee(source.items(plan, writer.rows))
    task = source.items_per_task or max(1, TASK_ROWS // source.views)
    most = min(ROWS_PER_FLUSH, FLUSH_BYTES // (4 * source.header.size**2))
    with (
        stop_on_signal() as stop,
        closing(parallel_map(source.make, (item for _, item in items), workers, task)) as scenarios,
    ):
        killed = None
        # Finding the first new scene may take minutes, and there is nothing to finish.
        stop.at_once = any(writer.rows.values())
        try:
            for (split, _), scenario in zip(keyed, scenarios, strict=True):
                stop.at_once = False
                block = waiting[split]
                block.append(scenario)
                progress.update(progress.done + len(scenario.images))
                if len(block) * len(scenario.images) >= most:
                    append(writer, split, block)
                    block.clear()
                if stop.received:
                    break
        except BrokenProcessPool as error:
            killed = error
        except KeyboardInterrupt:
            if not stop.at_once:  # the second signal
                raise
        for split, block in waiting.items():
            # The first scenes before a stop are too few to say that all masks are empty: they are
            # made again on resuming.
            unknown = (stop.received or killed) and not writer.rows[split] and all_zero(block)
            if block and not unknown:
                append(writer, split, block)
        if stop.received:
            done = sum(writer.rows.values())
            saved = f", saved in {writer.partial}" if done else ""  # else there is no such file
            raise Interrupted(
                f"Stopped after {done} of {progress.total} images{saved}.",
                f"Resume with: {command}",
            )
        if killed:
            raise worker_killed(command) from killed


def all_zero(block: list[Scenario]) -> bool:
    """Whether the scenes have masks, but no object in any."""
    masks = [scenario.masks for scenario in block if scenario.masks is not None]
    return bool(masks) and not any(mask.any() for mask in masks)


def append(writer: DataFileWriter, split: str, block: list[Scenario]) -> None:
    """Append scenes, one after the other.

    SriError when the first masks of a split are all zero: ARI would be meaningless.
    """
    if not writer.rows[split] and all_zero(block):
        images = sum(len(scenario.images) for scenario in block)
        raise SriError(
            f"the masks of {split} are all zero: no object in its first {counted(images, 'image')}",
            "provide masks with integer labels, leave the masks out, or choose other images:"
            " --seed, --scenes, --val-scenes, --test-scenes",
        )
    names = np.repeat([scenario.name.encode() for scenario in block], len(block[0].images))
    factors = {
        key: np.concatenate([scenario.factors[key] for scenario in block])
        for key in sorted(block[0].factors)
    }
    masks = [scenario.masks for scenario in block if scenario.masks is not None]
    writer.append(
        split,
        np.concatenate([scenario.images for scenario in block]),
        np.concatenate(masks) if masks else None,
        factors | {"scenario": names.astype("S64")},
        sum(scenario.discarded for scenario in block),
    )


def opening(source: Source, writer: DataFileWriter, workers: int) -> str:
    """The note at the beginning of a preparation."""
    done, total = sum(writer.rows.values()), sum(writer.header.counts.values())
    images = counted(total, "image")
    if source.views > 1:
        images = f"{counted(total // source.views, 'scene')} x {source.views} views"
    what = (
        f"{source.header.name}, {source.header.source}: {images} at {source.header.size} px"
        f" -> {writer.path} ({counted(workers, 'worker')})"
    )
    if writer.replaces_other:
        other = "was made with other settings or by another version; starting over"
        return f"{what}\nNote: {writer.partial} {other}"
    return f"{what}\nresuming after {done} of {total} images" if done else what
