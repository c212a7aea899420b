"""Ranks: several processes that train one model together.

Each rank trains on its rows of the global batch. Its loss is its share of the global mean, so that
the sum of gradients over ranks is the gradient of one process with the whole batch. One flat
all-reduce per step carries the gradients and the scalars for GECO and the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sri_cli.device import choose_device
from sri_cli.errors import SriError

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=10)  # after which a rank counts as lost


@dataclass(frozen=True)
class Ranks:
    """This process, number `rank` of `world` and number `local` of its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This rank's rows of a global batch; numbers of rows differ by at most one."""
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)

    def share_of(self, batch: int) -> float:
        """The weight of this rank's mean in the mean over the global batch."""
        rows = self.rows(batch)
        return (rows.stop - rows.start) / batch

    def check_batch(self, batch: int) -> None:
        """SriError when a rank would have no image."""
        if batch < self.world:
            raise SriError(
                f"a batch of {batch} is too small for {self.world} processes",
                f"use larger batches (train.batch={self.world}) or fewer processes",
            )

    def sum_up(
        self, parameters: Sequence[nn.Parameter], values: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Sum the gradients over ranks, in place, and the scalars; one all-reduce.

        PyTorch's DDP would overlap it with the backward pass, which gains nothing for 15 MB, and
        its hooks do not go into a CUDA graph.
        """
        if self.world == 1:
            return dict(values)
        gradients = [p.grad for p in parameters if p.grad is not None]
        scalars = torch.stack([value.detach().float() for value in values.values()])
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), scalars])
        dist.all_reduce(flat)
        *parts, sums = flat.split([*(gradient.numel() for gradient in gradients), len(scalars)])
        summed = [part.view_as(own) for part, own in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, summed)
        return dict(zip(values, sums.unbind(), strict=True))

    def align(self, model: nn.Module) -> None:
        """Copy the weights of the first rank to all."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def highest(self, number: int) -> int:
        """The highest number of all ranks, which must all call. The GPU is not used."""
        if self.world == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Call `make()` on the first rank; all ranks return its result, or raise its SriError."""
        if self.world == 1:
            return make()
        box: list[tuple[Result | None, SriError | None]] = [(None, None)]
        if self.first:
            try:
                box = [(make(), None)]
            except SriError as error:
                box = [(None, error)]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        result, failed = box[0]
        if failed is not None:
            raise failed
        return result  # type: ignore[return-value]


def is_launched() -> bool:
    """Whether torchrun (or `sri train --gpus N`) started this process as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def is_first() -> bool:
    """Whether this process prints the results of its job."""
    return not is_launched() or os.environ["RANK"] == "0"


def processes_here() -> int:
    """The number of processes of this job on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the process group of the launcher, if there is one: this rank, and its device.

    Raises:
        SriError: a GPU does not exist.
    """
    own_device = choose_device(device)
    if not is_launched():
        # What names no GPU, as the stream of a capture, is of the current one; -1 changes nothing.
        with torch.cuda.device(own_device if own_device.type == "cuda" else -1):
            yield Ranks(), own_device
        return
    ranks = Ranks(*(int(os.environ.get(n, 0)) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if own_device.type == "cuda":  # its own GPU
        gpus = torch.cuda.device_count()
        if processes_here() > gpus:  # so on all ranks of this machine
            raise SriError(
                f"{processes_here()} processes on this machine, but PyTorch sees {gpus} GPUs",
                f"--gpus {gpus}, or torchrun --nproc-per-node {gpus}",
            )
        own_device = torch.device("cuda", ranks.local)
        torch.cuda.set_device(own_device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes_here()))
    # Gloo carries the messages of the host, so that these do not wait for the GPU.
    with stdout_to_stderr():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if own_device.type == "cuda" else "gloo", timeout=TIMEOUT
        )
    try:
        yield ranks, own_device
    finally:
        dist.destroy_process_group()


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect file descriptor 1 to stderr: Gloo of torch 2.10 prints its connections."""
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
