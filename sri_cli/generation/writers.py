"""Images and masks of new scenes, as numbered PNGs, one .npz or one .h5.

Axis legend: B images of a chunk, K slots, H W pixels; `images` uint8 [B,H,W,3], `masks` uint8
[B,K,H,W] (255: all of the pixel). A writer takes chunk after chunk and is closed at the end.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sri_cli.plotting.grid import png_bytes

Arrays = dict[str, NDArray[np.uint8]]


class PngWriter:
    """images/000000.png and masks/000000-slot-01.png, numbered as drawn."""

    def __init__(self, folder: Path, num: int) -> None:
        self.folder, self.done = folder, 0

    def add(self, arrays: Arrays) -> None:
        for name, values in arrays.items():
            (self.folder / name).mkdir(exist_ok=True)
            for i, value in enumerate(values, start=self.done):
                if name == "images":
                    self._write(f"images/{i:06d}.png", value)
                    continue
                for k, mask in enumerate(value, start=1):
                    self._write(f"masks/{i:06d}-slot-{k:02d}.png", mask)
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, name: str, picture: NDArray[np.uint8]) -> None:
        (self.folder / name).write_bytes(png_bytes(picture))


class NpzWriter:
    """samples.npz with `images` and `masks`, gathered in files: any number fits into memory.

    Plain writes, no memory map: a full disk is then an error and not a crash.
    """

    def __init__(self, folder: Path, num: int) -> None:
        self.folder, self.num = folder, num
        self.files: dict[str, BinaryIO] = {}

    def add(self, arrays: Arrays) -> None:
        for name, values in arrays.items():
            if name not in self.files:
                self.files[name] = self._begin(name, values.shape[1:])
            self.files[name].write(values.tobytes())

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        with zipfile.ZipFile(self.folder / "samples.npz", "w") as archive:
            for name in self.files:
                archive.write(self._path(name), f"{name}.npy")
                self._path(name).unlink()

    def _begin(self, name: str, shape: tuple[int, ...]) -> BinaryIO:
        file = open(self._path(name), "wb")  # noqa: SIM115 (closed in close)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.num, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        return file

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class H5Writer:
    """samples.h5 with `images` and `masks`."""

    def __init__(self, folder: Path, num: int) -> None:
        import h5py

        self.file, self.num, self.done = h5py.File(folder / "samples.h5", "w"), num, 0

    def add(self, arrays: Arrays) -> None:
        for name, values in arrays.items():
            if name not in self.file:
                self.file.create_dataset(name, (self.num, *values.shape[1:]), np.uint8)
            self.file[name][self.done : self.done + len(values)] = values
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Raises OSError when the disk will not take what is still to be written."""
        try:
            self.file.close()
        except RuntimeError as error:  # h5py's word for it
            raise OSError(str(error)) from error


WRITERS: dict[str, Any] = {"png": PngWriter, "npz": NpzWriter, "h5": H5Writer}
