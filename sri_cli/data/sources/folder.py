"""A folder of one's own images, with integer-label PNGs of the same stem in masks/ or without.

    DIR/**/*.png|jpg|...              masks in DIR/masks/**/*.png
    DIR/images/**                     masks in DIR/masks/**
    DIR/{train,val,test}/**           masks in DIR/masks/{train,val,test}/** or in each one's masks/

What cannot be read is left out and told, or is an error (`strict`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sri_cli.data.job import Job, Rows, Survey
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.resizing import Resizing
from sri_cli.data.scenario import Scenario
from sri_cli.data.sources.asked import Asked, sixth
from sri_cli.data.sources.folder_files import Entry, find_images, unreadable
from sri_cli.data.sources.folder_pictures import read_mask, read_picture
from sri_cli.data.spread import spread
from sri_cli.data.store import SPLITS
from sri_cli.data.workers import available_cores
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.progress import Progress
from sri_cli.workspace import PREPARED_AS, Workspace

SHUFFLE_STREAM = 2  # keeps this permutation apart from others of the same seed
TOLD = 3  # names of unreadable files in a message
NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class FolderSettings(Asked):
    """What is asked for; `crop` in pixels, None for the largest centred square."""

    name: str | None = None
    crop: int | None = None
    background_labels: int = 1
    strict: bool = False


@dataclass(frozen=True)
class Found(Survey):
    """The readable images of each split."""

    entries: Mapping[str, list[Entry]] = field(default_factory=dict)


def prepare_folder(
    workspace: Workspace,
    folder: Path,
    settings: FolderSettings,
    *,
    out: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    command: str = "sri prepare folder",
) -> Prepared:
    """Make the data file of a folder, by default at its name's place; see `prepare`.

    Raises SriError for a folder without images, for numbers that its images cannot fill, and
    with `strict` for a file that cannot be read.
    """
    job = folder_job(folder, settings, workers)
    path = out or workspace.data_path(job.header.name, job.header.size)
    return prepare(job, path, workers=workers, force=force, command=command)


def folder_job(folder: Path, settings: FolderSettings, workers: int | None = None) -> Job:
    """The job of a folder; its files are listed here and read in the survey."""
    settings.check()
    entries = find_images(folder)
    resizing = Resizing(settings.size_px or 64, "bilinear", centre=settings.crop)
    header = Header(
        name=name_of(folder, settings),
        size=resizing.size,
        source="folder",
        background_labels=settings.background_labels,
        parameters=parameters(entries, settings),
        preprocessing=f"{resizing.words()}; transparency over black",
    )
    return Job(
        header,
        survey=functools.partial(
            survey, folder, entries, settings, resizing, workers or available_cores()
        ),
        items=missing,
        make=functools.partial(make, resizing),
        items_per_task=4,
        survey_again=True,
    )


def name_of(folder: Path, settings: FolderSettings) -> str:
    """The data set's name; SriError for one that means another set."""
    name = settings.name or NO_NAME.sub("-", folder.resolve().name).strip("-")
    if not name or NO_NAME.search(name):
        raise SriError(
            f"{name or folder} is no name for a data set", "--name with letters, digits, - and _"
        )
    if name in PREPARED_AS:
        raise SriError(f"{name} is a data set of its own", f"--name my-{name}")
    return name


def parameters(entries: list[Entry], settings: FolderSettings) -> dict[str, object]:
    """For the data file's record: which files, by name and size, and what was asked for."""
    digest = hashlib.sha256()
    for entry in entries:
        sizes = [path.stat().st_size if path else 0 for path in (entry.image, entry.mask)]
        digest.update(f"{entry.stem}\0{sizes}\n".encode())
    numbers = (settings.scenes, settings.val_scenes, settings.test_scenes)
    return {
        "files": len(entries),
        "listing": digest.hexdigest()[:16],
        "crop": settings.crop or "largest square",
        **{name: "by default" if n is None else n for name, n in zip(SPLITS, numbers, strict=True)},
        "seed": settings.seed,
    }


def survey(
    folder: Path, entries: list[Entry], settings: FolderSettings, resizing: Resizing, workers: int
) -> Found:
    """Read every file once; split what is good."""
    look = functools.partial(unreadable, resizing)
    good, bad = [], []
    with Progress(len(entries), 0, f"look at {folder}", "image") as progress:
        for done, (entry, fault) in enumerate(
            spread(look, ((entry, entry) for entry in entries), workers, per_task=8), start=1
        ):
            if fault is None:
                good.append(entry)
            else:
                bad.append((entry, fault))
            progress.advance(done)
            progress.tell()
        if bad:
            told = "; ".join(f"{entry.stem}: {fault}" for entry, fault in bad[:TOLD])
            more = f"; and {len(bad) - TOLD} more" if len(bad) > TOLD else ""
            message = f"{len(bad):,} of {len(entries):,} images cannot be used: {told}{more}"
            if settings.strict or not good:
                way = "mend them" + (", or leave out --strict" if good else "")
                raise SriError(message, way)
            progress.note(f"Note: {message}; they are left out")
    split = split_entries(good, settings)
    counts = {name: len(split[name]) for name in SPLITS}
    return Found(counts, tuple(entry.stem for entry, _ in bad), split)


def split_entries(good: list[Entry], settings: FolderSettings) -> dict[str, list[Entry]]:
    """The folder's own splits, or a seeded shuffle."""
    numbers = {"val": settings.val_scenes, "test": settings.test_scenes, "train": settings.scenes}
    own = {name: [entry for entry in good if entry.split == name] for name in SPLITS}
    if all(own.values()):
        return {name: exactly(own[name], numbers[name], name) for name in SPLITS}
    rng = np.random.default_rng((settings.seed, SHUFFLE_STREAM))
    order = rng.permutation(len(good))
    tenth = max(1, len(good) // 10) if settings.scenes is None else sixth(settings.scenes)
    split, start = {}, 0
    for name in ("test", "val", "train"):
        number = numbers[name] or (tenth if name != "train" else max(1, len(good) - start))
        part = [good[i] for i in order[start : start + number]]
        split[name] = exactly(part, number, name)
        start += number
    return split


def exactly(entries: list[Entry], number: int | None, name: str) -> list[Entry]:
    """The first `number` entries, sorted; SriError when there are fewer."""
    if number is not None and len(entries) < number:
        raise SriError(
            f"{len(entries):,} readable images are left for {name}, {number:,} are asked for",
            "ask for fewer: --scenes N --val-scenes V --test-scenes T",
        )
    return sorted(entries[:number], key=lambda entry: entry.stem)


def missing(found: Survey, rows: Rows) -> Iterator[tuple[str, Entry]]:
    """The images after `rows`, split by split."""
    assert isinstance(found, Found)
    for split in SPLITS:
        for entry in found.entries[split][rows[split] :]:
            yield split, entry


def make(resizing: Resizing, entry: Entry) -> Scenario:
    """In a worker: one image's row."""
    masks = None if entry.mask is None else resizing.labels(read_mask(entry.mask))[None]
    return Scenario(entry.stem, resizing.picture(read_picture(entry.image))[None], masks)
