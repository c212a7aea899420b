"""What several test files need: small data files, damaged files, a full disk."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest


def _write_small_data(path: Path, images: int = 16, size: int = 32) -> Path:
    d = np.random.default_rng(0).integers(0, 256, (images, size, size, 3)).astype(np.uint8)
    with open(path, "wb") as f:
        np.savez(f, images=d, name=path.stem.rsplit("-", 1)[0])
    return path


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def write_small_data() -> Callable[..., Path]:
    """(path, images=16, size=32) -> a data file of random images, for tests that need any."""
    return _write_small_data


@pytest.fixture(scope="session")
def damage() -> Callable[[Path, str], None]:
    """(path, "cut" | "flipped" | "empty" | "gone"): spoil a file."""
    return _damage


@pytest.fixture(scope="session")
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """largest_file(size): let no file grow beyond `size` bytes, as a full disk would."""
    return _largest_file
