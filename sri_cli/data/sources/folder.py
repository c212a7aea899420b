"""A folder of your own images, with or without integer-label PNGs of the same names in masks/.

    DIR/**/NAME.jpg                   its mask: DIR/masks/**/NAME.png
    DIR/images/**/NAME.jpg            DIR/masks/**/NAME.png
    DIR/{train,val,test}/**/NAME.jpg  DIR/masks/{train,val,test}/**, DIR/{train,val,test}/masks/**

An image and a mask belong together if their paths are equal without folders called images or masks.
Every file is decoded once before anything is written: unusable ones are reported and left out, or
are an error (`strict`). If some images have a mask, those without one are unusable.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sri_cli.console import Progress, counted
from sri_cli.cores import available_cores
from sri_cli.data.dataset import SPLITS
from sri_cli.data.image_files import (
    Pixels,
    Unreadable,
    decode_image,
    decode_labels,
    image_files,
)
from sri_cli.data.parallel import parallel_map
from sri_cli.data.source import Options, Rows, Scenario, Source, Survey, sixth
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError
from sri_cli.rng import stream
from sri_cli.run import PREPARED_AS

DEFAULT_PX = 64
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
}
SHUFFLE_STREAM = 2  # separates this permutation from others of the same seed
FILES_PER_TASK = 4
FILES_PER_WORKER = 32  # starting a worker takes a second
NAME_BYTES, SKIPPED_NAME_BYTES = 64, 160  # in a data file
MAX_REPORTED = 3  # unusable files in a message


@dataclass(frozen=True)
class FolderOptions(Options):
    """`crop`: a centred square of so many pixels; None: the largest one. `strict`: unusable files
    are an error."""

    name: str | None = None
    crop: int | None = None
    background_labels: int = 1
    strict: bool = False


@dataclass(frozen=True)
class Entry:
    """An image, named by its path without suffix; its mask and its split if known."""

    name: str
    image: Path
    mask: Path | None
    split: str | None

    def read(self, resizing: Resizing) -> tuple[Pixels, Pixels | None]:
        """uint8 [S,S,3] and the mask uint8 [S,S]; raises Unreadable."""
        pixels, frame = decode_image(self.image, resizing)
        return pixels, None if self.mask is None else decode_labels(self.mask, frame, resizing)


def list_images(folder: Path) -> list[Entry]:
    """Every image below `folder`, sorted; only names are read.

    Raises:
        SriError: No folder or no image, two images of one name, or masks of other images.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"{folder} {problem}", "name the folder of your images")
    images: dict[tuple[str, ...], Path] = {}
    masks: dict[tuple[str, ...], Path] = {}
    num_masks = 0
    for path in image_files(folder)[0]:
        parts = path.relative_to(folder).with_suffix("").parts
        key = (*(part for part in parts[:-1] if part.lower() not in ("images", "masks")), parts[-1])
        if any(part.lower() == "masks" for part in parts[:-1]):
            num_masks += 1
            if path.suffix.lower() == ".png":
                masks[key] = path
        elif key in images:
            raise SriError(
                f"{folder} has two images of the same name: {images[key]} and {path}", "rename one"
            )
        else:
            images[key] = path
    if not images:
        raise SriError(f"{folder} contains no images", "name the folder of your images")
    if num_masks and not masks.keys() & images.keys():
        raise SriError(
            f"{folder} has {counted(num_masks, 'mask')}, but none has the name of an image",
            "give each image a PNG of the same name in masks/, or remove that folder",
        )
    return [
        Entry(
            _printable("/".join(key)),
            path,
            masks.get(key),
            SPLIT_FOLDERS.get(key[0].lower()) if len(key) > 1 else None,
        )
        for key, path in sorted(images.items())
    ]


def _printable(name: str) -> str:
    text = os.fsencode(name).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _short(name: str, max_bytes: int) -> str:
    """At most so many bytes of UTF-8, still unique: long names differ mostly at their ends."""
    raw = name.encode()
    if len(raw) <= max_bytes:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:8]
    return f"{digest}~{raw[len(digest) + 1 - max_bytes :].decode(errors='ignore')}"


