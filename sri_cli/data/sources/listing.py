"""Which images a folder holds, and which mask belongs to which image. Names decide, not pixels.

    DIR/**/NAME.jpg                   its mask: DIR/masks/**/NAME.png, or DIR/**/NAME_mask.png
    DIR/images/**/NAME.jpg            DIR/labels/**/NAME.npy
    DIR/{train,val,test}/**/NAME.jpg  DIR/masks/{train,val,test}/**, DIR/{train,val,test}/masks/**

Folders of splits may lie deeper; of several in one path the uppermost counts.

Images and masks belong together if their paths are equal without the folders called images or masks
(or like one of these), whatever their endings; failing that, without one more folder, if a single
image fits. Where no mask is found but files look like masks of others, they are refused: they would
be trained on as images.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sri_cli.console import counted
from sri_cli.data.image_files import (
    Pixels,
    Unreadable,
    decode_image,
    decode_labels,
    image_files,
    read_upright,
)
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError, pip_install

Key = tuple[str, ...]  # folders and stem
INSTANCES, CLASSES = "segmentationobject", "segmentationclass"  # of PASCAL VOC
MASK_FOLDERS = {
    *("mask", "masks", "label", "labels", "labelmap", "labelmaps", "seg", "segs", "segmentation"),
    *("segmentations", "annotation", "annotations", "instance", "instances", "gt", "groundtruth"),
    *("ground_truth", "masks_machine", INSTANCES, CLASSES),
}
# Of labelme, Supervisely and others: photographs with their labels drawn over them.
OVERLAY_FOLDERS = {
    *(f"{INSTANCES}visualization", f"{CLASSES}visualization", "masks_human"),
    *("visualization", "visualizations", "overlay", "overlays"),
}
IMAGE_FOLDERS = {"image", "images", "img", "imgs", "rgb", "jpegimages"}
HEIF = {".heic", ".heif"}
KIND_FOLDERS = ("images",)  # no part of an image's name
MASK_SUFFIX = re.compile(
    r"[-_. ]((?:cp_)?masks?|segs?|segmentations?|labels?|labelmaps?|instances?|gt|flat)$",
    re.IGNORECASE,
)
IMAGE_SUFFIX = re.compile(r"[-_. ](image|img|rgb)$", re.IGNORECASE)
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
# Files that look like masks: most neighbours equal, and few values or flat objects.
MAX_LABELS, MIN_EQUAL = 64, 0.8
LABEL_SIDE_PX = 512
NUM_COMPARED = 8  # pairs of files
SHARE_OF_TWINS = 0.9
MAX_ENDINGS = 10  # in a note
MAX_SIBLINGS = 8  # folders that may hold files of the same names


@dataclass(frozen=True)
class Entry:
    """An image, named by its path without suffix; its mask and its split if known."""

    name: str
    image: Path
    mask: Path | None
    split: str | None

    def read(
        self, resizing: Resizing, reserved: Collection[int]
    ) -> tuple[Pixels, Pixels | None, bool]:
        """uint8 [S,S,3], the mask uint8 [S,S], and whether the mask was turned as the image's EXIF
        says, see `decode_labels`; raises Unreadable."""
        pixels, frame = decode_image(self.image, resizing)
        if self.mask is None:
            return pixels, None, False
        return pixels, *decode_labels(self.mask, frame, resizing, reserved)


@dataclass(frozen=True)
class MaskNames:
    """Where masks are: in folders of a name, or a folder (`folder`); at names that end in `suffix`;
    `none`: nowhere. By default wherever names are usual."""

    folder: str | None = None
    suffix: str | None = None
    none: bool = False

    def __post_init__(self) -> None:
        """SriError for options that exclude each other."""
        if (self.folder is not None) + (self.suffix is not None) + self.none > 1:
            raise SriError(
                "--masks, --mask-suffix and --no-masks exclude each other", "give one of them"
            )

    @property
    def usual(self) -> bool:
        return self.folder is None and self.suffix is None and not self.none

    @property
    def folders(self) -> set[str]:
        """Lower-case names of folders of masks."""
        if self.usual:
            return MASK_FOLDERS
        return set() if self.folder is None else {self.folder.lower()}

    def base(self, stem: str, ending: str) -> str | None:
        """The stem of the image to whose mask a file name belongs; None for another name."""
        if self.usual:
            found = MASK_SUFFIX.search(stem)
            return stem[: found.start()] if found else None
        if self.suffix is None:
            return None
        if (stem + ending).endswith(self.suffix):  # the ending may be part of it
            return (stem + ending)[: -len(self.suffix)] or None
        return stem[: -len(self.suffix)] or None if stem.endswith(self.suffix) else None


def list_images(folder: Path, names: MaskNames = MaskNames()) -> tuple[list[Entry], list[str]]:
    """Every image below `folder`, sorted, and notes on what was recognised or left out; only names
    are read, unless masks are suspected.

    Raises:
        SriError: No folder or no image, two images of one name, two masks of one image, masks of
            other images, or files that look like masks and are none by their names.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"{folder} {problem}", "name the folder of your images")
    files, others = image_files(folder, (".npy",))
    outside = _outside(folder, files, names)
    if outside is not None:
        root = outside.resolve()  # it may be written in another way than the images' folder
        parents = {path.parent for path in files}
        within = {parent for parent in parents if parent.resolve().is_relative_to(root)}
        files = [path for path in files if path.parent not in within]
    masks: dict[Key, list[tuple[str, Path]]] = defaultdict(list)  # what it was recognised by
    rest: list[Path] = []
    unused: Counter[str] = Counter()  # in folders of overlays, and of other masks than the chosen
    for path in files:
        parts = path.relative_to(folder).parts
        mask_folder = _first(parts, names.folders)
        by_suffix = names.suffix is not None and names.base(path.stem, path.suffix) is not None
        left_out = OVERLAY_FOLDERS if by_suffix else MASK_FOLDERS | OVERLAY_FOLDERS
        if mask_folder is not None:
            masks[_match_key(parts, names)].append((f"{mask_folder}/", path))
        elif not names.none and (other := _first(parts, left_out)) is not None:
            unused[f"{other}/"] += 1
        else:
            rest.append(path)
    if outside is not None:
        for path in image_files(outside, (".npy",))[0]:
            key = _match_key(path.relative_to(outside).parts, names)
            masks[key].append((f"{outside.name}/", path))
    images = _take_beside(folder, rest, names, masks, others)
    if not images:
        found = f", but {_endings_text(others)}" if others else ""
        fix = "name the folder of your images"
        if others.keys() & HEIF:
            fix = f"install pillow-heif, with which .heic is read: {pip_install('pillow-heif')}"
        raise SriError(f"{folder} contains no images{found}", fix)
    by_key, short = _owners(folder, images, names) if masks else ({}, {})
    owners = short | by_key
    chosen: dict[Path, tuple[str, Path]] = {}
    num_lost = 0
    for key, own in masks.items():
        keys = [key, (*key[:-1], MASK_SUFFIX.sub("", key[-1]))]
        likely = [owners.get(k) for k in keys] + [by_key.get(k) for k in _shorter(keys[0])]
        image = next(filter(None, likely), None)
        if image is None:
            num_lost += len(own)
            continue
        for mask in own:
            if image in chosen:
                mask, left = _one_of(image, chosen[image], mask)
                unused[left[0]] += 1
            chosen[image] = mask
    if num_lost and not chosen:
        raise SriError(
            f"{folder} has {counted(num_lost, 'mask')}, but none has the name of an image",
            "give masks the names of their images; --no-masks takes every file as an image",
        )
    if not chosen and not names.none:
        refuse_label_twins(folder, images)
    if not chosen and names.suffix is not None:
        raise SriError(
            f"--mask-suffix {names.suffix}: no file in {folder} has a name that ends so",
            "name the end of the masks' names",
        )
    entries = _entries(folder, images, chosen)
    return entries, _notes(entries, chosen, num_lost, unused, others)


