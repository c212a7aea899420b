"""Several processes that train as one: what each of them may know of the others.

A rank takes its rows of the global batch, and every loss is its share of the global mean, so that
the sum over ranks of the gradients is the gradient of one process with the whole batch. One flat
all-reduce a step carries the gradients and what GECO and the log want.
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
from sri_cli.models.layers import BatchNorm2d

Result = TypeVar("Result")
PATIENCE = timedelta(minutes=10)  # a rank that is this late counts as lost


@dataclass(frozen=True)
class Ranks:
    """This process among `world`; `local` counts those of this machine. One alone by default."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This rank's rows of a global batch; they differ by one where it does not divide."""
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)

    def count(self, batch: int) -> int:
        """How many rows those are."""
        rows = self.rows(batch)
        return rows.stop - rows.start

    def share_of(self, batch: int) -> float:
        """The weight of this rank's mean in the mean over the global batch."""
        return self.count(batch) / batch

    def check_batch(self, batch: int) -> None:
        """SriError when some rank would have nothing to do."""
        if batch < self.world:
            raise SriError(
                f"a batch of {batch} for {self.world} processes leaves some without an image",
                f"larger batches or fewer processes: train.batch={self.world}",
            )

    def sum_up(
        self, parameters: Sequence[nn.Parameter], values: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Gradients summed over ranks in place, and the sums of the scalars; one all-reduce.

        PyTorch's DDP wrapper would start the sum during the backward pass, which hides nothing
        worth hiding at 15 MB, and its hooks do not go into a CUDA graph.
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
        """Give every rank the first one's weights."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), src=0)

    def highest(self, number: int) -> int:
        """The highest number that any rank brings; all must call. Never touches the GPU."""
        if self.world == 1:
            return number
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def from_first(self, make: Callable[[], Result]) -> Result:
        """`make()` is called on the first rank alone; all get its result, or its SriError."""
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
    """Whether this process speaks for the job; read when asked for, never on import."""
    return not is_launched() or os.environ["RANK"] == "0"


def was_restarted() -> bool:
    """Whether the launcher started this job's processes again after one of them was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def processes_here() -> int:
    """How many processes of this job this machine runs."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The ranks of this job and this rank's device; a process that nobody launched is alone.

    Raises SriError for a GPU that is not there.
    """
    if not is_launched():
        yield Ranks(), choose_device(device)
        return
    ranks = Ranks(*(int(os.environ.get(n, 0)) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    place = place_of(ranks, device)
    if place.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes_here()))
    # Gloo carries what the host says, so that a stop or a file is agreed on without the GPU.
    with stdout_kept_clean():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE
        )
    try:
        yield ranks, place
    finally:
        dist.destroy_process_group()


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """What libraries print goes to stderr: Gloo of torch 2.10 tells on stdout who is connected."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def place_of(ranks: Ranks, device: str) -> torch.device:
    """The device of this rank: its own GPU, or the CPU."""
    place = choose_device(device)
    if place.type != "cuda":
        return place
    if processes_here() > torch.cuda.device_count():  # all of this machine see it alike
        raise SriError(
            f"{processes_here()} processes of this machine want a GPU each,"
            f" PyTorch sees {torch.cuda.device_count()}",
            f"--gpus {torch.cuda.device_count()}, or torchrun --nproc-per-node with that number",
        )
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


def share_batch_statistics(model: nn.Module, ranks: Ranks) -> None:
    """Let the batch statistics of training span all ranks."""
    for part in model.modules():
        if isinstance(part, BatchNorm2d):
            part.over_ranks = ranks.world > 1
