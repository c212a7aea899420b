"""Arrays kept in files: whole, of the computation asked for, and undamaged, or not used at all.

Axis legend: N images, B images of a block, F features.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import write_atomic

BLOCK = 500  # images a file; what an interruption costs at most
Arrays = Mapping[str, NDArray[Any]]
Key = Mapping[str, Any]  # all that decides the arrays, as JSON takes it


def feature_blocks(
    folder: Path,
    key: Key,
    count: int,
    compute: Callable[[int, int], NDArray[np.float32]],
    advance: Callable[[int], None],
) -> Iterator[NDArray[np.float32]]:
    """Features [B,F] of images 0..count-1, block by block; what `folder` has is not computed.

    compute(start, number) gives [number,F] and tells its progress itself.
    """
    for start in range(0, count, BLOCK):
        wanted = min(BLOCK, count - start)
        path, own = folder / f"{start:06d}.npz", {**key, "start": start}
        kept = load_arrays(path, own).get("features", np.empty(0, np.float32))
        if len(kept) < wanted:  # none, or the end of a shorter evaluation
            kept = compute(start, wanted)
            store_arrays(path, own, {"features": kept})
        else:
            advance(wanted)
        yield kept[:wanted]


def store_arrays(path: Path, key: Key, arrays: Arrays) -> None:
    """Write an .npz that `load_arrays` takes back; SriFailure when the disk will not take it."""
    file = io.BytesIO()
    contents: dict[str, Any] = {**arrays, "checksum": np.array(checksum(key, arrays))}
    np.savez(file, **contents)
    write_atomic(path, file.getvalue())


def load_arrays(path: Path, key: Key) -> dict[str, NDArray[Any]]:
    """The arrays stored under this very key; {} when there are none, or something is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        intact = str(arrays.pop("checksum")) == checksum(key, arrays)
    except Exception:  # a damaged archive fails in a dozen ways, and all mean: compute it anew
        return {}
    return arrays if intact else {}


def checksum(key: Key, arrays: Arrays) -> str:
    """SHA-256 over the key and every array's name, type, shape and content."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