def _outside(folder: Path, files: Sequence[Path], names: MaskNames) -> Path | None:
    """The folder that --masks names by a path, or beside the images; None: by a name below them.

    Raises:
        SriError: There is no such folder.
    """
    if names.folder is None:
        return None
    if os.sep not in names.folder.rstrip(os.sep):
        wanted = {names.folder.lower()}
        if any(_first(path.relative_to(folder).parts, wanted) for path in files):
            return None
    for path in (folder / names.folder, Path(names.folder)):
        # In a folder above the images, or in theirs (`.`), all of them would be masks.
        if path.is_dir() and not folder.resolve().is_relative_to(path.resolve()):
            return path
    raise SriError(
        f"--masks {names.folder}: no folder of this name in {folder} has images or .npy files",
        "name the folder of the masks",
    )


def _first(parts: Key, names: set[str]) -> str | None:
    """The first folder with one of these names."""
    return next((part for part in parts[:-1] if part.lower() in names), None)


def _match_key(parts: Key, names: MaskNames) -> Key:
    """What an image and its mask have in common."""
    dropped = IMAGE_FOLDERS | names.folders
    stem = Path(parts[-1]).stem
    return (*(part for part in parts[:-1] if part.lower() not in dropped), stem)


def _take_beside(
    folder: Path,
    files: list[Path],
    names: MaskNames,
    masks: dict[Key, list[tuple[str, Path]]],
    others: Counter[str],
) -> list[Path]:
    """Add the masks among `files`, which lie beside their images, to `masks`; the images."""
    images = [path for path in files if path.suffix.lower() != ".npy"]
    stems = {_match_key(path.relative_to(folder).parts, names) for path in images}
    stems |= {(*key[:-1], IMAGE_SUFFIX.sub("", key[-1])) for key in stems}
    kept = []
    for path in files:
        key = _match_key(path.relative_to(folder).parts, names)
        base, is_array = names.base(path.stem, path.suffix), path.suffix.lower() == ".npy"
        if base is not None and ((*key[:-1], base) in stems or names.suffix):
            rule = f"*{names.suffix or path.stem[len(base) :]}"
            masks[*key[:-1], base].append((rule, path))
        elif is_array and key in stems and names.usual:
            masks[key].append(("*.npy", path))
        elif is_array:
            others[".npy"] += 1
        else:
            kept.append(path)
    return kept


