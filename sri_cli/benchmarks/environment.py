"""What a machine is, in detail: `python -m sri_cli.benchmarks.environment` prints it as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import torch

from sri_cli import __version__
from sri_cli.device import choose_device, has_native_bf16
from sri_cli.training.step_timing import machine

QUERY = "name,driver_version,memory.total,memory.used,power.limit,clocks.max.sm,compute_cap"


def environment(device: str = "auto") -> dict[str, Any]:
    """Machine, versions, GPUs, and what of the device's abilities matters here."""
    place = choose_device(device)
    found = {
        **machine(place),
        "sri": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "native_bf16": has_native_bf16(place),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "gpus": torch.cuda.device_count(),
    }
    if place.type != "cuda":
        return found
    free, total = torch.cuda.mem_get_info(place)
    versions: Any = torch.version
    return found | {
        "cuda": versions.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "gpu_memory_gb": total / 1e9,
        "gpu_memory_free_gb": free / 1e9,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(place))),
        "nvidia_smi": nvidia_smi(),
    }


def nvidia_smi() -> dict[str, str]:
    """What the driver says of the first GPU; nothing where it is not asked."""
    words = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERY.split(","), said.splitlines()[0].split(", "), strict=False))


if __name__ == "__main__":
    print(json.dumps(environment(*sys.argv[1:])))
