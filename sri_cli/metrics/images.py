"""Images to measure: new scenes of a run, those of any other tool in a folder, and real ones.

A folder holds image files that Pillow reads, or one .npz or .h5 with `images`: all formats of `sri
sample`; or one .npy. Nothing is written into it.

Axis legend: N images, S side in pixels. Images are uint8 [N,S,S,3].
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import list_folder, write_atomic
from sri_cli.console import warn
from sri_cli.data.dataset import DataFile
from sri_cli.data.image_files import Unreadable, image_files, is_lossy, read_upright, unreadable
from sri_cli.data.sources.listing import MASK_FOLDERS, MASK_SUFFIX
from sri_cli.device import choose_precision
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import check_request, device_of, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.features import Advance, FeatureExtractor, Features, Images
from sri_cli.metrics.fid import deviations
from sri_cli.metrics.records import model_digest
from sri_cli.strict_json import from_json

SAMPLE_RECORD = "sample.json"  # of `sri sample`
CACHE = "fid"  # folder of a data root or a run
FORMAT = 3  # of the cache; increase it when the computation of features changes
BLOCK = 500  # images at once, and of a cache file: the most that an interruption costs
ARRAYS = (".npz", ".npy", ".h5")
MODES = ("1", "L", "P", "RGB", "LA", "RGBA", "PA", "CMYK", "YCbCr")  # of at most 8 bits a channel
HINT = (
    "--images takes a folder of image files, or with one .npz or .h5 that has `images`, or .npy:"
    " uint8 [N,S,S,3]"
)


@dataclass(frozen=True)
class ImageSource:
    """`count` images of `size` px; `read(start, stop)` returns some, in order.

    Of scenes of `sri` the slots, the temperature and the `deviations` in the names of distances are
    known, of those of a run also the `data` set that it was trained on. `cache` is a folder for
    features, and all that determines the images, as JSON takes it.
    """

    count: int
    size: int
    read: Callable[[int, int], Images]
    slots: int | None = None
    temperature: float | None = None
    deviations: str = ""
    cache: tuple[Path, dict[str, Any]] | None = None
    lossy: Sequence[bool] = ()  # of each image, whether its file has lost detail
    data: str | None = None

    @property
    def num_lossy(self) -> int:
        """How many of the `count` images come from lossy files."""
        return sum(self.lossy[: self.count])

    def blocks(self) -> Iterator[Images]:
        """All images, at most BLOCK at a time."""
        for start in range(0, self.count, BLOCK):
            yield self.read(start, min(start + BLOCK, self.count))

    def apply(
        self, network: Callable[[Images, Advance], NDArray[np.float32]], advance: Advance
    ) -> NDArray[np.float32]:
        """The network's outputs for all images, [N,...]."""
        return np.concatenate([network(block, advance) for block in self.blocks()])

    def features(self, extractor: FeatureExtractor, advance: Advance) -> Features:
        """[N,F], from the cache where it has them: an interrupted evaluation continues.

        A larger `count` begins with the blocks of a smaller one.
        """
        if self.cache is None:
            return self.apply(extractor, advance)
        folder, key = self.cache
        folder = folder.with_name(f"{folder.name}_{extractor.digest[:16]}")
        full = {"format": FORMAT, "features": extractor.digest, **key}
        blocks, writable = [], True
        for start in range(0, self.count, BLOCK):
            stop = min(start + BLOCK, self.count)
            path, own = folder / f"{start:06d}.npz", json.dumps({**full, "start": start})
            block = _load(path, own)
            if block is None or len(block) < stop - start:  # none, or the end of a smaller count
                block = extractor(self.read(start, stop), advance)
                file = io.BytesIO()
                np.savez(file, features=block, key=np.array(own))
                try:
                    write_atomic(path, file.getvalue())
                except SriFailure as error:  # as of a data folder that is shared read-only
                    if writable:
                        warn(f"Note: {error.message}; features are not cached")
                    writable = False
            else:
                advance(stop - start)
            blocks.append(block[: stop - start])
        return np.concatenate(blocks)

    def sha256(self) -> str:
        """SHA-256 of all images."""
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block.data)
        return digest.hexdigest()


def images_of_run(trained: TrainedRun, count: int, seed: int = 0) -> ImageSource:
    """New scenes 0..count-1 of a seed, at temperature 1 with the slots of training.

    Raises:
        SriError: for numbers out of range.
    """
    model, slots, temperature = trained.model, trained.model.num_slots, 1.0
    check_request(count, slots, temperature, seed)
    precision = choose_precision("auto", device_of(model))

    @functools.lru_cache(maxsize=4)  # the first 2,000, which several metrics take
    def read(start: int, stop: int) -> Images:
        scenes = sample_scenes(
            model, stop - start, slots, temperature, seed, precision=precision, first=start
        )
        return np.concatenate([quantise(scene.image) for scene in scenes])

    digest = model_digest(trained)
    key = {
        "version": __version__,
        "model": digest,
        "slots": slots,
        "temperature": temperature,
        "seed": seed,
        "precision": precision,
        "finite": True,  # version 0.1 cached features of black images for scenes that are not
    }
    name = f"{digest[:16]}_slots-{slots}_temp-{temperature:g}_seed-{seed}_{precision}"
    cache = (trained.run_dir / CACHE / name, key)
    return ImageSource(
        count, model.image_size, read, slots, temperature, cache=cache, data=trained.data_name
    )


def real_images(data: DataFile, split: str, count: int, cache_dir: Path) -> ImageSource:
    """`count` random images of a split (at most all); features are cached by the file's hash."""
    images, chosen = data.split(split).images, data.split(split).pick(count)
    digest, count = str(data.attrs["sha256"]), len(chosen)
    key = {"images": digest, "split": split, "count": count, "size": data.size}
    cache = (cache_dir / f"real_{digest[:16]}_{split}_{count}", key)

    def read(start: int, stop: int) -> Images:
        return images[chosen[start:stop]]

    return ImageSource(count, data.size, read, cache=cache)


