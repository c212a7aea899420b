"""Rows of other people's HDF5 files, in order and in blocks, however a file is chunked.

h5py chunks by itself across many rows and few pixels, such as (31250, 2, 4, 1) of a million
pictures: read row by row, every row costs the whole file's share of that many. So rows are read in
blocks that end where chunks end, and blocks too large for memory in tiles of pixels.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import reason_of
from sri_cli.data.transforms import Box
from sri_cli.errors import SriError

BLOCK_BYTES = 64 * 2**20  # read at once where chunks allow it
NUMBERS_BYTES = 4 * 2**20  # the same, of each factor
BAND_BYTES = 400 * 2**20  # the rows of one chunk, as they are kept; 360 MB of a million of 64 px
CACHE_BYTES = 16 * 2**20  # of chunks; one at least must fit, or HDF5 reads byte by byte
NEAR_ROWS = 16  # wanted rows no further apart are read together
FACTOR_BYTES = 4096  # an image
ANEW = "get the file again from where it comes from"
FAULTS = (OSError, RuntimeError, KeyError, ValueError)  # h5py's, for damaged files

Array = NDArray[Any]
Rows = NDArray[np.int64]  # increasing
Convert = Callable[[Array], Array]


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file; SriError when it is not there, no HDF5, cut off or not to be read."""
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise SriError(f"{path} {what}", "name a file that is there: --from FILE")
    if not os.access(path, os.R_OK):
        raise SriError(f"{path} cannot be read: no permission", f"chmod u+r {path}")
    if not h5py.is_hdf5(path):
        raise SriError(f"{path} is not an HDF5 file", ANEW)
    try:
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=CACHE_BYTES, rdcc_nslots=100_003)
    except FAULTS as error:
        raise SriError(f"{path} {fault_of(error)}", ANEW) from error
    with file:
        yield file


def fault_of(error: Exception) -> str:
    """What is wrong with a file that cannot be opened."""
    if "truncated" in str(error):
        return "is cut off: it ends before its data does"
    return f"cannot be read: {reason_of(error) if isinstance(error, OSError) else error}"


def has(group: h5py.Group, name: str, kind: type) -> bool:
    """Whether there is such a data set or group; links into other files are none."""
    try:
        return isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(
            group.get(name), kind
        )
    except FAULTS:
        return False


def find(group: h5py.Group, names: tuple[str, ...]) -> h5py.Dataset:
    """The data set that has one of these names; SriError when there is none."""
    for name in names:
        if has(group, name, h5py.Dataset):
            return group[name]
    where = "" if group.name == "/" else f" in its group {group.name.strip('/')}"
    there = ", ".join(itertools.islice(group, 8)) or "nothing"
    raise SriError(
        f"{group.file.filename} has no data set `{names[0]}`{where}; there is {there}",
        "name a file of this data set: --from FILE",
    )


def wrong(dataset: h5py.Dataset, wanted: str) -> SriError:
    """The complaint about a data set of another type or shape."""
    name = dataset.name.strip("/")
    return SriError(
        f"{dataset.file.filename}: `{name}` is {dataset.dtype} {list(dataset.shape)},"
        f" {wanted} is wanted",
        "name a file of this data set: --from FILE",
    )


def read_rows(
    dataset: h5py.Dataset,
    rows: Rows,
    convert: Convert = lambda tile: tile,
    *,
    axes: tuple[int, int] | None = None,
    box: Box | None = None,
) -> Iterator[Array]:
    """Each of `rows`, converted. `convert` takes some rows, and of their pixels a tile.

    `axes`: which axes are pictures' rows and columns; those of what `convert` returns are 1 and
    2. `box`: the crop. SriError when the file is damaged there.
    """
    for block in blocks(dataset, rows, axes, box):
        whole = assembled(dataset, block, convert, axes, box)
        for row in block - block[0]:
            yield whole[row].copy()  # so that a row that waits does not hold its block
        del whole  # before the next one is read


def assembled(
    dataset: h5py.Dataset,
    block: Rows,
    convert: Convert,
    axes: tuple[int, int] | None,
    box: Box | None,
) -> Array:
    """All rows from the first to the last of a block, converted."""
    whole: Array | None = None
    for top, left, tile in tiles(dataset, block, axes, box):
        part = convert(tile)
        if axes is None:
            return part
        sides = cropped_sides(dataset, axes, box)
        if part.shape[1:3] == sides:
            return part
        if whole is None:
            whole = np.empty((len(part), *sides, *part.shape[3:]), part.dtype)
        whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    assert whole is not None
    return whole


def read_present(
    dataset: h5py.Dataset, rows: Rows, present: Convert, axes: tuple[int, int]
) -> Iterator[NDArray[np.bool_]]:
    """For each of `rows` bool [K]: what `present` (rows of a tile -> bool [rows, K]) finds in any
    tile of the picture."""
    for block in blocks(dataset, rows, axes, None):
        parts = (present(tile) for _, _, tile in tiles(dataset, block, axes, None))
        found = next(parts)
        for part in parts:
            found |= part
        yield from found[block - block[0]]


