"""The file format of all data sets, read and checked: HDF5 with memory-mapped images.

`data/<name>-<size>.h5` has the groups train, val and test, each with `images` uint8 [N,H,W,3]
(contiguous, so that they can be mapped), `masks` uint8 [N,H,W] (0..background_labels-1 are
background, then foreground, `void_label` counts nowhere; absent when unknown) and `factors/*`
[N,...] where known. A file may hold a test split alone; the other groups are empty then. The root
attributes say what it is and how it was made; writer.py sets them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import PREPARED_AS, prepare_hint

SCHEMA = 1
SPLITS = ("train", "val", "test")
REQUIRED = ("name", "size", "source", "background_labels", "parameters", "sha256")
HASH_BYTES = 2**24  # of images read at once
FLAGS = {  # parameter -> option of `sri prepare`
    "train": "--scenes",
    "val": "--val-scenes",
    "test": "--test-scenes",
    "views": "--views",
    "seed": "--seed",
    "crop": "--crop",
    "background": "--background",
    "background_label": "--background-label",
    "void": "--void",
}
TEXT_FLAGS = {"mask_folder": "--masks", "mask_suffix": "--mask-suffix", "group_by": "--group-by"}
DEFAULTS = {"seed": 0, "background": 1}  # of these options, which need not be given

Images = NDArray[np.uint8]
Masks = NDArray[np.uint8]
Factors = dict[str, NDArray[Any]]
Advance = Callable[[int], None]  # called with the number of images done


class DataFile:
    """A complete and readable data file; SriError says what is wrong and how to fix it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._splits: dict[str, Split] = {}
        self.attrs: dict[str, Any] = {}
        with self.open() as file:
            with self.reading("its attributes"):
                self.attrs = {
                    name: value.item() if isinstance(value, np.generic) else value
                    for name, value in file.attrs.items()
                }
                if "parameters" in self.attrs:
                    self.attrs["parameters"] = json.loads(self.attrs["parameters"])
            self._check_attrs()
            with self.reading("its attributes"):
                self.name = str(self.attrs["name"])  # as in `sri train --data NAME`
                self.size = int(self.attrs["size"])  # height and width of the images in pixels
                self.source = str(self.attrs["source"])  # original, mirror, simulated or folder
                self.background_labels = int(self.attrs["background_labels"])  # from label 0
                void = self.attrs.get("void_label")  # of pixels that count nowhere
                self.void_label = None if void is None else int(void)
            with self.reading("its images"):
                self.counts = self._read_counts(file)
                self._offsets = {name: self._check_split(file, name) for name in self.splits}
                self.masked = [name for name in self.splits if "masks" in file[name]]

    def __reduce__(self) -> tuple[Any, ...]:
        return DataFile, (self.path,)  # without the images, which another process maps itself

    @property
    def splits(self) -> list[str]:
        """The splits that have images."""
        return [name for name in SPLITS if self.counts[name]]

    def num_lossy(self, split: str) -> int:
        """How many images of a split were made from JPEG or other lossy files, as far as known."""
        counts = json.loads(self.attrs.get("lossy_files", "[0, 0, 0]"))
        return int(counts[SPLITS.index(split)])

    @property
    def caption(self) -> str:
        """The name for figures, with the source unless that is the original."""
        return self.name if self.source == "original" else f"{self.name}, {self.source}"

    def split(self, name: str) -> Split:
        """The images, masks and factors of train, val or test; SriError if it is empty."""
        if name not in SPLITS:
            near = did_you_mean(name, SPLITS)
            raise SriError(f"no split {name}{near}", f"there is {', '.join(SPLITS)}")
        if not self.counts[name]:
            there = ", ".join(f"{self.counts[other]:,} {other}" for other in self.splits)
            long = {"train": "training", "val": "validation"}.get(name, name)
            hint = "" if name == "train" else f"--split {self.splits[-1]}, or "
            raise SriError(
                f"{self.path} has no {long} images, only {there}",
                f"{hint}name another data file: --data NAME|FILE",
            )
        if name not in self._splits:
            shape = (self.counts[name], self.size, self.size, 3)
            images = np.memmap(self.path, np.uint8, "r", self._offsets[name], shape)
            self._splits[name] = Split(self, name, images)
        return self._splits[name]

    def check_size(self, size: int) -> None:
        """SriError unless the images have `size` px."""
        if self.size != size:
            raise SriError(
                f"the images of {self.path} have {self.size} px, the model needs {size} px",
                self.size_hint(size),
            )

    def size_hint(self, size: int) -> str:
        """The hint that names the command which makes this file at `size` px."""
        arguments = prepare_arguments(self.attrs | {"size": size})
        if arguments is None:
            return prepare_hint("make a file of that size", self.name, size)
        return f"make a file of that size: sri prepare {arguments}"

    def is_intact(self, advance: Advance = lambda done: None) -> bool:
        """Whether the images still have the hash they were written with; reads all of them."""
        splits = [self.split(name).images for name in self.splits]
        return hash_of(splits, advance) == self.attrs["sha256"]

    def open(self, cache_bytes: int = 2**20) -> h5py.File:
        """The HDF5 file, with so much memory for what was decompressed (default: HDF5's own).

        Raises:
            SriError: when it cannot be opened.
        """
        if not self.path.exists():
            name, _, size = self.path.name.removesuffix(".h5").rpartition("-")
            hint = f"make it: sri prepare shapestacks --out {self.path}"
            if size.isdigit():
                hint = prepare_hint("make it", name, size)
            raise SriError(f"data file {self.path} does not exist", hint)
        if self.path.is_dir():
            raise SriError(
                f"data file {self.path} is a folder", "`sri prepare --list` lists the data files"
            )
        if not os.access(self.path, os.R_OK):
            raise SriError(
                f"data file {self.path} cannot be read: no permission",
                f"chmod u+r {shlex.quote(str(self.path))}",
            )
        if self.path.suffix == ".partial":
            raise SriError(
                f"data file {self.path} is unfinished",
                "run the same `sri prepare` command again to finish it",
            )
        try:
            if not h5py.is_hdf5(self.path):
                raise self.broken("is not an HDF5 file")
            cache = {"rdcc_nbytes": cache_bytes, "rdcc_nslots": 10_007}
            return h5py.File(self.path, "r", locking=False, **cache)
        except OSError as error:
            raise self.broken(f"cannot be read: {reason_of(error)}") from error

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """SriError for whatever damaged HDF5 causes, which is of any type."""
        try:
            yield
        except SriError:
            raise
        except Exception as error:
            raise self.broken(f"is damaged: {what} cannot be read") from error

    def broken(self, problem: str) -> SriError:
        """The error to raise for a damaged file; its hint is the command that makes it again."""
        arguments = prepare_arguments(self.attrs)
        if arguments is None:
            hint = "make it again with the command that made it, and --force"
        else:
            usual = Path("data") / f"{self.attrs['name']}-{self.attrs['size']}.h5"
            out = "" if self.path == usual else f" --out {shlex.quote(str(self.path))}"
            file = self.attrs["parameters"].get("file")
            whose = f" from {file}" if file else ""
            hint = f"make it again{whose}: sri prepare {arguments}{out} --force"
        return SriError(f"data file {self.path} {problem}", hint)

    def _check_attrs(self) -> None:
        schema = self.attrs.get("schema")
        if schema is None:
            raise SriError(
                f"data file {self.path} is HDF5, but not a data file of sri (no schema version)",
                f"to convert a published data set: sri prepare NAME --from {self.path}",
            )
        if schema != SCHEMA:
            raise self.broken(f"has schema version {schema}, this sri reads {SCHEMA}")
        if not self.attrs.get("complete") or any(name not in self.attrs for name in REQUIRED):
            raise self.broken("was never finished")
        if not isinstance(self.attrs["parameters"], dict):
            raise self.broken("is damaged: its parameters cannot be read")

    def _read_counts(self, file: h5py.File) -> dict[str, int]:
        """The number of images of each split; 0 only where the file was made so."""
        counts, stored = {}, [int(n) for n in json.loads(self.attrs.get("counts", "[1, 1, 1]"))]
        for name, count in zip(SPLITS, stored, strict=True):
            images = file[name]["images"] if name in file and "images" in file[name] else None
            counts[name] = len(images) if isinstance(images, h5py.Dataset) else 0
            if (not counts[name] and count) or not any(stored):
                raise self.broken(f"has no {name} images")
        return counts

    def _check_split(self, file: h5py.File, name: str) -> int:
        """Where the images of a split begin in the file, in bytes."""
        images = file[name]["images"]
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size, 3):
            raise self.broken(f"has {name} images of {images.dtype} {list(images.shape)}")
        masks, number = file[name].get("masks"), len(images)
        if masks is not None and (masks.dtype != np.uint8 or masks.shape != images.shape[:3]):
            raise self.broken(f"has {name} masks of {masks.dtype} {list(masks.shape)}")
        for factor, values in file[name].get("factors", {}).items():
            if values.shape[:1] != (number,):
                raise self.broken(f"has {name} factors {factor} of {list(values.shape)}")
        offset = images.id.get_offset()
        if offset is None:
            raise self.broken(f"has {name} images that are not contiguous, or not written")
        if offset + images.size > self.path.stat().st_size:
            raise self.broken("is truncated")
        return int(offset)


