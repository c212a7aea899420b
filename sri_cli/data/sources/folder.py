"""A folder of one's own images, with integer-label PNGs of the same names in masks/ or without.

Where images, masks and splits may lie is told in folder_files.py. Every file is decoded once
before anything is written: what cannot be used is left out and told, or is an error (`strict`).
When some images have a mask, those without count among what cannot be used.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sri_cli.data.dataset import SPLITS
from sri_cli.data.parallel import available_cores
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.source import Options, Rows, Scenario, Survey
from sri_cli.data.sources.asked import Job
from sri_cli.data.sources.folder_files import Entry, Listing, list_images
from sri_cli.data.sources.folder_pictures import Unreadable, read_pair
from sri_cli.data.sources.folder_survey import FILES_PER_TASK, Found, short, survey
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.run import PREPARED_AS, Workspace

DEFAULT_PX = 64
NAME_BYTES = 64  # of a scenario's name in a data file
FILES_PER_WORKER = 32  # a worker takes a second to start
NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class FolderSettings(Options):
    """What is asked for; `crop` in pixels, None for the largest centred square."""

    name: str | None = None
    crop: int | None = None
    background_labels: int = 1
    strict: bool = False


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
    check(settings)
    name = name_of(folder, settings)
    listing = list_images(folder)
    resizing = Resizing(settings.size_px or DEFAULT_PX, "bilinear", centre=settings.crop)
    worth = min(available_cores(), 1 + len(listing.entries) // FILES_PER_WORKER)
    header = Header(
        name=name,
        size=resizing.size,
        source="folder",
        background_labels=settings.background_labels,
        parameters=parameters(listing, settings),
        preprocessing=f"upright by EXIF; transparency over black; {resizing.words()}",
    )
    return Job(
        header,
        survey=functools.partial(
            survey, listing, settings, settings.strict, resizing, workers or worth
        ),
        items=missing,
        make=functools.partial(make, resizing, folder),
        items_per_task=FILES_PER_TASK,
        survey_again=True,
        workers=worth,
    )


def check(settings: FolderSettings) -> None:
    """SriError for numbers that make no data set."""
    settings.check()
    if settings.crop is not None and settings.crop < 1:
        raise SriError(f"--crop {settings.crop} is out of range", "choose 1 or more")
    if not 0 <= settings.background_labels <= 255:
        raise SriError(
            f"--background {settings.background_labels} is out of range", "choose 0 to 255"
        )


def name_of(folder: Path, settings: FolderSettings) -> str:
    """The data set's name; SriError for one that means another set."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name)
    ascii_only = plain.encode("ascii", "ignore").decode()
    name = settings.name or NO_NAME.sub("-", ascii_only).strip("-")
    if not name or NO_NAME.search(name) or name.startswith("-"):
        raise SriError(
            f"{name or folder} is no name for a data set", "--name with letters, digits, - and _"
        )
    if name.lower() in PREPARED_AS:
        raise SriError(f"{name} is a data set of its own", f"--name my-{name}")
    return name


def parameters(listing: Listing, settings: FolderSettings) -> dict[str, object]:
    """For the data file's record: which files, by path and size in bytes, and what was asked for.

    A file that was changed and has as many bytes as before goes unnoticed.
    """
    digest = hashlib.sha256()
    for entry in listing.entries:
        for path in (entry.image, *([entry.mask] if entry.mask else [])):
            digest.update(os.fsencode(path.relative_to(listing.folder)))
            digest.update(b"\0%d\n" % num_bytes(path))
    numbers = (settings.scenes, settings.val_scenes, settings.test_scenes)
    return {
        "files": len(listing.entries),
        "listing": digest.hexdigest()[:16],
        "split": "the folder's own" if listing.split else "shuffled",
        "crop": settings.crop or "largest square",
        "background": settings.background_labels,
        **{name: "by default" if n is None else n for name, n in zip(SPLITS, numbers, strict=True)},
        "seed": settings.seed,
    }


def num_bytes(path: Path) -> int:
    """-1 for a link to nothing."""
    return path.stat().st_size if path.exists() else -1


def missing(found: Survey, rows: Rows) -> Iterator[tuple[str, Entry]]:
    """The images after `rows`, split by split."""
    assert isinstance(found, Found)
    for split in SPLITS:
        for entry in found.entries[split][rows[split] :]:
            yield split, entry


def make(resizing: Resizing, folder: Path, entry: Entry) -> Scenario:
    """In a worker: one image's row; SriError when it can no longer be read."""
    try:
        image, mask = read_pair(entry.image, entry.mask, resizing, folder)
    except Unreadable as error:
        raise SriError(
            f"{entry.image} has changed since it was looked at: {error}",
            "run the same command again",
        ) from error
    name = short(entry.stem, NAME_BYTES)
    return Scenario(name, image[None], None if mask is None else mask[None])
