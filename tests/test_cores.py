"""Threads follow the cores that are free."""

from __future__ import annotations

import os
import pickle
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sri_cli import cores
from sri_cli.cores import (
    OtherProcesses,
    Threads,
    available_cores,
    fair_share,
    memory_limits,
    shared_note,
)
from sri_cli.data.loader import choose_storage
from sri_cli.training.log import read_log
from tests.small_cli import SEARCH_PATH, finish, start
from tests.small_data import write_small_data

ON_LINUX = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="Linux counts it there")
Busy = Callable[..., set[int]]


@pytest.fixture(autouse=True)
def auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def two_cores() -> Iterator[None]:
    """This process and what it starts may use two cores."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("needs two cores")
    os.sched_setaffinity(0, set(sorted(before)[:2]))
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def busy(two_cores: None) -> Iterator[Busy]:
    """busy(count, niceness): so many processes that compute without a pause; their ids."""
    started: list[subprocess.Popen[str]] = []

    def begin(count: int, niceness: int = 0) -> set[int]:
        loop = f"import os\nos.nice({niceness})\nprint(flush=True)\nwhile True: pass"
        for _ in range(count):
            started.append(start(code=loop))
            started[-1].stdout.readline()
        return {process.pid for process in started[-count:]}

    yield begin
    for process in started:
        process.kill()
        process.communicate()


class Scripted(OtherProcesses):
    """The demands of a list, one after another, each due for a look."""

    age = cores.LOOK_EVERY_SEC

    def __init__(self, demands: list[list[float]]) -> None:
        super().__init__()
        self.script = iter(demands)

    def demands(self) -> list[float]:
        return next(self.script)


@pytest.mark.parametrize(
    ("number", "demands", "share"),
    [
        (2, [], 2),
        (2, [1.0], 1),  # another training with a thread
        (2, [2.0], 1),  # with two
        (2, [1.0, 1.0], 2 / 3),
        (2, [0.3], 1.7),
        (8, [8.0], 4),  # one that began alone gives half
        (8, [0.5, 7.0], 3.75),
        (8, [1.0, 1.0, 1.0], 5),
    ],
)
def test_cores_are_shared_fairly(number: int, demands: list[float], share: float) -> None:
    assert fair_share(number, demands) == pytest.approx(share)


@ON_LINUX
def test_a_busy_machine_leaves_one_thread(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_default_threads", lambda: 2)
    assert Threads().most == 2
    busy(2)
    threads = Threads()
    note = threads.start()
    assert threads.number == torch.get_num_threads() == 1
    assert threads.busy > 0.8 and note is not None and "\n" not in note
    assert not threads.is_due()  # not before some seconds have passed
    others = OtherProcesses()
    time.sleep(0.5)
    assert (others.in_use() or 0.0) > 0.8


@ON_LINUX
def test_processes_that_yield_do_not_count(busy: Busy) -> None:
    if os.nice(0) + cores.MUCH_NICER > 19:
        pytest.skip("no process can be so much nicer than this one")
    nicer, equal = busy(2, niceness=19), busy(1)
    times = cores._cpu_times()
    yielding = {int(pid) for pid, _ in times.yielding}
    assert yielding >= nicer and not yielding & equal
    assert {int(pid) for pid, _ in times.processes} >= nicer | equal


def test_a_change_needs_two_looks_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_default_threads", lambda: 8)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setattr(cores, "_affinity", lambda: set(range(8)))
    threads = Threads()
    load = [[], [7.0], [], [6.0], [3.0], [], [3.0], [0.1], []]
    threads.others = Scripted(load)
    assert threads.start() is None and threads.number == 8
    numbers = []
    for _ in load[1:]:
        assert threads.is_due()
        threads.use(threads.look())
        numbers.append(threads.number)
    assert numbers == [8, 8, 8, 5, 5, 5, 5, 8]


def test_a_fixed_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads.parse("3")
    threads.others = Scripted([])
    assert threads.start() is None and torch.get_num_threads() == 3
    assert not threads.is_due()
    assert pickle.loads(pickle.dumps(threads)).most == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert (Threads.parse("auto").fixed, Threads.parse("1").fixed) == (2, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert Threads().fixed == 4


def test_where_the_load_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "PROC", tmp_path)
    threads, usual = Threads(), torch.get_num_threads()
    assert OtherProcesses().in_use() is None and shared_note(None) is None
    assert threads.start() is None and threads.number == min(usual, available_cores())
    assert not threads.is_due()


@ON_LINUX
@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/user/box\n", {"user/cpu.max": "100000 100000", "user/box/cpu.max": "max 100000"}),
        (
            "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n",
            {"cpu/box/cpu.cfs_quota_us": "150000", "cpu/box/cpu.cfs_period_us": "150000"},
        ),
    ],
)
def test_limits_of_a_control_group_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str]
) -> None:
    limits = {"user/box/memory.max": "max", "user/memory.max": "4096"}
    limits |= {"memory/box/memory.limit_in_bytes": "4096"}
    for name, text in ({"proc/self/cgroup": membership} | files | limits).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(cores, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_affinity", lambda: set(range(4)))
    assert available_cores() == 1 and memory_limits() == [4096]
    assert "3.0 of 4 " in str(shared_note(3.0))  # on the cores that it may use, not its share
    assert [choose_storage(n, torch.device("cpu")) for n in (2048, 2049)] == ["device", "file"]


@ON_LINUX
def test_two_trainings_side_by_side(tmp_path: Path, two_cores: None) -> None:
    data = write_small_data(tmp_path / "towers-32.h5", images=32)
    words = ["train", "--recipe", "sri-mog", "--data", str(data), "--steps", "4"]
    small = ["size=tiny", "model.slots=3", "train.log_every=2", "train.batch=4"]
    environment = os.environ | {"PYTHONPATH": SEARCH_PATH}  # and no number of threads
    both = [start(*words, "--run", str(tmp_path / name), *small, env=environment) for name in "ab"]
    try:
        for process in both:
            finish(process)
    finally:
        for process in both:
            process.kill()
    for name in "ab":
        records = read_log(tmp_path / name)
        assert {record["threads"] for record in records} == {1}
