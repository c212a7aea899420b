"""A folder of your own images, with or without masks of integer labels; see listing.py for names.

Every file is decoded once before anything is written: unusable ones are reported and left out, or
are an error (`strict`). A split has masks of all its images or of none. Without splits of the
folder's own, images with masks are for validation and testing, unless most have one: training
needs none.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.spatial.distance import cdist

from sri_cli.console import Progress, counted
from sri_cli.cores import available_cores
from sri_cli.data.dataset import SPLITS
from sri_cli.data.image_files import Pixels, Unreadable, depth_and_frames, is_lossy
from sri_cli.data.parallel import parallel_map
from sri_cli.data.source import Options, Scenario, Source, sixth
from sri_cli.data.sources.listing import Entry, MaskNames, list_images
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError, SriFailure
from sri_cli.rng import stream
from sri_cli.run import PREPARED_AS

DEFAULT_PX = 64
SHUFFLE_STREAM = 2  # separates this permutation from others of the same seed
FILES_PER_TASK = 4
FILES_PER_WORKER = 32  # starting a worker takes a second
NAME_BYTES, SKIPPED_NAME_BYTES = 64, 160  # in a data file
MAX_REPORTED = 3  # unusable files in a message
MAX_LISTED = 20  # in a note
RIM_LABEL = 255  # of areas without a class in PASCAL VOC and others
RIM_SHARE = 40  # a rim is thinner than the mask's side divided by this
DARK = 64  # of 255: images of 16 bits that reach no more hold 8 to 14
MEANS = 8  # rows and columns of the means that show near-identical images
NEAR = 3  # levels of 255 by which they differ at most
MAX_QUERIES, BLOCK_ROWS = 2000, 512  # images compared with all others, at once with so many


@dataclass(frozen=True)
class FolderOptions(Options):
    """`crop`: a centred square of so many pixels; None: the largest one. `strict`: unusable files
    are an error. `masks`: where masks are. `background_label`: takes the part of label 0, which
    takes its part. `void_label`: counts nowhere. `group_by`: a regular expression; images whose
    names agree in its parentheses stay in one split."""

    name: str | None = None
    crop: int | None = None
    background_labels: int = 1
    strict: bool = False
    masks: MaskNames = MaskNames()
    background_label: int | None = None
    void_label: int | None = None
    group_by: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        background = self.background_label
        if background is not None and self.background_labels != 1:
            raise SriError(
                f"--background {self.background_labels} does not go with --background-label",
                "--background N means labels 0 to N-1, --background-label L one label",
            )
        taken = range(self.background_labels) if background is None else (background,)
        if self.void_label in taken:
            raise SriError(f"label {self.void_label} is void and background", "choose one of them")
        try:
            re.compile(self.group_by or "")
        except re.error as error:
            raise SriError(f"--group-by {self.group_by}: {error}", EXAMPLE) from error

    @property
    def stored_void(self) -> int | None:
        """The void label in the data file."""
        return self.background_label or 0 if self.void_label == 0 else self.void_label

    @property
    def reserved(self) -> set[int]:
        """Labels that mean no object, so none may be given one of them."""
        chosen = (*range(self.background_labels), self.background_label, self.void_label)
        return {label for label in chosen if label is not None}


EXAMPLE = "'(.+)_' groups clip3_0001 and clip3_0002; '^([^/]+)/' the images of a folder"


class Look(NamedTuple):
    """What the survey found in an image and its mask."""

    problem: str | None = None  # why they cannot be used
    means: bytes = b""  # of MEANS x MEANS parts, 0 to 255
    turned: bool = False  # the mask, as the image's EXIF says
    has_rim: bool = False  # thin areas of RIM_LABEL
    lossy: bool = False  # the image's file
    brightest: int | None = None  # 0 to 255, of an image of more than 8 bits
    frames: int = 1  # images in its file


def look_at(resizing: Resizing, reserved: set[int], entry: Entry) -> Look:
    """Decode an image and its mask."""
    try:
        pixels, mask, turned = entry.read(resizing, reserved)
    except Unreadable as error:
        return Look(str(error))
    means = Image.fromarray(pixels).convert("L").resize((MEANS, MEANS), Image.Resampling.BOX)
    rim = mask is not None and has_rim(mask)
    deep, frames = depth_and_frames(entry.image)
    brightest = int(pixels.max()) if deep else None
    return Look(None, means.tobytes(), turned, rim, is_lossy(entry.image), brightest, frames)


def has_rim(mask: Pixels) -> bool:
    """Whether a mask [S,S] has thin areas of label 255 beside other objects, as void rims are."""
    rim = mask == RIM_LABEL
    if not rim.any() or not ((mask > 0) & ~rim).any():
        return False
    side = 2 * max(1, len(mask) // RIM_SHARE) + 1
    core = Image.fromarray(rim.astype(np.uint8)).filter(ImageFilter.MinFilter(side))
    return bool(np.count_nonzero(np.asarray(core)) < 0.1 * np.count_nonzero(rim))


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

    def __init__(self, folder: Path, options: FolderOptions) -> None:
        self.folder, self.options = folder, options
        self.resizing = Resizing(options.size_px or DEFAULT_PX, centre=options.crop)
        name = _name_of(folder, options)
        entries, self.notes = list_images(folder, options.masks)
        self.is_split = has_splits(folder, entries, options.test_only)
        self.test_only = options.test_only or {entry.split for entry in entries} == {"test"}
        if self.test_only:
            options = self.options = replace(options, test_only=True)
        used = ("test",) if self.test_only else SPLITS
        self.entries = [entry for entry in entries if entry.split in used or not self.is_split]
        self.num_outside = self.is_split * sum(entry.split is None for entry in entries)
        pattern = options.group_by
        if pattern is not None and len(grouped(self.entries, pattern)) == len(self.entries):
            raise SriError(f"--group-by {pattern} puts no two images together", EXAMPLE)
        masked = sum(entry.mask is not None for entry in self.entries)
        # Few masks are for evaluation; where most images have one, the others lack it.
        self.by_masks = not (self.is_split or self.test_only) and 0 < masked < len(self.entries) / 2
        self.max_workers = min(available_cores(), 1 + len(self.entries) // FILES_PER_WORKER)
        self.header = Header(
            name=name,
            size=self.resizing.size,
            source="folder",
            background_labels=options.background_labels,
            parameters=self._parameters(),
            preprocessing=f"upright by EXIF; transparency over black; {self.resizing.describe()}",
            void_label=options.stored_void,
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"entries": []}  # a worker is sent those that it makes

    def _parameters(self) -> dict[str, object]:
        """The files by path and size in bytes, and the options.

        A file that was changed without changing its size is not noticed.
        """
        digest = hashlib.sha256()
        for entry in self.entries:
            for path in (entry.image, *([entry.mask] if entry.mask else [])):
                num_bytes = path.stat().st_size if path.exists() else -1  # a broken link
                digest.update(os.fsencode(os.path.relpath(path, self.folder)))
                digest.update(b"\0%d\n" % num_bytes)
        options = self.options
        split = "the folder's own" if self.is_split else "shuffled"
        if self.by_masks:
            split = "images with masks for val and test"
        more = {  # only what is chosen: files of earlier versions stay up to date
            "mask_folder": options.masks.folder,
            "mask_suffix": options.masks.suffix,
            "no_masks": options.masks.none or None,
            "background_label": options.background_label,
            "void": options.void_label,
            "group_by": options.group_by,
        }
        return {
            "files": len(self.entries),
            "listing": digest.hexdigest()[:16],
            "split": "test only" if self.test_only else split,
            "crop": options.crop or "largest square",
            "background": options.background_labels,
            **{s: "by default" if n is None else n for s, n in options.given.items()},
            "seed": options.seed,
            **{key: value for key, value in more.items() if value is not None},
        }

    def survey(self, workers: int) -> tuple[Header, Mapping[str, list[Entry]]]:
        """Decode every file once and split the usable ones."""
        entries, notes = list(self.entries), list(self.notes)
        if self.num_outside:
            outside = counted(self.num_outside, "image")
            notes.append(f"{outside} outside of train/, val/ and test/ left out")
        entries, problems = self._check_masks(entries, notes)
        self._split(entries)  # wrong numbers are reported before reading
        looks: dict[str, Look] = {}
        find = functools.partial(look_at, self.resizing, self.options.reserved)
        with (
            Progress(len(entries), 0, f"check {self.folder}", "image") as progress,
            closing(parallel_map(find, entries, workers, FILES_PER_TASK)) as results,
        ):
            for entry, look in zip(entries, results, strict=True):
                if look.problem is None:
                    looks[entry.name] = look
                else:
                    problems.append((entry, look.problem))
                progress.update(progress.done + 1)
        usable = [entry for entry in entries if entry.name in looks]
        if problems:
            notes.append(self._report(problems, refuse=self.options.strict or not usable))
        try:
            plan = self._split(usable)
        except SriError:
            if problems:  # without them there were enough
                self._report(problems, refuse=True)
            raise
        for split in ("test",) if self.test_only else SPLITS:
            unusable = [problem for problem in problems if problem[0].split == split]
            if unusable and not plan[split]:
                self._report(unusable, refuse=True)
        if self.test_only:
            notes.append("a test set alone: no images for training and validation")
        elif self.by_masks:
            notes.append(
                "images with masks are for validation and test, those without for training"
            )
            groups = grouped(usable, self.options.group_by)
            mixed = [group for group in groups if any(entry.mask for entry in group)]
            if lost := sum(not entry.mask for group in mixed for entry in group):
                notes.append(
                    f"{counted(lost, 'image')} without a mask left out: others of their"
                    " group have one"
                )
        notes += self._notes(looks, plan)
        skipped = [
            f"{_short(entry.name, SKIPPED_NAME_BYTES)}: {problem}" for entry, problem in problems
        ]
        pattern = self.options.group_by
        header = replace(
            self.header,
            counts={split: len(plan[split]) for split in SPLITS},
            skipped=tuple(skipped),
            scene_rule="" if pattern is None else f"images whose names agree in {pattern}",
            notes=tuple(notes),
            lossy={s: sum(looks[entry.name].lossy for entry in plan[s]) for s in SPLITS},
        )
        return header, plan

    def _check_masks(
        self, entries: list[Entry], notes: list[str]
    ) -> tuple[list[Entry], list[tuple[Entry, str]]]:
        """The images that can be used if their files can, and the others: those without a mask in
        a split where others have one. Training images are used without masks instead."""
        problems: list[tuple[Entry, str]] = []
        if self.by_masks:
            return entries, problems
        for split in SPLITS if self.is_split else (None,):
            own = [entry for entry in entries if entry.split == split or not self.is_split]
            bare = [entry for entry in own if entry.mask is None]
            if not bare or len(bare) == len(own):
                continue
            if split == "train":
                notes.append(
                    f"{len(own) - len(bare):,} of {len(own):,} training images have a mask:"
                    " none is used, as training needs none"
                )
                entries = [replace(e, mask=None) if e.split == "train" else e for e in entries]
            else:
                problems += [(entry, "it has no mask, others have") for entry in bare]
        unusable = {entry.name for entry, _ in problems}
        return [entry for entry in entries if entry.name not in unusable], problems

    def _split(self, entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
        """The entries of each split, sorted by path and group, chosen by a seeded permutation.

        A folder's own splits are never mixed, even if nothing in one of them is readable; with
        `--scenes` alone, at most a sixth of it is taken for validation and for test. `by_masks`:
        images with masks are for validation and test, the others for training. SriError if there
        are too few images.
        """
        options, rng = self.options, stream(self.options.seed, SHUFFLE_STREAM)
        plan: dict[str, list[Entry]] = {}
        if self.is_split:
            for split in SPLITS:
                images = [entry for entry in entries if entry.split == split]
                there = f"there are {len(images):,} {split} images"
                options.check_number(split, len(images), there)
                chosen = sorted(rng.permutation(len(images))[: options.number(split)])
                plan[split] = [images[index] for index in chosen]
            return plan
        groups = grouped(entries, options.group_by)
        noun = "images" if options.group_by is None else "groups"
        pools: list[tuple[list[list[Entry]], tuple[str, ...]]]
        pools = [(groups, ("test", "val", "train"))]
        if self.by_masks:
            masked = [[entry for entry in group if entry.mask] for group in groups]
            bare = [group for group in groups if not any(entry.mask for entry in group)]
            pools = [([group for group in masked if group], ("test", "val")), (bare, ("train",))]
            numbers = divide_by_masks(len(pools[0][0]), len(bare), options, noun)
        else:
            numbers = options.divide(len(groups), max(1, len(groups) // 10), noun)
        for pool, splits in pools:
            order, begin = rng.permutation(len(pool)), 0
            for split in splits:
                rows = sorted(order[begin : begin + numbers[split]])
                plan[split] = [entry for row in rows for entry in pool[row]]
                begin += numbers[split]
        return plan

    def _report(self, problems: list[tuple[Entry, str]], refuse: bool) -> str:
        """The note on the files that are left out, or SriError."""
        message = f"{len(problems):,} of {counted(len(self.entries), 'image')} cannot be used"
        most = MAX_REPORTED if refuse else MAX_LISTED
        lines = [f"{entry.name}: {why}" for entry, why in problems[:most]]
        lines += [f"and {len(problems) - most:,} more"] * (len(problems) > most)
        if refuse:
            hint = "repair them"
            if self.options.crop is not None:
                hint += ", or choose a smaller --crop"
            if any(entry.mask is not None for entry, _ in problems):
                hint += ", or take the masks out of the folder (training needs none)"
            if self.options.strict:
                hint += ", or omit --strict"
            raise SriError(f"{message}: {'; '.join(lines)}", hint)
        return "\n  ".join([f"{message} and are left out:", *lines])

    def _notes(self, looks: Mapping[str, Look], plan: Mapping[str, list[Entry]]) -> Iterator[str]:
        """What is remarkable in the usable images."""
        if turned := sum(look.turned for look in looks.values()):
            yield f"{counted(turned, 'mask')} turned as the EXIF tags of their images say"
        if several := sum(look.frames > 1 for look in looks.values()):
            yield f"{counted(several, 'file')} of several images: the first of each is used"
        deep = [look.brightest for look in looks.values() if look.brightest is not None]
        if deep and max(deep) <= DARK:
            yield (
                f"no image of 16 bits is brighter than {max(deep)} of 255 (8 to 14 bits stored in"
                " 16?): spread the values over 16 bits first"
            )
        rims = sum(look.has_rim for look in looks.values())
        if rims and self.options.void_label is None:
            yield (
                f"{counted(rims, 'mask')} with thin areas of label {RIM_LABEL}, which count as"
                f" objects; if they are rims without a class: --void {RIM_LABEL}"
            )
        if self.options.group_by is not None and self.is_split:
            groups = grouped([e for own in plan.values() for e in own], self.options.group_by)
            if across := sum(len({entry.split for entry in group}) > 1 for group in groups):
                yield f"{counted(across, 'group')} in more than one of the folder's own splits"
        yield from near_notes(looks, plan)

    def make(self, item: Entry) -> Scenario:
        try:
            image, mask, _ = item.read(self.resizing, self.options.reserved)
        except Unreadable as error:
            raise SriFailure(  # it was readable: the rows so far stay
                f"{item.image} has changed since the survey: {error}", "run the same command again"
            ) from error
        label = self.options.background_label
        if mask is not None and label:
            swapped = np.arange(256, dtype=np.uint8)
            swapped[[0, label]] = label, 0
            mask = swapped[mask]
        name, factors = _short(item.name, NAME_BYTES), {}
        if self.options.group_by is not None:
            factors["image"] = np.array([name.encode()], f"S{NAME_BYTES}")
            name = _short(group_of(item, self.options.group_by) or item.name, NAME_BYTES)
        return Scenario(name, image[None], None if mask is None else mask[None], factors)


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


def has_splits(folder: Path, entries: Sequence[Entry], test_only: bool) -> bool:
    """Whether the folder has splits of its own, or a test split alone.

    SriError if some are missing: test images could then be mixed with those for training.
    """
    existing = {entry.split for entry in entries if entry.split}
    outside = any(entry.split is None for entry in entries)
    if "test" in existing and (test_only or (existing == {"test"} and not outside)):
        return True
    missing = [split for split in SPLITS if split not in existing]
    if missing and ("train" in existing and len(existing) == 2 or "test" in existing):
        example = next(entry.name for entry in entries if entry.split)
        raise SriError(
            f"{folder} has {' and '.join(sorted(existing))} images (as {example}) but no folder"
            f" {' and '.join(f'{split}/' for split in missing)}",
            f"add images to {missing[0]}/, or rename the folders for a new split",
        )
    return not missing


def group_of(entry: Entry, pattern: str) -> str | None:
    """What the parentheses of a pattern, or without any all of it, match in the image's name; None
    for an image of its own."""
    found = re.search(pattern, entry.name)
    return found and ("/".join(found.groups(default="")) or found[0])


def grouped(entries: Sequence[Entry], pattern: str | None) -> list[list[Entry]]:
    """The images of each group, in the order of their first."""
    groups: dict[tuple[str | None, str], list[Entry]] = {}
    for entry in entries:
        group = None if pattern is None else group_of(entry, pattern)
        groups.setdefault((group, "" if group else entry.name), []).append(entry)
    return list(groups.values())


def divide_by_masks(masked: int, bare: int, options: Options, noun: str) -> dict[str, int]:
    """The number of each split: half of those with masks for validation and for test each, those
    without for training; as given, or at most a sixth of given training images. SriError if there
    are too few."""
    most = masked if options.scenes is None else sixth(options.scenes)
    val, test = options.val_scenes, options.test_scenes
    if val is None:
        val = min(masked // 2 if test is None else masked - test, most)
    if test is None:
        test = min(masked - val, most)
    train = bare if options.scenes is None else options.scenes
    if min(train, val, test) < 1 or val + test > masked or train > bare:
        raise SriError(
            f"{masked:,} {noun} have masks and {bare:,} have none: too few for {max(1, val):,} val,"
            f" {max(1, test):,} test and {max(1, train):,} train {noun}",
            (
                "choose smaller numbers: --scenes N --val-scenes V --test-scenes T"
                if bare
                else "leave out --group-by"
            )
            + "; or --test-only",
        )
    return {"train": train, "val": val, "test": test}


# Near-identical images


def near_notes(looks: Mapping[str, Look], plan: Mapping[str, list[Entry]]) -> Iterator[str]:
    """A note on near-identical images, if there are any; of very many images some are compared."""
    names = [entry.name for split in SPLITS for entry in plan[split]]
    split_of = np.repeat(np.arange(len(SPLITS)), [len(plan[split]) for split in SPLITS])
    means = np.frombuffer(b"".join(looks[name].means for name in names), np.uint8)
    means = means.reshape(len(names), MEANS**2)
    some = _spread(np.arange(len(names)))
    evaluated = _spread(np.flatnonzero(split_of > 0))
    anywhere = near_identical(means, some, np.arange(len(names)))
    if (anywhere < 0).all():
        return
    across = near_identical(means, evaluated, split_of)
    text = f"{(anywhere >= 0).sum():,} of {counted(len(some), 'image')} near-identical to another"
    if (across < 0).all():
        text += ", none to one of another split"
    else:
        query = int(np.argmax(across >= 0))
        text += (
            f"; {(across >= 0).sum():,} of {len(evaluated):,} validation and test images to one of"
            f" another split, as {names[evaluated[query]]} to {names[across[query]]}:"
            " --group-by keeps frames of a video or views of a scene in one split"
        )
    yield text


def _spread(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most MAX_QUERIES of the rows, from all over."""
    return rows[:: -(-len(rows) // MAX_QUERIES) or 1]


def near_identical(
    means: NDArray[np.uint8], queries: NDArray[np.intp], part: NDArray[np.intp]
) -> NDArray[np.intp]:
    """For each query the first image of another part [N] whose means [N,M] differ from its own by
    at most NEAR; -1 for none."""
    found = np.full(len(queries), -1)
    for start in range(0, len(means), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        near = cdist(means[queries], means[rows], "chebyshev") <= NEAR
        near &= part[queries][:, None] != part[rows]
        first = (found < 0) & near.any(axis=1)
        found[first] = start + near[first].argmax(axis=1)
    return found
