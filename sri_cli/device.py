"""The device and precision of a computation, and what the CPU can do."""

from __future__ import annotations

import ctypes
import functools
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from sri_cli.console import counted
from sri_cli.errors import SriError

Precision = Literal["fp32", "bf16"]


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; `auto` is a GPU where there is one. SriError if it is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SriError("PyTorch sees no GPU", "leave out --gpus, or use --gpus 0")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise SriError(f"no device {name}", "use auto, cpu or cuda") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        seen = counted(torch.cuda.device_count(), "GPU")
        raise SriError(f"no device {name}: PyTorch sees {seen}, counted from 0", "use cuda:0")
    return chosen


def parse_gpus(gpus: str) -> tuple[str, int]:
    """The device name and the number of GPUs of --gpus; SriError unless auto or a number."""
    if gpus == "auto":  # one, if there is one
        return gpus, int(torch.cuda.is_available())
    if not gpus.isdecimal():
        raise SriError(f"--gpus {gpus} is not a number of GPUs", "use --gpus auto, 0, 1, ...")
    return "cuda" if int(gpus) else "cpu", int(gpus)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move a CPU tensor to the device; to a GPU through pinned memory, without waiting."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the device computes it natively, else fp32."""
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    return cast(Precision, name)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 natively; emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def cpu_flags() -> set[str]:
    """The processor's feature flags as Linux names them; empty on other systems."""
    return set(_cpu_info("flags").split())


def cpu_model() -> str:
    """The processor's name, for reports."""
    import platform

    return _cpu_info("model name") or platform.processor() or platform.machine()


def _cpu_info(field: str) -> str:
    """The first value of a field of /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


# By default glibc returns each large freed block to the kernel and waits for zeroed pages later.
# One SRI-MoG step of 32 images at 64 px in float32 takes 5.5 s that way, 2.9 s otherwise (2 cores).
# Names and numbers from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
LARGEST_INT = 2**31 - 1
TOP_PAD_BYTES = 2**28


@functools.cache
def keep_freed_memory() -> None:
    """Keep freed memory for the rest of this process, where the C library is glibc."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_ARENA_MAX, 1)  # the backward pass runs in a thread of its own
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        mallopt(M_TOP_PAD, TOP_PAD_BYTES)
