"""New scenes on disk: a folder with a grid, the single images and the settings.

Axis legend: N images, B images of a chunk, K slots, D slot size, S scene size, H W pixels. `images`
are uint8 [B,H,W,3], `masks` uint8 [B,K,H,W] (255: all of the pixel), `layers` uint8 [B,K,H,W,4],
`slots` float32 [B,K,D], `scene_latents` float32 [B,S]. A writer takes chunk after chunk, then
`close`.
"""

from __future__ import annotations

import zipfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.console import counting
from sri_cli.generation.sample import DrawnScene, check_request, layers_of, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.images import SAMPLE_RECORD
from sri_cli.plotting.images import blend_masks, caption, make_grid, png_bytes
from sri_cli.plotting.outputs import SAMPLES, record_of, write_folder
from sri_cli.plotting.titles import title_of
from sri_cli.strict_json import Record

GRID_IMAGES = 64
LATENTS = ("slots", "scene_latents")
GRID_CELL_PX, GRID_GAP_PX = 128, 4  # as in figures at their default scale

Arrays = dict[str, NDArray[Any]]


def write_samples(
    trained: TrainedRun,
    out: Path | None = None,
    *,
    num: int = 64,
    slots: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    file_format: str = "png",
    masks: bool = False,
    layers: bool = False,
    latents: bool = False,
) -> Path:
    """Sample scenes and write grid.png (the first 64), sample.json and the images.

    Args:
        trained: The run.
        out: A new or empty folder, by default a numbered one in the run's samples/.
        num: N.
        slots: K, by default that of training.
        temperature: Factor of every standard deviation of the prior.
        seed: Image i is a function of the seed and i.
        file_format: A name of WRITERS.
        masks: Whether the masks of all slots are written too.
        layers: Whether every slot is written as an RGBA layer (`generation.sample.layers_of`).
        latents: Whether slots and scene latents are written, with PNG in latents.npz.

    Raises:
        SriError: for settings out of range, or a folder that is not empty.
        SriFailure: if the disk refuses.
    """
    slots = trained.model.num_slots if slots is None else slots
    check_request(num, slots, temperature, seed)
    settings = {"num": num, "slots": slots, "temperature": temperature, "seed": seed}
    # Folders of version 0.1 have no further keys, and the same names.
    more = {name: True for name, on in (("layers", layers), ("latents", latents)) if on}
    facts = settings | {"trained_slots": trained.model.num_slots}
    record = record_of([trained], "sample", **facts, format=file_format, masks=masks, **more)
    write = partial(_write, trained=trained, settings=settings, record=record)
    return write_folder(out, trained.run_dir / SAMPLES, SAMPLE_RECORD, record, write)


def _write(folder: Path, trained: TrainedRun, settings: dict[str, Any], record: Record) -> None:
    num, masks = settings["num"], record["masks"]
    first: list[Arrays] = []  # chunks of the grid
    writing = closing(WRITERS[record["format"]](folder, num))
    with writing as writer, counting("sampling", num) as advance:
        for scene in sample_scenes(trained.model, **settings):
            arrays = arrays_of(scene, record)
            writer.add(arrays)
            if sum(len(chunk["images"]) for chunk in first) < GRID_IMAGES:
                first.append(arrays)
            advance(len(arrays["images"]))
    text = "{}; {slots} slots, temperature {temperature:g}, seed {seed}".format(
        title_of(trained), **settings
    )
    images = np.concatenate([chunk["images"] for chunk in first])[:GRID_IMAGES]
    scale = max(1, GRID_CELL_PX // images.shape[1])
    grid = caption(make_grid(images, gap=GRID_GAP_PX, scale=scale), text)
    (folder / "grid.png").write_bytes(png_bytes(grid))
    if masks:
        levels = np.concatenate([chunk["masks"] for chunk in first])[:GRID_IMAGES]
        coloured = make_grid(blend_masks(levels / np.float32(255)), gap=GRID_GAP_PX, scale=scale)
        (folder / "grid-masks.png").write_bytes(png_bytes(caption(coloured, text)))


def arrays_of(scene: DrawnScene, record: Record) -> Arrays:
    """What is written of a chunk: images, and what the record says besides."""
    arrays: Arrays = {"images": quantise(scene.image)}
    if record["masks"]:
        arrays["masks"] = (scene.masks[:, :, 0] * 255).round().byte().cpu().numpy()
    if "layers" in record:
        arrays["layers"] = layers_of(scene.rgb, scene.masks[:, :, 0])
    if "latents" in record:
        arrays["slots"] = scene.slots.cpu().numpy()
        if scene.latent is not None:
            arrays["scene_latents"] = scene.latent.cpu().numpy()
    return arrays


class PngWriter:
    """images/000001.png and masks/000001-slot-01.png, numbered as drawn; arrays count from 0.

    Latents are in latents.npz.
    """

    def __init__(self, folder: Path, num: int) -> None:
        self.folder, self.done = folder, 0
        self.latents = NpzWriter(folder, num, "latents.npz")

    def add(self, arrays: Arrays) -> None:
        """Write the files of a chunk."""
        self.latents.add({name: values for name, values in arrays.items() if name in LATENTS})
        for name, values in arrays.items():
            if name in LATENTS:
                continue
            (self.folder / name).mkdir(exist_ok=True)
            for i, value in enumerate(values, start=self.done + 1):
                stem = self.folder / name / f"{i:06d}"
                if name == "images":
                    Image.fromarray(value).save(f"{stem}.png")
                    continue
                for k, mask in enumerate(value, start=1):
                    Image.fromarray(mask).save(f"{stem}-slot-{k:02d}.png")
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Write the latents; the images are complete already."""
        self.latents.close()


class NpzWriter:
    """samples.npz with all arrays, by way of files: any number fits into memory.

    Plain writes, no memory map: a full disk is then an error and not a crash. Without arrays there
    is no file.
    """

    def __init__(self, folder: Path, num: int, name: str = "samples.npz") -> None:
        self.folder, self.num, self.name = folder, num, name
        self.files: dict[str, BinaryIO] = {}

    def add(self, arrays: Arrays) -> None:
        """Append a chunk to NAME.npy, whose header already has all N images."""
        for name, values in arrays.items():
            if name not in self.files:
                self.files[name] = open(self._path(name), "wb")  # noqa: SIM115 (closed in close)
                shape = (self.num, *values.shape[1:])
                descr = np.lib.format.dtype_to_descr(values.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(self.files[name], header)
            self.files[name].write(values.tobytes())

    def close(self) -> None:
        """Pack the files into the archive."""
        for file in self.files.values():
            file.close()
        if not self.files:
            return
        with zipfile.ZipFile(self.folder / self.name, "w") as archive:
            for name in self.files:
                archive.write(self._path(name), f"{name}.npy")
                self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class H5Writer:
    """samples.h5 with all arrays."""

    def __init__(self, folder: Path, num: int) -> None:
        self.file, self.num, self.done = h5py.File(folder / "samples.h5", "w"), num, 0

    def add(self, arrays: Arrays) -> None:
        """Write a chunk into the arrays of N images."""
        for name, values in arrays.items():
            if name not in self.file:
                self.file.create_dataset(name, (self.num, *values.shape[1:]), values.dtype)
            self.file[name][self.done : self.done + len(values)] = values
        self.done += len(arrays["images"])

    def close(self) -> None:
        """Raises OSError when the disk refuses what is still to be written."""
        try:
            self.file.close()
        except RuntimeError as error:  # as h5py reports it
            raise OSError(str(error)) from error


WRITERS: dict[str, Any] = {"png": PngWriter, "npz": NpzWriter, "h5": H5Writer}
