"""The one file format of all data sets, read: HDF5, checked on opening, images memory-mapped.

`data/<name>-<size>.h5` holds the groups train, val and test, each with `images` uint8 [N,H,W,3]
(contiguous, so that they can be mapped), `masks` uint8 [N,H,W] (0..background_labels-1 are
background, then foreground; absent when unknown) and `factors/*` [N,...] where known. Root
attributes tell what it is and how it was made; writer.py sets them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.data.mending import make_again
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import prepare_hint

SCHEMA = 1
SPLITS = ("train", "val", "test")
HASH_BYTES = 2**24  # of images read at once
Images = NDArray[np.uint8]
Masks = NDArray[np.uint8]
Factors = dict[str, NDArray[Any]]
Advance = Callable[[int], None]


class Split:
    """Images uint8 [N,H,W,3]; masks uint8 [N,H,W] or None and factors, read when first asked for.

    The images of one scene follow one another: take a look at a split with `pick`.
    """

    def __init__(
        self,
        images: Images,
        masks: Masks | Callable[[slice], Masks] | None = None,
        factors: Factors | Callable[[], Factors] | None = None,
    ) -> None:
        self.images = images
        self.has_masks = masks is not None
        self._masks, self._factors = masks, factors

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def masks(self) -> Masks | None:
        """uint8 [N,H,W], or None when unknown."""
        return self.mask_rows(0, len(self)) if self.has_masks else None

    def mask_rows(self, start: int, stop: int) -> Masks:
        """uint8 [stop-start,H,W]: only these are read and unpacked; ask for `has_masks` before."""
        assert self._masks is not None
        rows = slice(start, stop)
        return self._masks(rows) if callable(self._masks) else self._masks[rows]

    @cached_property
    def factors(self) -> Factors:
        """What is known of each image: name -> [N,...]."""
        return self._factors() if callable(self._factors) else self._factors or {}

    def pick(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """Sorted indices of `count` images (at most all) from all over the split."""
        number = min(count, len(self))
        return np.sort(np.random.default_rng(seed).choice(len(self), number, replace=False))


class DataFile:
    """A data file, valid; SriError says what is wrong with it and which command mends it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._splits: dict[str, Split] = {}
        self.attrs: dict[str, Any] = {}
        with self._open() as file:
            self.attrs = self._attrs_of(file)
            self._check_attrs()
            self._offsets = {name: self._check_split(file, name) for name in SPLITS}
            shapes = {name: file[name]["images"].shape for name in SPLITS}
            self._masked = {name for name in SPLITS if "masks" in file[name]}
        self._counts = {name: shape[0] for name, shape in shapes.items()}

    @property
    def name(self) -> str:
        """The data set's name, as in `sri train --data NAME`."""
        return str(self.attrs["name"])

    @property
    def size(self) -> int:
        """Height and width of the images in pixels."""
        return int(self.attrs["size"])

    @property
    def source(self) -> str:
        """original, mirror, simulated or folder."""
        return str(self.attrs["source"])

    @property
    def background_labels(self) -> int:
        """How many labels, from 0, are background."""
        return int(self.attrs["background_labels"])

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split."""
        return dict(self._counts)

    @property
    def caption(self) -> str:
        """The name for figures; what is simulated says so."""
        return self.name if self.source == "original" else f"{self.name}, {self.source}"

    def split(self, name: str) -> Split:
        """The images, masks and factors of train, val or test."""
        if name not in SPLITS:
            near = did_you_mean(name, SPLITS)
            raise SriError(f"no split {name}{near}", f"there is {', '.join(SPLITS)}")
        if name not in self._splits:
            shape = (self._counts[name], self.size, self.size, 3)
            images = np.memmap(self.path, np.uint8, "r", self._offsets[name], shape)
            masks = functools.partial(self._read_masks, name) if name in self._masked else None
            self._splits[name] = Split(images, masks, lambda: self._read_factors(name))
        return self._splits[name]

    def factor_names(self, split: str) -> list[str]:
        """What is known of each image of a split, by the alphabet; no values are read."""
        names: list[str] = self._read(split, lambda group: sorted(group.get("factors", {})))
        return names

    def factor(self, split: str, name: str) -> NDArray[Any]:
        """One factor [N,...] of a split; no others are read."""
        values: NDArray[Any] = self._read(split, lambda group: group["factors"][name][()])
        return values

    def check_size(self, size: int) -> None:
        """SriError unless the images are of `size` px."""
        if self.size != size:
            raise SriError(
                f"{self.path} holds images of {self.size} px, {size} px are wanted",
                prepare_hint("make them", self.name, size),
            )

    def is_intact(self, advance: Advance = lambda done: None) -> bool:
        """Whether the images are still those that were written; reads all of them. `advance` hears
        how many it has read."""
        splits = [self.split(name).images for name in SPLITS]
        return hash_of(splits, advance) == self.attrs["sha256"]

    def _open(self) -> h5py.File:
        if not self.path.exists():
            raise SriError(f"data file {self.path} does not exist", self._make_it())
        if self.path.is_dir():
            raise SriError(
                f"data file {self.path} is a folder", "`sri prepare --list` lists the data files"
            )
        if not os.access(self.path, os.R_OK):
            raise SriError(
                f"data file {self.path} cannot be read: no permission",
                f"chmod u+r {shlex.quote(str(self.path))}",
            )
        try:
            if self.path.suffix == ".partial":
                raise SriError(
                    f"data file {self.path} is an unfinished preparation",
                    "finish it: the command that began it goes on with it",
                )
            if not h5py.is_hdf5(self.path):
                raise self._broken("is not an HDF5 file")
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            if "truncated" in str(error):
                raise self._broken("is cut off: it ends before its data does") from error
            raise self._broken(f"cannot be read: {reason_of(error)}") from error

    def _attrs_of(self, file: h5py.File) -> dict[str, Any]:
        try:
            return read_attrs(file)
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise self._broken("is damaged: what it is cannot be read") from error

    def _check_attrs(self) -> None:
        schema = self.attrs.get("schema")
        if schema is None:
            raise SriError(
                f"data file {self.path} is HDF5, but no data file of sri (no schema version)",
                f"of a published data set it is made into one: sri prepare NAME --from {self.path}",
            )
        if schema != SCHEMA:
            raise self._broken(f"has schema version {schema}, this sri reads {SCHEMA}")
        wanted = ("name", "size", "source", "background_labels", "parameters", "sha256")
        missing = [name for name in wanted if name not in self.attrs]
        if not self.attrs.get("complete") or missing:
            raise self._broken("was never finished")
        if not isinstance(self.attrs["parameters"], dict):
            raise self._broken("is damaged: how it was made cannot be read")

    def _check_split(self, file: h5py.File, name: str) -> int:
        """Where the images of a split begin in the file, in bytes."""
        try:
            return self._image_offset(file, name)
        except (KeyError, RuntimeError, OSError) as error:
            raise self._broken(f"is damaged: {name} cannot be read") from error

    def _image_offset(self, file: h5py.File, name: str) -> int:
        images = file[name]["images"] if name in file and "images" in file[name] else None
        if not isinstance(images, h5py.Dataset):
            raise self._broken(f"has no {name} images")
        if len(images.shape) and images.shape[0] == 0:
            raise self._broken(f"has no images in {name}")
        if images.dtype != np.uint8 or images.shape[1:] != (self.size, self.size, 3):
            raise self._broken(f"has {name} images of {images.dtype} {list(images.shape)}")
        self._check_companions(file[name], images.shape)
        offset = images.id.get_offset()
        if offset is None:
            why = "were never written" if images.chunks is None else "are not contiguous"
            raise self._broken(f"has {name} images that {why}")
        if offset + images.size > self.path.stat().st_size:
            raise self._broken("is cut off: it ends before its data does")
        return int(offset)

    def _check_companions(self, group: h5py.Group, shape: tuple[int, ...]) -> None:
        """Masks and factors belong to the images one by one."""
        where = group.name.strip("/")
        masks = group.get("masks")
        if masks is not None and (masks.dtype != np.uint8 or masks.shape != shape[:3]):
            raise self._broken(f"has {where} masks of {masks.dtype} {list(masks.shape)}")
        for name, values in group.get("factors", {}).items():
            if values.shape[:1] != shape[:1]:
                raise self._broken(f"has {where} factors {name} of {list(values.shape)}")

    def _read_masks(self, name: str, rows: slice) -> Masks:
        masks: Masks = self._read(name, lambda group: group["masks"][rows])
        return masks

    def _read_factors(self, name: str) -> Factors:
        def read(group: h5py.Group) -> Factors:
            return {key: values[()] for key, values in group.get("factors", {}).items()}

        factors: Factors = self._read(name, read)
        return factors

    def _read(self, name: str, read: Callable[[h5py.Group], Any]) -> Any:
        with self._open() as file:
            try:
                return read(file[name])
            except (KeyError, OSError) as error:
                raise self._broken(f"is damaged: {name} cannot be read") from error

    def _broken(self, what: str) -> SriError:
        return SriError(f"data file {self.path} {what}", make_again(self.path, self.attrs))

    def _make_it(self) -> str:
        """The command that makes this file, as far as its name tells."""
        name, _, size = self.path.name.removesuffix(".h5").rpartition("-")
        if not size.isdigit():
            return f"make it: sri prepare shapestacks --out {self.path}"
        return prepare_hint("make it", name, size)


def read_attrs(file: h5py.File) -> dict[str, Any]:
    """The root attributes as Python values; `parameters` parsed."""
    attrs = {name: as_python(value) for name, value in file.attrs.items()}
    if "parameters" in attrs:
        attrs["parameters"] = json.loads(attrs["parameters"])
    return attrs


def as_python(value: Any) -> Any:
    """A stored attribute as int, float, bool or str."""
    return value.item() if isinstance(value, np.generic) else value


def hash_of(arrays: list[Images], advance: Advance = lambda done: None) -> str:
    """SHA-256 of the images of all splits, one after the other; `advance` hears how many so far."""
    digest, done = hashlib.sha256(), 0
    for images in arrays:
        rows = max(1, HASH_BYTES // math.prod(images.shape[1:]))
        for start in range(0, len(images), rows):
            digest.update(images[start : start + rows].tobytes())
            advance(done + min(start + rows, len(images)))
        done += len(images)
    return digest.hexdigest()


def reason_of(error: OSError | RuntimeError) -> str:
    """What the system said, out of HDF5's long report."""
    said = re.search(r"error message = '([^']+)'", str(error))
    return said.group(1) if said else getattr(error, "strerror", None) or str(error)
