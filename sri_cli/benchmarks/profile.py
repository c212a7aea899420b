"""Where the time goes: a trace for Chrome's viewer and the most expensive operations."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sri_cli.atomic import ensure_folder, write_atomic
from sri_cli.errors import SriError
from sri_cli.metrics.tabular import aligned
from sri_cli.training.step_timing import wait_for

TOP = 5
LONGEST_NAME = 72
# The profiler's library tells of its own start, and of GPUs that are not there, on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
ENDINGS = (".json", ".json.gz")


def default_trace(verb: str) -> Path:
    """Where a trace goes that nobody named."""
    return Path(f"sri-bench-{verb}-trace.json.gz")


def check_trace(path: Path) -> None:
    """SriError for a name that no viewer knows, SriFailure where it cannot be written.

    Asked before the work: a trace is the last thing that is made.
    """
    if not path.name.endswith(ENDINGS):
        raise SriError(f"{path} is no name for a trace", f"call it {path}.json.gz")
    if path.is_dir():
        raise SriError(f"{path} is a folder", f"name a file: --out {path / 'trace.json.gz'}")
    ensure_folder(path.parent)


def profiled(work: Callable[[], object], device: torch.device, path: Path) -> dict[str, Any]:
    """Do `work` once under the profiler; the trace is written whole to `path`.

    `operations`: the five that took longest themselves (calls inside them not counted), with
    their share of the time of all; on a GPU they are its kernels.
    """
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=kinds) as found:
        work()
        wait_for(device)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / f"trace{path.name[path.name.index('.json') :]}"
        found.export_chrome_trace(str(trace))
        write_atomic(path, trace.read_bytes())
    return {"trace": str(path), "operations": _dearest(found, device)}


def _dearest(found: profile, device: torch.device) -> list[dict[str, Any]]:
    on_gpu = device.type == "cuda"
    seconds: dict[str, tuple[float, int]] = {}
    for event in found.key_averages():
        if event.key.startswith("ProfilerStep") or getattr(event, "is_user_annotation", False):
            continue  # they enclose others
        if on_gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        seconds[event.key] = (spent / 1e6, event.count)
    total = sum(spent for spent, _ in seconds.values()) or 1.0
    dearest = sorted(seconds.items(), key=lambda entry: -entry[1][0])[:TOP]
    return [
        {"name": name, "seconds": spent, "share": spent / total, "calls": calls}
        for name, (spent, calls) in dearest
    ]


def profile_text(record: dict[str, Any]) -> str:
    """The operations for people, and where the trace lies."""
    rows = [["most expensive operations", "s", "calls", "% of the time"]]
    rows += [
        [o["name"][:LONGEST_NAME], f"{o['seconds']:.4f}", f"{o['calls']:,}", f"{o['share']:.1%}"]
        for o in record["operations"]
    ]
    return f"{aligned(rows)}\ntrace: {record['trace']} (open it in ui.perfetto.dev)"
