"""Time, peak arithmetic and profiles: what the benchmarks share.

Times come from `torch.utils.benchmark`, which waits for the GPU and repeats a run until enough
time has passed; profiles from `torch.profiler`. Nothing is modelled.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sri_cli.atomic import write_atomic
from sri_cli.cores import shared_note
from sri_cli.device import Precision

# Importing torch.utils.benchmark warns about a CUDA toolkit without a GPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils import benchmark  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Large enough to fill the machine, small enough for a fraction of a second: the side of a square
# matrix product; images, channels and pixels of a 3x3 convolution.
MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
CONVOLUTION = {"cpu": (8, 64, 64), "cuda": (64, 256, 64)}
PEAK_SECONDS = 0.4  # for each of the two kernels
NUM_OPERATIONS = 5  # in the summary of a profile
TRACE = Path("sri-bench-trace.json.gz")  # in the current folder
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


def profile_once(work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Run `work` once under the profiler and write its trace to TRACE.

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
        trace = Path(folder) / TRACE.name
        profiler.export_chrome_trace(str(trace))
        write_atomic(TRACE, trace.read_bytes())
    seconds = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
        for event in profiler.key_averages()
        if (event.device_type == DeviceType.CUDA) == on_gpu and not event.is_user_annotation
    }
    total = sum(seconds.values()) or 1.0
    longest = sorted(seconds, key=lambda name: -seconds[name])[:NUM_OPERATIONS]
    operations = [{"name": n, "seconds": seconds[n], "share": seconds[n] / total} for n in longest]
    return {"trace": str(TRACE), "operations": operations}


def report_text(result: dict[str, Any], lines: Sequence[str]) -> str:
    """A result for people: the machine, then `lines`, a note on a busy machine, and the profile."""
    text = [
        f"{result['machine']}, {result['cores']} cores, {result['threads']} threads,"
        f" {result['device']}, torch {result['torch']}",
        *lines,
    ]
    if shared := shared_note(result.get("busy_cores")):
        text.append(f"Note: {shared}; alone it may be faster")
    if "trace" in result:
        for operation in result["operations"]:
            share, seconds = operation["share"], operation["seconds"]
            text.append(f"{share:6.1%} {seconds:9.4f} s  {operation['name']}")
        text.append(f"trace: {result['trace']} (open it in ui.perfetto.dev)")
    return "\n".join(text)