def open_folder(folder: Path) -> ImageSource:
    """The images in `folder`, also in the folders below it.

    Raises:
        SriError: for a folder without images, or whose first is unusable; `read` raises it for
            the others.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise SriError(f"--images {folder} {what}", HINT)
    ours, below = folder / SAMPLE_RECORD, folder / "images"  # beside sri sample's own grid.png
    is_sample = ours.is_file() and below.is_dir()
    images = _of_files(folder, below) if is_sample else _open_any(folder)
    return replace(images, **_drawn_with(ours))


def _drawn_with(path: Path) -> dict[str, Any]:
    """What the record of `sri sample` says of its scenes; nothing where it is none, or missing."""
    try:
        record = from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    record = record if isinstance(record, dict) else {}
    slots, usual, temperature = map(record.get, ("slots", "trained_slots", "temperature"))
    if type(slots) is not int or not isinstance(temperature, int | float):
        return {}
    name = deviations(temperature, None if usual in (None, slots) else slots)
    return {"slots": slots, "temperature": temperature, "deviations": name}


def _open_any(folder: Path) -> ImageSource:
    arrays = [path for path in list_folder(folder) if path.suffix.lower() in ARRAYS]
    arrays = [path for path in arrays if path.is_file() and not path.name.startswith(".")]
    if len(arrays) > 1:
        names = ", ".join(path.name for path in arrays)
        raise SriError(f"{folder} has several arrays: {names}", "give each a folder of its own")
    return _of_array(arrays[0]) if arrays else _of_files(folder, folder)


def _of_files(named: Path, folder: Path) -> ImageSource:
    files = [path for path in image_files(folder)[0] if not _is_mask(path.relative_to(folder))]
    stems = {path.with_suffix("") for path in files}
    files = [path for path in files if _image_of_mask(path) not in stems]
    if not files:
        raise SriError(f"--images {named} has no images", HINT)
    size = _read_file(files[0]).shape[0]

    def read(start: int, stop: int) -> Images:
        images = [_read_file(path) for path in files[start:stop]]
        for path, image in zip(files[start:stop], images, strict=True):
            if image.shape[0] != size:
                sides = f"{path.name} is {image.shape[0]} px, {files[0].name} {size} px"
                raise SriError(f"{named} mixes sizes: {sides}", "give images of one size")
        return np.stack(images)

    return ImageSource(len(files), size, read, lossy=[is_lossy(path) for path in files])


def _is_mask(path: Path) -> bool:
    """Whether a file lies in a folder of masks, as `sri prepare folder` names them."""
    return any(part.lower() in MASK_FOLDERS for part in path.parts[:-1])


def _image_of_mask(path: Path) -> Path | None:
    """What the image of a mask beside it, as NAME_mask.png, is called without its ending."""
    stem = MASK_SUFFIX.sub("", path.stem)
    return path.with_name(stem) if stem not in ("", path.stem) else None


def _read_file(path: Path) -> Images:
    """uint8 [S,S,3]; SriError for anything but a square 8-bit image without transparency."""
    try:
        with unreadable():
            image, frame = read_upright(path)
            mode, colours, extrema = image.mode, image.convert("RGB"), image.getextrema()
            # A palette may have transparency without a channel for it.
            transparent = "transparency" in image.info or (
                mode in ("LA", "RGBA", "PA") and extrema[-1] != (255, 255)
            )
    except Unreadable as error:
        raise SriError(
            f"{path} is not a readable image: {error}", "remove it from the folder"
        ) from error
    if mode not in MODES:
        raise SriError(f"{path} has more than 8 bits a channel", "give 8-bit images")
    if transparent:
        raise SriError(f"{path} has transparent pixels", "flatten it onto its background")
    if frame.width != frame.height:
        raise SriError(f"{path} is {frame.width}x{frame.height} pixels", "give square images")
    return np.asarray(colours, np.uint8)


def _of_array(path: Path) -> ImageSource:
    with _problems(path):
        if path.suffix.lower() == ".h5":
            images: Any = h5py.File(path, "r", locking=False)["images"]  # read slice by slice
        else:
            images = np.load(path, allow_pickle=False)
            if not isinstance(images, np.ndarray):
                with images as archive:
                    images = archive["images"]
        shape, dtype = tuple(images.shape), images.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise SriError(f"{path}: `images` is {dtype} {list(shape)}", "it must be uint8 [N,S,S,3]")
    if 0 in shape:
        raise SriError(f"{path} has no images", HINT)

    def read(start: int, stop: int) -> Images:
        with _problems(path):
            return np.ascontiguousarray(images[start:stop])

    return ImageSource(shape[0], shape[1], read)


@contextmanager
def _problems(path: Path) -> Iterator[None]:
    """SriError for whatever a damaged archive, or a file of another kind, causes."""
    try:
        yield
    except KeyError as error:
        raise SriError(f"{path} has no `images`", HINT) from error
    except Exception as error:  # of numpy, zipfile, zlib and HDF5
        why = getattr(error, "strerror", None) or f"damaged, or no {path.suffix} file"
        raise SriError(f"{path} cannot be read: {why}", HINT) from error


def _load(path: Path, key: str) -> Features | None:
    """The features stored under this very key; None if there are none or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:  # the zip's CRC-32 of each array is checked
            features: Features = file["features"]
            return features if str(file["key"]) == key else None
    except Exception:  # a damaged archive fails in a dozen ways; all mean: compute it again
        return None