class Split:
    """The images of a split, uint8 [N,H,W,3], mapped; masks and factors are read when used.

    The images of one scene follow one another: use `pick` for a sample of the split.
    """

    def __init__(self, data: DataFile, name: str, images: Images) -> None:
        self.images, self.has_masks = images, name in data.masked
        self._data, self._name = data, name

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def masks(self) -> Masks | None:
        """uint8 [N,H,W], or None when unknown."""
        return self._read(lambda group: group["masks"][:]) if self.has_masks else None

    @cached_property
    def labels_digest(self) -> str | None:
        """16 hex digits for the masks and which labels are background and void; None without."""
        if self.masks is None:
            return None
        digest = hashlib.sha256(np.ascontiguousarray(self.masks).data)
        digest.update(f"{self._data.background_labels} {self._data.void_label}".encode())
        return digest.hexdigest()[:16]

    def masks_of(self, indices: NDArray[np.intp]) -> Masks | None:
        """uint8 [B,H,W] of a few images, or None when unknown."""
        if not self.has_masks:
            return None

        def rows(group: h5py.Group) -> Masks:
            masks = group["masks"]  # opened once: HDF5 drops the cache of a closed one
            return np.stack([masks[int(index)] for index in indices])

        return self._read(rows)

    @cached_property
    def factors(self) -> Factors:
        """What is known of each image: name -> [N,...]."""
        return {name: self.factor(name) for name in self.factor_names()}

    def factor_names(self) -> list[str]:
        """The names of the factors, sorted; no values are read."""
        return self._read(lambda group: sorted(group.get("factors", {})))

    def factor(self, name: str) -> NDArray[Any]:
        """One factor, [N,...]."""
        return self._read(lambda group: group["factors"][name][()])

    def pick(self, count: int) -> NDArray[np.intp]:
        """Sorted indices of `count` random images, always the same, or of all if they are fewer."""
        number = min(count, len(self))
        return np.sort(np.random.default_rng(0).choice(len(self), number, replace=False))

    def _read(self, read: Callable[[h5py.Group], Any]) -> Any:
        with self._data.open() as file, self._data.reading(self._name):
            return read(file[self._name])


