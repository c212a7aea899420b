"""Spreads, tables, the machine's peak, memory, profiles: what every bench verb stands on."""

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

from sri_cli.benchmarks.memory import MemoryWatch
from sri_cli.benchmarks.peak import measured_peak
from sri_cli.benchmarks.profile import check_trace, profile_text, profiled
from sri_cli.benchmarks.timing import Attention, Timed, digits, repeat, timing_table
from sri_cli.errors import SriError, SriFailure

CPU = torch.device("cpu")


def test_a_row_by_hand() -> None:
    row = Timed("step", "images", 6, (3.0, 1.0, 2.0, 5.0, 4.0), flop=3e9, peak=4e9)
    assert row.spread == (3.0, 1.0, 2.0, 4.0, 5.0)
    assert (row.per_second, row.flop_per_second, row.share_of_peak) == (2.0, 1e9, 0.25)
    record = row.record()
    assert record["seconds_median"] == 3.0 and record["seconds_q3"] == 4.0
    assert record["repeats"] == 5 and record["gflop"] == 3.0


def test_the_table_says_its_units_and_leaves_out_what_is_not_known() -> None:
    plain = Timed("data", "batches", 1, (0.5,))
    counted = Timed("step", "images", 32, (0.25,), flop=1e9, peak=8e9)
    head, first, second = timing_table([plain.record(), counted.record()]).splitlines()
    assert "median s" in head and "GFLOP/s" in head and "% of peak" in head
    assert "1 batch" in first and first.rstrip().endswith("2 batches")
    assert second.split()[-2:] == ["4", "50.0%"] and "128 images" in second
    assert "GFLOP/s" not in timing_table([plain.record()])


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (0.0123456, "0.0123"), (2.0, "2"), (9.876, "9.88"), (0.0, "0")],
)
def test_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_warm_ups_are_not_timed() -> None:
    seen: list[int] = []
    times = repeat(seen.append, 3, CPU, warm_ups=2)
    assert seen == [-2, -1, 0, 1, 2]
    assert len(times) == 3 and all(seconds >= 0 for seconds in times)


def test_the_peak_is_that_of_the_faster_kernel_and_measured_once() -> None:
    peak = measured_peak(CPU, "fp32")
    assert peak.flop_per_second == max(peak.matmul, peak.convolution) > 1e9
    assert measured_peak(CPU, "fp32") is peak
    assert "fp32" in peak.how


def pages(megabytes: int) -> mmap.mmap:
    """Memory of the system's own, in use: what the C library keeps does not come into it."""
    block = mmap.mmap(-1, megabytes * 2**20)
    np.frombuffer(block, np.uint8)[:] = 1
    return block


def test_memory_grows_by_what_is_held_and_forgets_what_was_freed() -> None:
    pages(400).close()  # before the watch
    watch = MemoryWatch(CPU)
    before = watch.report()["memory_added_mb"]
    assert before < 100
    pages(128).close()
    added = watch.report()["memory_added_mb"] - before
    assert 100 < added < 160
    assert watch.report()["memory_mb"] > 128


def test_a_profile_names_what_was_done_and_writes_a_trace(tmp_path: Path) -> None:
    matrix = torch.randn(300, 300)
    path = tmp_path / "new" / "trace.json.gz"
    check_trace(path)
    found = profiled(lambda: [matrix @ matrix for _ in range(5)], CPU, path)
    dearest = found["operations"][0]
    assert (dearest["name"], dearest["calls"]) == ("aten::mm", 5)
    assert 0.5 < dearest["share"] <= 1
    assert json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert [other.name for other in path.parent.iterdir()] == ["trace.json.gz"]
    assert "aten::mm" in profile_text(found) and str(path) in profile_text(found)


def test_a_trace_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SriError, match="no name for a trace"):
        check_trace(tmp_path / "trace.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(SriFailure, match="could not write"):
        check_trace(tmp_path / "file" / "trace.json")


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="Linux counts it there")
def test_a_process_that_waits_for_its_core_is_told() -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.3)  # they have started
        attention = Attention()
        while time.perf_counter() - attention.began < 0.5:
            pass
        found = attention.report()
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, mine)
    assert found["waiting_share"] > 0.2 and "shared" in found["notes"][0]


def test_a_process_that_waits_for_something_else_is_not() -> None:
    attention = Attention()
    time.sleep(0.2)
    found = attention.report()
    assert found["notes"] == [] and 0 <= found["cpu_seconds"] < 0.2
