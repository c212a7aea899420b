"""Time, memory, peak arithmetic and profiles: what the benchmarks share.

Times come from `torch.utils.benchmark`, which waits for the GPU and repeats a run until enough
time has passed; profiles from `torch.profiler`. Nothing is modelled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sri_cli.atomic import write_atomic
from sri_cli.device import Precision
from sri_cli.errors import SriError

# Importing torch.utils.benchmark warns about a CUDA toolkit without a GPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils import benchmark  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Large enough to fill the machine, small enough for a fraction of a second: the side of a square
# matrix product; images, channels and pixels of a 3x3 convolution.
MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
CONVOLUTION = {"cpu": (8, 64, 64), "cuda": (64, 256, 64)}
PEAK_SECONDS = 0.4  # for each of the two kernels
WAITING_SHARE_NOTED = 0.1
NUM_OPERATIONS = 5  # in the summary of a profile
TRACE_SUFFIXES = (".json", ".json.gz")
SCHEDSTAT = Path("/proc/self/schedstat")
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its own start on stderr


def measure(work: Callable[[], object], seconds: float) -> benchmark.Measurement:
    """Run `work` again and again for at least `seconds`, after one run that is not counted."""
    timer = benchmark.Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds)


def timings(measurement: benchmark.Measurement) -> dict[str, float]:
    """Seconds of one run, and how many runs there were."""
    times = measurement.times
    return {
        "seconds_median": measurement.median,
        "seconds_min": min(times),
        "seconds_iqr": measurement.iqr,
        "repeats": len(times) * measurement.number_per_run,
    }


class Usage:
    """Peak memory of a device, and time spent waiting for a core, since this object was created.

    Memory is on a GPU what PyTorch has allocated, on a CPU the resident size of the process. When
    other processes use the cores, the times of a benchmark are too long, and their interquartile
    range does not show it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began, self.waited = time.perf_counter(), _waiting_seconds()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
            return
        with contextlib.suppress(OSError):  # an earlier peak of this process stays
            CLEAR_REFS.write_text("5")  # resets the peak
        self.before = _status_bytes("VmRSS")

    def report(self) -> dict[str, float]:
        """`memory_mb`: the peak, in MiB; `memory_added_mb`: the part of it since the start.

        `waiting_share`: the share of the time that the main thread waited for a core (Linux only).
        """
        waited = _waiting_seconds() - self.waited
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _status_bytes("VmHWM")
        return {
            "memory_mb": peak / 2**20,
            "memory_added_mb": max(0, peak - self.before) / 2**20,
            "waiting_share": waited / (time.perf_counter() - self.began),
        }


def _waiting_seconds() -> float:
    try:
        return int(SCHEDSTAT.read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _status_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process; elsewhere than on Linux always the peak."""
    try:
        lines = STATUS.read_text("ascii", "replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def peak_flop_per_second(device: torch.device, precision: Precision) -> float:
    """What the machine reaches at best: the faster of a large matrix product and a convolution.

    With as many threads as PyTorch uses now and, for float32 on a GPU, TF32 where it is allowed.
    """
    dtype, kind = DTYPES[precision], "cuda" if device.type == "cuda" else "cpu"
    side, (images, channels, pixels) = MATRIX_SIDE[kind], CONVOLUTION[kind]
    left = torch.randn(side, side, dtype=dtype, device=device)
    inputs = torch.randn(images, channels, pixels, pixels, dtype=dtype, device=device)
    inputs = inputs.to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype, device=device)
    layer = layer.to(memory_format=torch.channels_last)
    kernels: list[tuple[int, Callable[[], object]]] = [
        (2 * side**3, lambda: left @ left),
        (2 * images * pixels**2 * channels**2 * 9, lambda: layer(inputs)),
    ]
    tf32 = torch.backends.cudnn.allow_tf32
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32)
    with torch.inference_mode(), cudnn:
        return max(flop / min(measure(work, PEAK_SECONDS).times) for flop, work in kernels)


def check_trace_path(path: Path) -> None:
    """Raise SriError for a file name that trace viewers do not open."""
    if not path.name.endswith(TRACE_SUFFIXES):
        raise SriError(f"{path} is not a trace file name", f"name it {path}.json.gz")
    if path.is_dir():
        raise SriError(f"{path} is a folder", f"name a file in it: {path / 'trace.json.gz'}")


def profile_once(work: Callable[[], object], device: torch.device, path: Path) -> dict[str, Any]:
    """Run `work` once under the profiler and write its trace to `path`.

    `operations` are those with the most time of their own (calls inside them not counted): kernels
    on a GPU, ATen operations on a CPU.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / f"trace{path.name[path.name.index('.json') :]}"
        profiler.export_chrome_trace(str(trace))
        write_atomic(path, trace.read_bytes())
    seconds = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        for event in profiler.key_averages()
        if (event.device_type == DeviceType.CUDA) == on_gpu and not event.is_user_annotation
    }
    total = sum(seconds.values()) or 1.0
    longest = sorted(seconds, key=lambda name: -seconds[name])[:NUM_OPERATIONS]
    operations = [{"name": n, "seconds": seconds[n], "share": seconds[n] / total} for n in longest]
    return {"trace": str(path), "operations": operations}


def report_text(result: dict[str, Any], lines: Sequence[str]) -> str:
    """A result for people: the machine, then `lines`, a note on a busy machine, and the profile."""
    text = [
        f"{result['machine']}, {result['cores']} cores, {result['threads']} threads,"
        f" {result['device']}, torch {result['torch']}",
        *lines,
    ]
    waiting = result.get("waiting_share", 0.0)
    if waiting >= WAITING_SHARE_NOTED:
        text.append(
            f"Note: other processes use the cores; {waiting:.0%} of the time was spent waiting."
        )
    if "trace" in result:
        for operation in result["operations"]:
            share, seconds = operation["share"], operation["seconds"]
            text.append(f"{share:6.1%} {seconds:9.4f} s  {operation['name']}")
        text.append(f"trace: {result['trace']} (open it in ui.perfetto.dev)")
    return "\n".join(text)
