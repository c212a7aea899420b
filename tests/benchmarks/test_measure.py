"""What the benchmarks measure with: times, memory, peak arithmetic, profiles, shared cores."""

from __future__ import annotations

import gzip
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sri_cli.benchmarks.measure import (
    PeakMemory,
    SharedCores,
    check_trace_path,
    measure,
    peak_flop_per_second,
    profile_once,
    shared_cores_note,
    summary,
)
from sri_cli.errors import SriError

CPU = torch.device("cpu")


def test_a_measurement_repeats_until_its_seconds_are_over() -> None:
    runs: list[float] = []

    def work() -> None:
        runs.append(time.perf_counter())
        time.sleep(0.02)

    result = summary(measure(work, 0.2), number=5, unit="images")
    assert runs[-1] - runs[0] >= 0.2
    assert 0.02 <= result["seconds_min"] <= result["seconds_median"] < 0.2
    assert 3 <= result["repeats"] < len(runs)  # a warm-up is not counted
    assert result["per_second"] == pytest.approx(5 / result["seconds_median"])


def test_memory_is_the_peak_since_the_start() -> None:
    def use(megabytes: int) -> None:
        block = mmap.mmap(-1, megabytes * 2**20)  # not the C library's, which keeps freed memory
        np.frombuffer(block, np.uint8)[:] = 1

    use(400)
    memory = PeakMemory(CPU)
    before = memory.report()["memory_added_mb"]
    assert before < 100
    use(128)
    assert 100 < memory.report()["memory_added_mb"] - before < 160


def test_the_peak_is_higher_than_an_ordinary_product_reaches() -> None:
    small = torch.randn(64, 64)
    rate = 2 * 64**3 / measure(lambda: small @ small, 0.1).median
    assert peak_flop_per_second(CPU, "fp32") > rate / 2 > 1e7


def test_a_profile_names_the_operations_and_writes_a_trace(tmp_path: Path) -> None:
    matrix = torch.randn(300, 300)
    path = tmp_path / "new" / "trace.json.gz"
    result = profile_once(lambda: [matrix @ matrix for _ in range(5)], CPU, path)
    longest = result["operations"][0]
    assert longest["name"] == "aten::mm" and 0.5 < longest["share"] <= 1
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert os.listdir(path.parent) == ["trace.json.gz"]


@pytest.mark.parametrize("name", ["trace.txt", "folder.json"])
def test_a_trace_no_viewer_opens_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SriError, match=name):
        check_trace_path(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="Linux counts it there")
def test_a_busy_machine_is_noted_and_an_idle_process_is_not() -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.3)  # they have started
        cores = SharedCores()
        while time.perf_counter() - cores.began < 0.5:
            pass
        busy = cores.report()
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, mine)
    assert busy["waiting_share"] > 0.2 and shared_cores_note(busy)
    assert shared_cores_note({"waiting_share": 0.0}) == []