def blocks(
    dataset: h5py.Dataset, rows: Rows, axes: tuple[int, int] | None, box: Box | None
) -> Iterator[Rows]:
    """The rows in groups that are read at once; none needs a chunk that another one needs, unless
    the rows of a chunk are more than memory holds."""
    if not len(rows):
        return
    chunk, row_bytes = chunk_of(dataset)[0], bytes_of(dataset.shape[1:], dataset)
    size = max(1, (NUMBERS_BYTES if axes is None else BLOCK_BYTES) // row_bytes)
    if chunk <= size:
        size -= size % chunk
        numbers = rows // size
    else:
        kept = row_bytes if axes is None else 3 * math.prod(cropped_sides(dataset, axes, box))
        parts = math.ceil(chunk / max(1, BAND_BYTES // kept))
        size = math.ceil(chunk / parts)
        numbers = rows // chunk * parts + rows % chunk // size
    far = np.diff(rows) > max(NEAR_ROWS, chunk)
    yield from np.split(rows, np.flatnonzero(far | (np.diff(numbers) > 0)) + 1)


def tiles(
    dataset: h5py.Dataset, block: Rows, axes: tuple[int, int] | None, box: Box | None
) -> Iterator[tuple[int, int, Array]]:
    """(first row, first column, pixels) within the crop, of all rows from the first to the last of
    a block: at once where it fits, else in tiles as large as chunks."""
    start, stop = int(block[0]), int(block[-1]) + 1
    where = [slice(start, stop), *(slice(None) for _ in dataset.shape[1:])]
    if axes is None:
        yield 0, 0, read(dataset, where)
        return
    top, left = box[:2] if box else (0, 0)
    steps = height, width = cropped_sides(dataset, axes, box)
    if (stop - start) * bytes_of(dataset.shape[1:], dataset) > BLOCK_BYTES:
        steps = tuple(chunk_of(dataset)[axis] for axis in axes)  # type: ignore[assignment]
    # The first tile ends where a chunk ends, too.
    for y, x in itertools.product(
        pieces(top, top + height, steps[0]), pieces(left, left + width, steps[1])
    ):
        where[axes[0]], where[axes[1]] = y, x
        yield y.start - top, x.start - left, read(dataset, where)


def pieces(start: int, stop: int, step: int) -> list[slice]:
    """start..stop, cut at the multiples of `step`; whole when it is not longer than a step."""
    if stop - start <= step:
        return [slice(start, stop)]
    cuts = [start, *range(start - start % step + step, stop, step), stop]
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def read(dataset: h5py.Dataset, where: list[slice]) -> Array:
    """A part of a data set; SriError when the file is damaged there."""
    try:
        part: Array = dataset[tuple(where)]
    except FAULTS as error:
        first, last = where[0].start, where[0].stop - 1
        raise SriError(
            f"{dataset.file.filename} is damaged: `{dataset.name.strip('/')}` of images"
            f" {first:,} to {last:,} cannot be read",
            ANEW,
        ) from error
    return part


def chunk_of(dataset: h5py.Dataset) -> tuple[int, ...]:
    """The chunk's shape; of a contiguous data set, a row's."""
    return tuple(dataset.chunks or (1, *dataset.shape[1:]))


def bytes_of(shape: tuple[int, ...], dataset: h5py.Dataset) -> int:
    """What an array of this shape takes."""
    return math.prod(shape) * dataset.dtype.itemsize or 1


def cropped_sides(dataset: h5py.Dataset, axes: tuple[int, int], box: Box | None) -> tuple[int, int]:
    """Height and width of the crop."""
    return (box[2], box[3]) if box else (dataset.shape[axes[0]], dataset.shape[axes[1]])


def factors_of(file: h5py.File, num_images: int, without: set[str]) -> dict[str, h5py.Dataset]:
    """The numbers that are known of each image, by name, as far as 4 KB an image go."""
    found: dict[str, h5py.Dataset] = {}
    room = FACTOR_BYTES
    for name in sorted(set(file) - without):
        if not has(file, name, h5py.Dataset):
            continue
        dataset = file[name]
        row_bytes = bytes_of(dataset.shape[1:], dataset)
        is_numeric = dataset.dtype.kind in "iufb" and dataset.dtype.itemsize <= 8
        if is_numeric and dataset.shape[:1] == (num_images,) and row_bytes <= room:
            room -= row_bytes
            found[name] = dataset
    return found


def as_factor(values: Array) -> Array:
    """Floats as float32, truth values as bytes, integers as they are, in this machine's order."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    return values.astype(np.uint8 if values.dtype.kind == "b" else values.dtype.newbyteorder("="))
