"""What several test files need: small data files, damaged files, a full disk."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.run import Workspace
from tests import small_data

# Other processes change the number of threads of `--threads auto`, and that changes last bits.
# The processes of pytest-xdist share the cores.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // workers))
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))

# A shell's background job ignores Ctrl-C, and all that it starts does, too: tests that send it
# would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    return small_data.write_small_data


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """PyTorch's number of threads is the same again after every test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def damage() -> Callable[[Path, str], None]:
    """(path, "cut" | "flipped" | "empty" | "gone"): spoil a file."""
    return _damage


@pytest.fixture(scope="session")
def largest_file() -> Callable[[int], AbstractContextManager[None]]:
    """largest_file(size): let no file grow beyond `size` bytes, as a full disk would."""
    return _largest_file


@pytest.fixture(scope="session")
def write_data() -> Callable[..., None]:
    """(path, with_masks=True): a data file of towers."""
    return small_data.write_data


@pytest.fixture(scope="session")
def write_run() -> Callable[..., None]:
    """(run_dir, system="sri", step=10): a run with one checkpoint of random weights."""
    return small_data.write_run


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `workspace` copies."""
    root = tmp_path_factory.mktemp("workspace")
    small_data.write_workspace(root)
    return root


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "data", tmp_path / "runs")


@pytest.fixture
def trained(workspace: Workspace) -> TrainedRun:
    return open_run(workspace, "tiny")