class FolderSource(Source):
    """The images of a folder; names are listed here, files are read in the survey."""

    items_per_task = FILES_PER_TASK

    def __init__(self, folder: Path, options: FolderOptions, workers: int | None = None) -> None:
        options.check()
        self.folder, self.options = folder, options
        self.test_only = options.test_only
        self.resizing = Resizing(options.size_px or DEFAULT_PX, centre=options.crop)
        name = _name_of(folder, options)
        entries = list_images(folder)
        self.has_masks = any(entry.mask for entry in entries)
        self.is_split = has_splits(folder, entries)
        self.entries = [entry for entry in entries if entry.split or not self.is_split]
        self.num_outside = len(entries) - len(self.entries)
        self.max_workers = min(available_cores(), 1 + len(self.entries) // FILES_PER_WORKER)
        self.survey_workers = workers or self.max_workers
        self.header = Header(
            name=name,
            size=self.resizing.size,
            source="folder",
            background_labels=options.background_labels,
            parameters=self._parameters(),
            preprocessing=f"upright by EXIF; transparency over black; {self.resizing.describe()}",
        )

    def __getstate__(self) -> dict[str, object]:
        """Workers need no list of the files: it would be sent with every task."""
        return {"resizing": self.resizing}

    def _parameters(self) -> dict[str, object]:
        """The files by path and size in bytes, and the options.

        A file that was changed without changing its size is not noticed.
        """
        digest = hashlib.sha256()
        for entry in self.entries:
            for path in (entry.image, *([entry.mask] if entry.mask else [])):
                num_bytes = path.stat().st_size if path.exists() else -1  # a broken link
                digest.update(os.fsencode(path.relative_to(self.folder)))
                digest.update(b"\0%d\n" % num_bytes)
        options = self.options
        return {
            "files": len(self.entries),
            "listing": digest.hexdigest()[:16],
            "split": "the folder's own" if self.is_split else "shuffled",
            "crop": options.crop or "largest square",
            "background": options.background_labels,
            **{s: "by default" if n is None else n for s, n in options.given.items()},
            "seed": options.seed,
        }

    def survey(self) -> Survey:
        """Decode every file once and split the usable ones."""
        entries, options = self.entries, self.options
        split_entries(entries, self.is_split, options)  # wrong numbers are reported before reading
        usable, problems = [], []
        find = functools.partial(_problem_of, self.resizing, self.has_masks)
        items = ((entry, entry) for entry in entries)
        with (
            Progress(len(entries), 0, f"check {self.folder}", "image") as progress,
            closing(parallel_map(find, items, self.survey_workers, FILES_PER_TASK)) as results,
        ):
            if self.num_outside:
                outside = counted(self.num_outside, "image")
                progress.note(f"Note: {outside} outside of train/, val/ and test/ left out")
            for entry, problem in results:
                if problem is None:
                    usable.append(entry)
                else:
                    problems.append((entry, problem))
                progress.update(len(usable) + len(problems))
            if problems:
                self._report(problems, progress, refuse=options.strict or not usable)
        plan = split_entries(usable, self.is_split, options)
        skipped = tuple(_short(entry.name, SKIPPED_NAME_BYTES) for entry, _ in problems)
        return Survey({split: len(plan[split]) for split in SPLITS}, skipped, plan=plan)

    def _report(self, problems: list[tuple[Entry, str]], progress: Progress, refuse: bool) -> None:
        """Note which files are left out, or SriError."""
        reported = "; ".join(f"{entry.name}: {why}" for entry, why in problems[:MAX_REPORTED])
        more = len(problems) - MAX_REPORTED
        message = f"{len(problems):,} of {counted(len(self.entries), 'image')} cannot be used:"
        message += f" {reported}" + f"; and {more:,} more" * (more > 0)
        if refuse:
            raise SriError(message, "repair them" + ", or omit --strict" * self.options.strict)
        progress.note(f"Note: {message}; they are left out")

    def items(self, survey: Survey, rows: Rows) -> Iterator[tuple[str, Entry]]:
        for split in SPLITS:
            for entry in survey.plan[split][rows[split] :]:
                yield split, entry

    def make(self, item: Entry) -> Scenario:
        try:
            image, mask = item.read(self.resizing)
        except Unreadable as error:
            raise SriError(
                f"{item.image} has changed since the survey: {error}", "run the same command again"
            ) from error
        name = _short(item.name, NAME_BYTES)
        return Scenario(name, image[None], None if mask is None else mask[None])


def _problem_of(resizing: Resizing, has_masks: bool, entry: Entry) -> str | None:
    """In a worker: why an image or its mask cannot be used; None if they can."""
    if has_masks and entry.mask is None:
        return "it has no mask, others have"
    try:
        entry.read(resizing)
    except Unreadable as error:
        return str(error)
    return None


def _name_of(folder: Path, options: FolderOptions) -> str:
    """The data set's name; SriError for a name of another data set."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    name = options.name or re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise SriError(
            f"{name or folder} is not a name for a data set", "--name with letters, digits, - and _"
        )
    if name.lower() in PREPARED_AS:
        raise SriError(f"{name} is another data set", f"--name my-{name}")
    return name


def has_splits(folder: Path, entries: Sequence[Entry]) -> bool:
    """Whether the folder has splits of its own; SriError if one of three is missing: test images
    could then be mixed with those for training."""
    existing = {entry.split for entry in entries if entry.split}
    if "train" in existing and len(existing) == 2:
        (missing,) = set(SPLITS) - existing
        raise SriError(
            f"{folder} has {' and '.join(sorted(existing))} images but no folder {missing}/",
            f"add images to {missing}/, or rename the folders for a new split",
        )
    return len(existing) == len(SPLITS)


def split_entries(
    entries: Sequence[Entry], is_split: bool, options: Options
) -> Mapping[str, list[Entry]]:
    """The entries of each split, sorted by path, chosen by a seeded permutation.

    A folder's own splits are never mixed, even if nothing in one of them is readable; with
    `--scenes` alone, at most a sixth of it is taken for validation and for test. SriError if there
    are too few images.
    """
    rng = stream(options.seed, SHUFFLE_STREAM)
    if is_split:
        own = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
        for split, number in options.given.items():
            if number is not None and number > len(own[split]):
                raise SriError(
                    f"{number:,} {split} images are more than the {len(own[split]):,} that exist",
                    "choose smaller numbers: --scenes N --val-scenes V --test-scenes T",
                )
        most = None if options.scenes is None else sixth(options.scenes)
        chosen = {
            split: sorted(rng.permutation(len(own[split]))[: number or most])
            for split, number in options.given.items()
        }
        return {split: [own[split][index] for index in chosen[split]] for split in chosen}
    numbers = options.divide(len(entries), max(1, len(entries) // 10), "images")
    order = rng.permutation(len(entries))
    plan, begin = {}, 0
    for split in ("test", "val", "train"):
        plan[split] = [entries[index] for index in sorted(order[begin : begin + numbers[split]])]
        begin += numbers[split]
    return plan
