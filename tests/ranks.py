"""Tests with several processes on this machine, joined by gloo."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sri_cli.training.distributed import Ranks

ROOT = str(Path(__file__).parent.parent)


def on_ranks(world: int, tmp_path: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """`work(ranks, *args)`, a module's function, in each of `world` processes; their results."""
    if ROOT not in sys.path:
        sys.path.append(ROOT)  # the processes look for `work` there
    mp.spawn(_rank, (world, tmp_path, work, args), nprocs=world)
    return [torch.load(tmp_path / f"rank-{i}.pt", weights_only=False) for i in range(world)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _rank(rank: int, world: int, tmp_path: Path, work: Callable[..., Any], args: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world)}
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= world else "gloo"
    timeout = timedelta(minutes=2)
    store = (tmp_path / "store").as_uri()
    dist.init_process_group(backend, store, rank=rank, world_size=world, timeout=timeout)
    try:
        torch.save(work(Ranks(rank, world, rank), *args), tmp_path / f"rank-{rank}.pt")
    finally:
        dist.destroy_process_group()
