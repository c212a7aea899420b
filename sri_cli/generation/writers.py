"""Images and masks of new scenes, as numbered PNGs, one .npz or one .h5.

Axis legend: N images in all, B images of a chunk, K slots, H W pixels; `images` uint8 [B,H,W,3],
`masks` uint8 [B,K,H,W] (255: all of the pixel). A writer takes chunk after chunk, then `close`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = dict[str, NDArray[np.uint8]]


class PngWriter:
    """images/000000.png and masks/000000-slot-01.png, numbered as drawn."""

    def __init__(self, folder: Path, num: int) -> None:
        self.folder, self.done = folder, 0

    def add(self, arrays: Arrays) -> None:
        """Write the files of a chunk."""
        for name, values in arrays.items():
            (self.folder / name).mkdir(exist_ok=True)
            for i, value in enumerate(values, start=self.done):
                stem = self.folder / name / f"{i:06d}"
                if name == "images":
                    Image.fromarray(value).save(f"{stem}.png")
                    continue
                for k, mask in enumerate(value, start=1):
                    Image.fromarray(mask).save(f"{stem}-slot-{k:02d}.png")
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Every file is complete already."""


class NpzWriter:
    """samples.npz with `images` and `masks`, by way of files: any number fits into memory.

    Plain writes, no memory map: a full disk is then an error and not a crash.
    """

    def __init__(self, folder: Path, num: int) -> None:
        self.folder, self.num = folder, num
        self.files: dict[str, BinaryIO] = {}

    def add(self, arrays: Arrays) -> None:
        """Append a chunk to NAME.npy, whose header already has all N images."""
        for name, values in arrays.items():
            if name not in self.files:
                self.files[name] = open(self._path(name), "wb")  # noqa: SIM115 (closed in close)
                shape = (self.num, *values.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(self.files[name], header)
            self.files[name].write(values.tobytes())

    def close(self) -> None:
        """Pack the files into the archive."""
        for file in self.files.values():
            file.close()
        with zipfile.ZipFile(self.folder / "samples.npz", "w") as archive:
            for name in self.files:
                archive.write(self._path(name), f"{name}.npy")
                self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class H5Writer:
    """samples.h5 with `images` and `masks`."""

    def __init__(self, folder: Path, num: int) -> None:
        import h5py

        self.file, self.num, self.done = h5py.File(folder / "samples.h5", "w"), num, 0

    def add(self, arrays: Arrays) -> None:
        """Write a chunk into the arrays of N images."""
        for name, values in arrays.items():
            if name not in self.file:
                self.file.create_dataset(name, (self.num, *values.shape[1:]), np.uint8)
            self.file[name][self.done : self.done + len(values)] = values
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Raises OSError when the disk refuses what is still to be written."""
        try:
            self.file.close()
        except RuntimeError as error:  # as h5py reports it
            raise OSError(str(error)) from error


WRITERS: dict[str, Any] = {"png": PngWriter, "npz": NpzWriter, "h5": H5Writer}