def _owners(
    folder: Path, images: Iterable[Path], names: MaskNames
) -> tuple[dict[Key, Path], dict[Key, Path | None]]:
    """The image of each key; and of keys without _rgb or the like, or without one of the folders,
    None for several. Only one of image and mask may have a folder more: with one left out of each,
    a mask of clip B would be one of clip A."""
    by_key = {_match_key(path.relative_to(folder).parts, names): path for path in images}
    short: dict[Key, Path | None] = {}
    for key, path in by_key.items():
        for other in (*_shorter(key), (*key[:-1], IMAGE_SUFFIX.sub("", key[-1]))):
            short[other] = path if short.get(other, path) == path else None
    return by_key, short


def _shorter(key: Key) -> Iterator[Key]:
    """The key without each of its folders."""
    for level in range(len(key) - 1):
        yield (*key[:level], *key[level + 1 :])


def _one_of(image: Path, *masks: tuple[str, Path]) -> list[tuple[str, Path]]:
    """Two masks of an image, instances before classes; SriError for two of another kind."""
    one, other = sorted(masks, key=lambda mask: mask[0].lower(), reverse=True)
    if (one[0].lower(), other[0].lower()) != (f"{INSTANCES}/", f"{CLASSES}/"):
        raise SriError(
            f"{image} has two masks: {one[1]} and {other[1]}",
            "choose one kind: --masks DIR or --mask-suffix SUFFIX",
        )
    return [one, other]


def _entries(
    folder: Path, images: Iterable[Path], masks: Mapping[Path, tuple[str, Path]]
) -> list[Entry]:
    named: dict[Key, Path] = {}
    for path in images:
        parts = path.relative_to(folder).with_suffix("").parts
        folders = (part for part in parts[:-1] if part.lower() not in KIND_FOLDERS)
        key = tuple(map(_printable, (*folders, parts[-1])))  # as it is stored
        if key in named:
            raise SriError(
                f"{folder} has two images of the same name: {named[key]} and {path}", "rename one"
            )
        named[key] = path
    return [
        Entry("/".join(key), path, masks[path][1] if path in masks else None, _split_of(key))
        for key, path in sorted(named.items())
    ]


def _split_of(key: Key) -> str | None:
    """The split that a folder names, the uppermost if several do."""
    folders = (part.lower() for part in key[:-1])
    return next((SPLIT_FOLDERS[part] for part in folders if part in SPLIT_FOLDERS), None)


def _notes(
    entries: list[Entry],
    masks: Mapping[Path, tuple[str, Path]],
    num_lost: int,
    unused: Counter[str],
    others: Counter[str],
) -> list[str]:
    notes = []
    if masks:
        rules = Counter(rule for rule, _ in masks.values()).most_common(5)
        rules = [(_printable(rule), count) for rule, count in rules]
        used = ", ".join(f"{rule} {count:,}" for rule, count in rules)
        used = used if len(rules) > 1 else rules[0][0]
        notes.append(f"{len(masks):,} of {counted(len(entries), 'image')} with a mask ({used})")
    if unused:
        used = ", ".join(f"{count:,} in {_printable(rule)}" for rule, count in unused.most_common())
        notes.append(f"other masks, or images of masks, left out: {used}")
    if num_lost:
        notes.append(f"{counted(num_lost, 'mask')} without an image left out")
    if others:
        text = f"files that are no images left out: {_endings_text(others)}"
        if others.keys() & HEIF:
            text += "; with pillow-heif installed, .heic is read"
        notes.append(text)
    return notes


