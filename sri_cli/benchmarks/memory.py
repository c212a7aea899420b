"""The most memory that work takes: the GPU's own count, or the size of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MemoryWatch:
    """Made before the work begins; `report` tells of all since.

    A GPU is asked for what PyTorch has allocated. On a CPU it is the resident size of the process,
    whose peak Linux forgets on request; elsewhere an earlier peak of the same process stays.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            forget_peak()
            self.before = resident_bytes()

    def report(self) -> dict[str, Any]:
        """`memory_mb`: the peak; `memory_added_mb`: less what there was before; in 2^20 bytes.

        `memory_reserved_mb`, of a GPU: with what PyTorch keeps for later.
        """
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if on_gpu else peak_bytes()
        added = max(0, peak - self.before)
        more = {}
        if on_gpu:
            more["memory_reserved_mb"] = torch.cuda.max_memory_reserved(self.device) / 2**20
        return more | {
            "memory_mb": peak / 2**20,
            "memory_added_mb": added / 2**20,
            "memory_of": "GPU, allocated" if on_gpu else "process, resident",
        }


def forget_peak() -> None:
    """Start the peak anew where the kernel can."""
    try:
        RESET.write_text("5")
    except OSError:
        return


def resident_bytes() -> int:
    """What the process holds in memory now; its peak where only that is known."""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """The most that it held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (peak if sys.platform == "darwin" else peak * 1024)


def _status(field: str) -> int:
    """A size of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else 0
