"""The files of a folder, all of them decoded once: which can be used, and for which split."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.parallel import parallel_map
from sri_cli.data.source import Options, Survey
from sri_cli.data.sources.folder_files import Entry, Listing
from sri_cli.data.sources.folder_pictures import Unreadable, read_pair
from sri_cli.data.sources.folder_splits import check_numbers, part
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError

TOLD = 3  # names of unreadable files in a message
SKIPPED_BYTES = 160  # so that the names of 100 skipped files fit into an attribute
FILES_PER_TASK = 4


@dataclass(frozen=True)
class Found(Survey):
    """The readable images of each split."""

    entries: Mapping[str, list[Entry]] = field(default_factory=dict)


def survey(
    listing: Listing, asked: Options, strict: bool, resizing: Resizing, workers: int
) -> Found:
    """Read every file once; split what is good.

    Raises SriError for numbers that cannot be met, for no readable file, and with `strict` for
    one that is not.
    """
    entries, folder = listing.entries, listing.folder
    check_numbers(entries, listing.split, asked)
    look = functools.partial(fault_of, resizing, folder, listing.masked)
    good, bad = [], []
    with Progress(len(entries), 0, f"look at {folder}", "image") as progress:
        if listing.strays:
            strays = counted(listing.strays, "image")
            progress.note(f"Note: {strays} outside of train/, val/ and test/ left out")
        for entry, fault in looked_at(look, entries, workers):
            if fault is None:
                good.append(entry)
            else:
                bad.append((entry, fault))
            progress.reach(len(good) + len(bad))
        if bad:
            tell_bad(bad, len(entries), strict or not good, progress)
    split = part(good, listing.split, asked)
    counts = {name: len(split[name]) for name in SPLITS}
    skipped = tuple(short(entry.stem, SKIPPED_BYTES) for entry, _ in bad)
    return Found(counts, skipped, entries=split)


def looked_at(
    look: Callable[[Entry], str | None], entries: tuple[Entry, ...], workers: int
) -> Iterator[tuple[Entry, str | None]]:
    """(entry, its fault), in order."""
    items = ((entry, entry) for entry in entries)
    with closing(parallel_map(look, items, workers, FILES_PER_TASK)) as seen:
        yield from seen


def fault_of(resizing: Resizing, folder: Path, masked: bool, entry: Entry) -> str | None:
    """In a worker: why an image or its mask cannot be used; None when they can."""
    if masked and entry.mask is None:
        return "it has no mask, others have"
    try:
        read_pair(entry.image, entry.mask, resizing, folder)
    except Unreadable as error:
        return str(error)
    return None


def tell_bad(bad: list[tuple[Entry, str]], count: int, refuse: bool, progress: Progress) -> None:
    """Say what is left out, or refuse with SriError."""
    told = "; ".join(f"{entry.stem}: {fault}" for entry, fault in bad[:TOLD])
    more = f"; and {len(bad) - TOLD:,} more" if len(bad) > TOLD else ""
    message = f"{len(bad):,} of {counted(count, 'image')} cannot be used: {told}{more}"
    if refuse:
        or_not = ", or leave out --strict" if len(bad) < count else ""
        raise SriError(message, f"mend them{or_not}")
    progress.note(f"Note: {message}; they are left out")


def short(stem: str, most: int) -> str:
    """At most so many bytes of UTF-8, still its own: long names differ at their ends mostly."""
    raw = stem.encode()
    if len(raw) <= most:
        return stem
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return f"{digest}~{raw[len(digest) + 1 - most :].decode(errors='ignore')}"
