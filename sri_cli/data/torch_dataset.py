"""A data file for a training loop of one's own: torch data sets of its splits.

Axis legend: N images, H W rows and columns.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from sri_cli.data.dataset import DataFile, Split

MASK_CACHE_BYTES = 2**26  # of each process; masks are compressed in blocks of many images


class ImageDataset(Dataset[dict[str, Any]]):
    """One split of a data file; item i is image i with what is known of it.

    Keys: `image`, float32 [3,H,W] in [0,1]; `mask`, int64 [H,W], where the split has masks (labels
    from 0; the first `background_labels` are background, `void_label` counts nowhere); `factors`,
    a dict of tensors or strings by name, empty where none are known. Works in the processes of a
    DataLoader, forked or spawned: each opens the file itself.

    Attributes:
        file: The data file.
        images: All images, uint8 [N,H,W,3], mapped from the file.
    """

    def __init__(self, file: DataFile | Path, split: str) -> None:
        self.file = file if isinstance(file, DataFile) else DataFile(file)
        self.split_name = split
        self._split: Split = self.file.split(split)
        self.images = self._split.images
        self._opened: tuple[int, h5py.File, h5py.Dataset] | None = None  # by this process

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_split": None, "images": None, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._split = self.file.split(self.split_name)
        self.images = self._split.images

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.from_numpy(np.array(self.images[index]))
        item: dict[str, Any] = {"image": image.permute(2, 0, 1).float().div_(255)}
        if self._split.has_masks:
            with self.file.reading(self.split_name):
                mask = self._masks()[index]
            item["mask"] = torch.from_numpy(mask.astype(np.int64))
        factors = self._split.factors.items()
        item["factors"] = {name: _as_item(values[index]) for name, values in factors}
        return item

    def _masks(self) -> h5py.Dataset:
        """The masks in this process's own handle of the file, kept open: HDF5 drops the cache of a
        closed one."""
        if self._opened is None or self._opened[0] != os.getpid():
            file = self.file.open(MASK_CACHE_BYTES)
            self._opened = os.getpid(), file, file[self.split_name]["masks"]
        return self._opened[2]


class OpenedData(dict[str, ImageDataset]):
    """The splits of a data file by name: train, val and test, as far as they have images.

    `file` says what the data are: name, size, source, background_labels, void_label, attrs.
    """

    def __init__(self, file: DataFile) -> None:
        super().__init__((name, ImageDataset(file, name)) for name in file.splits)
        self.file = file

    def __missing__(self, split: str) -> ImageDataset:
        """Raises SriError: the split has no images."""
        return ImageDataset(self.file, split)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(own)} {name}" for name, own in self.items())
        return f"OpenedData({str(self.file.path)!r}: {self.file.caption}, {counts})"


def _as_item(value: Any) -> Any:
    """A factor of one image as a tensor, as text, or as a list of texts."""
    array = np.asarray(value)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace").tolist()
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