def _endings_text(others: Counter[str]) -> str:
    """`12 .txt, 3 .heic, 1 without ending`."""
    shown = others.most_common(MAX_ENDINGS)
    texts = [f"{n:,} {_printable(ending) or 'without ending'}" for ending, n in shown]
    rest = others.total() - sum(n for _, n in shown)
    return ", ".join(texts + [f"{rest:,} others"] * (rest > 0))


def _printable(name: str) -> str:
    text = os.fsencode(name).decode(errors="replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# Masks that their names do not show


def refuse_label_twins(folder: Path, images: Iterable[Path]) -> None:
    """SriError if files look like masks of others with the same name: in another folder, with
    something at its end (or both), or with another ending."""
    total: Counter[tuple[int | str, str]] = Counter()
    pairs: dict[tuple[int | str, str, str], list[tuple[Path, Path]]] = defaultdict(list)
    by_name: dict[tuple[int, Key], dict[str, Path]] = defaultdict(dict)
    by_folder: dict[Path, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in images:
        parts = path.relative_to(folder).with_suffix("").parts
        by_folder[path.parent][path.stem][path.suffix] = path
        for level, part in enumerate(parts[:-1]):
            by_name[level, (*parts[:level], *parts[level + 1 :])][part] = path
            total[level, part] += 1
    for (level, (*folders, stem)), twins in by_name.items():
        bases = (stem[: mark.start()] for mark in re.finditer(r"[-_. ]", stem))
        named = [by_name[at] for base in bases if (at := (level, (*folders, base))) in by_name]
        for originals in (twins, *named[-1:]):  # of the same name, and of its longest beginning
            if max(len(originals), len(twins)) > MAX_SIBLINGS:
                continue
            for one, image in originals.items():
                for other, mask in twins.items():
                    if one != other:
                        pairs[level, one, other].append((image, mask))
    for stems in by_folder.values():
        for stem, endings in stems.items():
            for ending, image in endings.items():
                for other, mask in endings.items():
                    if ending != other:
                        total["", other] += 1
                        pairs["", ending, other].append((image, mask))
            for mark in re.finditer(r"[-_. ]", stem):
                if images_of_base := stems.get(stem[: mark.start()]):
                    suffix = stem[mark.start() :]
                    total["", suffix] += 1
                    first, last = (next(iter(x.values())) for x in (images_of_base, endings))
                    pairs["", "", suffix].append((first, last))
    for (where, _, other), found in pairs.items():
        enough = len(found) >= max(2, SHARE_OF_TWINS * total[where, other])
        if not enough or not _are_labels(found[:: -(-len(found) // NUM_COMPARED)]):
            continue
        masks, option = (f"*{other}", "--mask-suffix") if where == "" else (f"{other}/", "--masks")
        raise SriError(
            f"{folder}: {counted(len(found), 'file')} ({masks}) look like masks of the images with"
            f" the same names, such as {found[0][1]} of {found[0][0]}",
            f"to use them: {option} {shlex.quote(other)}; to take every file as an image:"
            " --no-masks",
        )


def _are_labels(pairs: Iterable[tuple[Path, Path]]) -> bool:
    """Whether the second of each pair looks like a mask, and the first does not."""
    for image, mask in pairs:
        try:
            (flat, single), (is_flat, is_single) = _look_of(image), _look_of(mask)
        except Unreadable:
            return False
        if not is_flat or (flat and (single or not is_single)):
            return False
    return True


def _look_of(path: Path) -> tuple[bool, bool]:
    """Whether an image has flat areas, and whether it has a single channel.

    Of more than MAX_LABELS values, as many instances or a photograph on white have, areas must be
    flat without the most frequent one, too.
    """
    image, _ = read_upright(path)
    pixels = np.asarray(image)[:LABEL_SIDE_PX, :LABEL_SIDE_PX]
    single = pixels.ndim == 2
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.int64)
    values = pixels @ (1 << 16 * np.arange(pixels.shape[2]))
    equal = values[:, 1:] == values[:, :-1]
    flat = not equal.size or float(equal.mean()) >= MIN_EQUAL
    different, numbers = np.unique(values, return_counts=True)
    if flat and len(different) > MAX_LABELS:
        objects = equal[values[:, 1:] != different[numbers.argmax()]]
        flat = single and objects.size > 0 and float(objects.mean()) >= MIN_EQUAL
    return flat, single
