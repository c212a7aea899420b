"""What this machine can do at most, measured: the FLOP/s of its best large kernel."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sri_cli.device import Precision
from sri_cli.training.step_timing import wait_for

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Sides of a square matrix product; images, channels and pixels of a 3x3 convolution. Large enough
# to fill the machine, small enough for a fraction of a second.
MATRIX = {"cpu": 1536, "cuda": 8192}
CONVOLUTION = {"cpu": (8, 64, 64), "cuda": (64, 256, 64)}
SECONDS = 0.4  # of each kernel
FEWEST, MOST = 4, 200  # repeats


@dataclass(frozen=True)
class Peak:
    """FLOP/s of the two kernels; the machine's peak is that of the faster one."""

    matmul: float
    convolution: float
    how: str

    @property
    def flop_per_second(self) -> float:
        """Of the faster one."""
        return max(self.matmul, self.convolution)


@functools.cache
def measured_peak(device: torch.device, precision: Precision) -> Peak:
    """Of a large matrix product and a large convolution, each at its fastest repeat.

    Measured once a process, with as many threads as PyTorch now has and, for float32 on a GPU, with
    TF32 wherever PyTorch now allows it.
    """
    dtype, kind = DTYPES[precision], device.type if device.type in MATRIX else "cpu"
    side, (images, channels, pixels) = MATRIX[kind], CONVOLUTION[kind]
    how = (
        f"the faster of a {side} x {side} matrix product and a 3x3 convolution of {images} x"
        f" {channels} x {pixels} x {pixels} in {precision}, each at its fastest repeat"
    )
    with torch.inference_mode():
        left = torch.randn(side, side, dtype=dtype, device=device)
        right = torch.randn(side, side, dtype=dtype, device=device)
        seconds = _fastest(lambda: left @ right, device)
        matmul = 2 * side**3 / seconds
        inputs = torch.randn(images, channels, pixels, pixels, dtype=dtype, device=device)
        inputs = inputs.to(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype, device=device)
        layer = layer.to(memory_format=torch.channels_last)
        with _searched():
            seconds = _fastest(lambda: layer(inputs), device)
        flop = 2 * images * pixels**2 * channels**2 * 9
    return Peak(matmul, flop / seconds, how)


@contextmanager
def _searched() -> Iterator[None]:
    """Let cuDNN try its convolutions instead of guessing."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of many repeats, after one that warms up."""
    work()
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        wait_for(device)
        began = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - began)
    return min(times)
