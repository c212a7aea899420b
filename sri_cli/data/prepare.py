"""From a source to a data file: made by worker processes, written in order, resumable.

The rows of a file depend on the source alone, so any number of workers, and any interruption,
gives the same file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.job import Job, Rows, Survey
from sri_cli.data.parallel import available_cores
from sri_cli.data.scenario import Scenario
from sri_cli.data.spread import spread, worker_killed
from sri_cli.data.writer import Header, StoreWriter, begun_counts
from sri_cli.errors import Interrupted, SriError
from sri_cli.signals import stop_on_signal

ROWS_PER_FLUSH = 1000


@dataclass(frozen=True)
class Prepared:
    """What a preparation came to; `made` counts the images of this call (0: all were there)."""

    data: DataFile
    made: int
    resumed_from: int
    seconds: float

    @property
    def views_per_second(self) -> float:
        """How fast this call made images."""
        return self.made / self.seconds if self.seconds > 0 else 0.0


def prepare(
    job: Job,
    path: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare",
) -> Prepared:
    """Make the data file of `job`, or go on with it; what is there already is kept.

    Raises SriError when another file lies there and not `force` or the source is faulty,
    Interrupted (75) after a signal with the rows so far saved, SriFailure when the disk will not
    take it.
    """
    if path.suffix != ".h5":
        raise SriError(f"{path} is no name for a data file", f"call it {path}.h5")
    if not force and path.exists():
        data = same_file(job.header, path)
        Progress(0, 0, job.header.name).note(f"{path} is there and up to date")
        return Prepared(data, 0, sum(data.counts.values()), 0.0)
    try:
        survey = survey_of(job, path)
    except KeyboardInterrupt:  # SIGTERM, too
        raise stopped_before(path, job, command) from None
    except BrokenProcessPool as error:
        raise worker_killed(command) from error
    header = replace(
        job.header,
        counts=survey.counts,
        skipped=survey.skipped,
        scene_rule=survey.scene_rule,
    )
    total, workers = sum(survey.counts.values()), workers or job.workers or available_cores()
    began = time.monotonic()
    with (
        Progress(total, 0, f"prepare {header.name}", "view") as progress,
        StoreWriter(path, header) as writer,
    ):
        done = sum(writer.rows.values())
        progress.start_at(done)
        progress.note(opening(job, writer, workers))
        write_all(job, survey, Blocks(writer, progress), workers, command)
        writer.finish()
    return Prepared(DataFile(path), total - done, done, time.monotonic() - began)


def stopped_before(path: Path, job: Job, command: str) -> Interrupted:
    """What a signal leaves behind while the source is still looked at."""
    counts = begun_counts(path, job.header)
    kept = "nothing is written yet" if counts is None else "what was made before is kept"
    return Interrupted(
        f"stopped while looking at what {job.header.name} is made of; {kept}",
        f"the same command looks again and goes on: {command}",
    )


def survey_of(job: Job, path: Path) -> Survey:
    """What the source holds; when this file was begun, its own counts may save the counting."""
    counts = None if job.survey_again else begun_counts(path, job.header)
    survey = job.survey() if counts is None else Survey(counts)
    empty = [split for split in SPLITS if not survey.counts[split]]
    if empty:
        raise SriError(
            f"{job.header.name}: nothing for {' and '.join(empty)}",
            "each of train, val and test needs an image: more data, or other numbers with"
            " --scenes, --val-scenes and --test-scenes",
        )
    return survey


def write_all(job: Job, survey: Survey, blocks: Blocks, workers: int, command: str) -> None:
    """Make and append what is missing."""
    items = job.items(survey, blocks.writer.rows)
    with (
        stop_on_signal() as stop,
        closing(spread(job.make, items, workers, job.task_size)) as scenarios,
    ):
        killed = None
        try:
            for split, scenario in scenarios:
                blocks.add(split, scenario)
                if stop.name:
                    break
        except BrokenProcessPool as error:
            killed = error
        blocks.flush()
        if stop.name:
            raise Interrupted(
                f"stopped by {stop.name} after {blocks.done} of {blocks.progress.total} views,"
                f" kept in {blocks.writer.partial}",
                f"go on: {command}",
            )
        if killed:
            raise worker_killed(command) from killed


class Blocks:
    """Gathers scenarios by split and appends a thousand rows at once."""

    def __init__(self, writer: StoreWriter, progress: Progress) -> None:
        self.writer, self.progress = writer, progress
        self.waiting: dict[str, list[Scenario]] = {split: [] for split in SPLITS}
        self.done = sum(writer.rows.values())  # those waiting included

    def add(self, split: str, scenario: Scenario) -> None:
        """Take the next scenario of a split."""
        block = self.waiting[split]
        block.append(scenario)
        self.done += len(scenario.images)
        self.progress.reach(self.done)
        if len(block) * len(scenario.images) >= ROWS_PER_FLUSH:
            self.flush([split])

    def flush(self, splits: Iterable[str] = SPLITS) -> None:
        """Append what waits."""
        for split in splits:
            block, self.waiting[split] = self.waiting[split], []
            if block:
                check_masks(self.writer.rows, split, block)
                append(self.writer, split, block)


def check_masks(rows: Rows, split: str, block: list[Scenario]) -> None:
    """SriError when a split begins with masks that mark nothing: ARI would be measured on air."""
    masks = [scenario.masks for scenario in block if scenario.masks is not None]
    if rows[split] == 0 and masks and not any(mask.any() for mask in masks):
        raise SriError(
            f"the masks of {split} are all zero: no object in its first"
            f" {counted(sum(map(len, masks)), 'image')}",
            "mend the masks, which must hold integer labels, or leave them out",
        )


def append(writer: StoreWriter, split: str, block: list[Scenario]) -> None:
    """Append scenarios, one after the other."""
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


def same_file(header: Header, path: Path) -> DataFile:
    """The file that is there, if it holds what `header` asks for; SriError with the differences."""
    data = DataFile(path)
    changed = differences(data, header)
    if changed:
        raise SriError(
            f"{path} was made otherwise: {'; '.join(changed)}",
            "keep it and choose another file with --out FILE, or replace it: --force",
        )
    return data


def differences(data: DataFile, header: Header) -> list[str]:
    """What of a file is not as `header` says, as `seed 0 -> 1`; of another data set or source only
    that, for their parameters have nothing to do with each other."""
    was = {"name": data.name, "source": data.source, "size": data.size}
    now: dict[str, object] = {"name": header.name, "source": header.source, "size": header.size}
    if (data.name, data.source) == (header.name, header.source):
        was |= data.attrs["parameters"]
        now |= header.parameters
    return [
        f"{key} {was.get(key, 'not given')} -> {now.get(key, 'not given')}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]


def opening(job: Job, writer: StoreWriter, workers: int) -> str:
    """The note a preparation begins with."""
    done, total = sum(writer.rows.values()), sum(writer.header.counts.values())
    images = counted(total, "image")
    if job.views > 1:
        images = f"{counted(total // job.views, 'scenario')} x {job.views} views"
    what = (
        f"{job.header.name}, {job.header.source}: {images} at {job.header.size} px"
        f" -> {writer.path} ({counted(workers, 'worker')})"
    )
    if writer.started_anew:
        return f"{what}\nNote: what lay in {writer.partial} was something else; starting anew"
    return f"{what}\nresuming after {done} of {total} views" if done else what