def prepare_arguments(attrs: Mapping[str, Any]) -> str | None:
    """The arguments of `sri prepare` that make a file with these attributes, without --out.

    DIR and FILE stand for paths, which a file does not store. None when they are unknown.
    """
    name, size, parameters = (attrs.get(key) for key in ("name", "size", "parameters"))
    if size is None or not isinstance(parameters, dict):
        return None
    from_files = "scenarios_sha256" in parameters  # of ShapeStacks
    split = parameters.get("split", "default")
    if attrs.get("source") == "folder":
        command = f"folder DIR --name {shlex.quote(str(name))}"
    elif (name := parameters.get("set", name)) not in PREPARED_AS:
        return None
    elif from_files:
        command = f"{name} --from DIR" + ("" if split == "default" else f" --split {split}")
    else:
        origins = {"simulated": "", "mirror": " --from mirror", "original": " --from FILE"}
        if attrs.get("source") not in origins:
            return None
        command = PREPARED_AS[name]
        if " --from " not in command:
            command += origins[attrs["source"]]
    # A published split needs no numbers, simulated files no seed: it is stored in them.
    implied = set(SPLITS) if split == "as published" else {"seed"} if from_files else set()
    numbers = [
        f"{flag} {parameters[key]}"
        for key, flag in FLAGS.items()
        if type(parameters.get(key)) is int
        and key not in implied
        and parameters[key] != DEFAULTS.get(key)
    ]
    texts = [
        f"{flag} {shlex.quote(parameters[key])}"
        for key, flag in TEXT_FLAGS.items()
        if key in parameters
    ]
    switches = ["--no-masks"] * bool(parameters.get("no_masks"))
    switches += ["--test-only"] * (split == "test only")
    return " ".join([command, f"--size {size}", *numbers, *texts, *switches])


def is_data_file(path: Path) -> bool:
    """Whether an existing file is in this format, even if it is unfinished or of another schema."""
    with suppress(Exception), h5py.File(path, "r", locking=False) as file:  # damaged: any type
        return "schema" in file.attrs and "background_labels" in file.attrs
    return False


def hash_of(arrays: list[Images], advance: Advance = lambda done: None) -> str:
    """SHA-256 of the images [N,H,W,3] of all splits, one after the other."""
    digest, done = hashlib.sha256(), 0
    for images in arrays:
        rows = max(1, HASH_BYTES // math.prod(images.shape[1:]))
        for start in range(0, len(images), rows):
            digest.update(images[start : start + rows].tobytes())
            advance(done + min(start + rows, len(images)))
        done += len(images)
    return digest.hexdigest()


def reason_of(error: OSError | RuntimeError) -> str:
    """The system's message inside HDF5's long report, which has none for a damaged file."""
    match = re.search(r"error message = '([^']+)'", str(error))
    return match[1] if match else getattr(error, "strerror", None) or "truncated or damaged"
