"""What several test files need: threads, a clean environment, small workspaces."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli.data import download
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.run import Workspace
from tests.small_browser import chromium
from tests.small_data import write_data, write_run

# Other processes change the number of threads of `--threads auto`, and that changes last bits.
# The processes of pytest-xdist share the cores.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // workers))
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))

# What a user has chosen must not reach the tests, nor their runs and trackers be written to.
for name in ("DATA", "RUNS", "TRACKER", "SLURM", "BUCKET", "MIRROR", "INCEPTION_WEIGHTS"):
    os.environ.pop(f"SRI_{name}", None)
for name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
os.environ["TORCH_HOME"] = str(Path(__file__).parent / "no-torch-home")

# A shell's background job ignores Ctrl-C, and all that it starts does, too: tests that send it
# would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """PyTorch's number of threads is the same again after every test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are tried again at once."""
    monkeypatch.setattr(download, "BACKOFF_SEC", 0.0)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A browser."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and two runs of random weights, which `workspace` copies: `other` (GENESIS-v2), then
    `tiny` (SRI)."""
    root = tmp_path_factory.mktemp("workspace")
    write_data(root / "data" / "demo-towers-32.h5")
    write_run(root / "runs" / "other", "genesis-v2")
    write_run(root / "runs" / "tiny")
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test alone, as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def empty(here: Path) -> Workspace:
    """The workspace of the current folder, without data and runs."""
    return Workspace(Path("data"), Path("runs"))


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path / "data", tmp_path / "runs")


@pytest.fixture
def trained(workspace: Workspace) -> TrainedRun:
    return open_run(workspace, "tiny")
