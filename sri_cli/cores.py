"""CPU cores: how many this process may use, how many are free, and threads to match; free memory.

A training step has hundreds of parallel regions, and each ends with its slowest thread. With more
threads than free cores every region waits for a thread that is not scheduled: two trainings on two
cores took up to 33 times as long with two threads each, and no longer than their share with one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli.errors import SriError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
LOOK_EVERY_SEC = 5.0
WINDOW_SEC = (0.3, 10.0)  # shortest and longest to measure the load of the start over
TOLERANCE = 0.25  # cores that others may use before a thread is given up
MUCH_NICER = 10  # a process with so much more niceness has a tenth of our weight: it yields
MOST_THREADS = 1024


def available_cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its control group."""
    cores = len(_affinity())
    quotas = [quota for quota in map(_quota, _groups("cpu")) if quota]
    return max(1, min([cores, *(round(quota) for quota in quotas)]))


def fair_share(cores: float, demands: Sequence[float]) -> float:
    """The largest s with s + sum(min(d, s) for d in demands) <= cores: nobody gets more than s."""
    left, sharers = cores, 1 + len(demands)
    for demand in sorted(demands):
        if demand >= left / sharers:
            break
        left, sharers = left - demand, sharers - 1
    return left / sharers


@dataclass(frozen=True)
class _CpuTimes:
    """CPU seconds until now: of all cores that this process may use, its own, and of each process.

    `processes` are the visible ones by pid and start; `yielding` are those that yield to this one.
    """

    now: float
    busy: float
    own: float
    processes: dict[tuple[str, str], float]
    yielding: frozenset[tuple[str, str]]


class OtherProcesses:
    """The cores that other processes use. Known on Linux only."""

    def __init__(self) -> None:
        self.before = _cpu_times()

    @property
    def age(self) -> float:
        """Seconds since the last call of `demands`, or since the start; 0 where unknown."""
        return 0.0 if self.before is None else time.monotonic() - self.before.now

    def demands(self) -> list[float] | None:
        """Cores in use by each other process, on average since the last call; None if unknown.

        Processes in other containers, and those that ended meanwhile, count as one.
        """
        before, self.before = self.before, _cpu_times()
        if before is None or self.before is None:
            return None
        now, elapsed = self.before, max(1e-3, self.before.now - before.now)
        total = max(0.0, now.busy - before.busy - (now.own - before.own)) / elapsed
        used = {
            key: max(0.0, seconds - before.processes.get(key, 0.0)) / elapsed
            for key, seconds in now.processes.items()
        }
        # Visible processes may run on cores that this one may not use.
        scale = min(1.0, total / max(1e-9, sum(used.values())))
        rest = total - scale * sum(used.values())
        return [rest, *(scale * use for key, use in used.items() if key not in now.yielding)]

    def in_use(self) -> float | None:
        """Cores in use by all other processes, on average since the last call."""
        demands = self.demands()
        return None if demands is None else sum(demands)


def shared_note(busy: float | None) -> str | None:
    """That other processes use `busy` cores, for the user, if that matters."""
    if busy is None or busy < TOLERANCE:
        return None
    return f"other processes use {busy:.1f} of {len(_affinity())} cores"


class Threads:
    """PyTorch's number of threads in this process: fixed, or as many as there are free cores.

    `auto` uses at most PyTorch's own choice, divided by `sharers` processes that do the same work.
    It is fixed to OMP_NUM_THREADS where that is set.

    Attributes:
        number: the threads in use; 0 before `start`.
    """

    def __init__(self, fixed: int | None = None, sharers: int = 1) -> None:
        omp = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        self.fixed = fixed or (int(omp) if omp.isdecimal() and int(omp) else None)
        self.sharers, self.number, self.last = sharers, 0, 0
        self.others = OtherProcesses()
        self.busy = 0.0  # cores in use by others at the last look

    def __reduce__(self) -> tuple[Any, ...]:
        return Threads, (self.fixed, self.sharers)  # times of one process mean nothing in another

    @classmethod
    def parse(cls, text: str) -> Threads:
        """Of --threads: a number, or auto. SriError for anything else."""
        if text == "auto":
            return cls()
        if text.isdecimal() and 1 <= int(text) <= MOST_THREADS:
            return cls(int(text))
        raise SriError(
            f"--threads {text}: neither auto nor a number from 1 to {MOST_THREADS}",
            "use --threads auto, or --threads 1, 2, ...",
        )

    def __str__(self) -> str:
        return f"{self.number} thread{'s' * (self.number != 1)}"

    def start(self) -> str | None:
        """Choose a number and use it; a note for the user if others use the cores."""
        return self.use(self.choose())

    def choose(self) -> int:
        """The number to begin with. Waits until the load has been observed for long enough."""
        shortest, longest = WINDOW_SEC
        if self.fixed is None and self.others.before is not None:
            if self.others.age > longest:
                self.others = OtherProcesses()
            time.sleep(max(0.0, shortest - self.others.age))
        self.last = self._free()
        return self.last

    def is_due(self) -> bool:
        """Whether it is time to `look` again."""
        return (
            self.fixed is None
            and self.others.before is not None
            and self.others.age >= LOOK_EVERY_SEC
        )

    def look(self) -> int:
        """The number to use from now on. It changes after two looks that agree in direction."""
        free = self._free()
        agreed = sorted((self.number, self.last, free))[1]
        self.last = free
        return agreed

    def use(self, number: int) -> str | None:
        """Use `number` threads; a note for the user if that is a change."""
        import torch

        before, self.number = self.number or self.most, number
        torch.set_num_threads(number)
        if number == before or self.fixed is not None:
            return None
        shared = shared_note(self.busy) or "no other process uses the cores"
        return f"Note: {shared}: computing with {self} instead of {before}"

    def _free(self) -> int:
        """How many threads have a core of their own, when cores are shared fairly."""
        demands = self.others.demands() if self.fixed is None else None
        if demands is None:
            return self.most
        self.busy = sum(demands)
        share = fair_share(len(_affinity()), demands)
        return max(1, min(self.most, int(share + TOLERANCE)))

    @property
    def most(self) -> int:
        """The largest number that this uses."""
        if self.fixed is not None:
            return self.fixed
        return max(1, min(_default_threads(), available_cores()) // self.sharers)


@functools.cache
def _default_threads() -> int:
    """PyTorch's own choice, which is the number of physical cores."""
    import torch

    return torch.get_num_threads()


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def free_memory() -> int:
    """Bytes of memory that this process may use: what is free, and no more than its limit.

    Half of the machine's where that is unknown.
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return min([int(fields["MemAvailable"].split()[0]) * 1024, *memory_limits()])
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def memory_limits() -> list[int]:
    """Bytes that the control group of this process allows, and each group above it."""
    limits = []
    for group in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, or 1
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                limits.append(int((group / name).read_text("ascii")))
    return limits


def _groups(controller: str) -> Iterator[Path]:
    """The control group of this process, and each group above it."""
    try:
        lines = (PROC / "self" / "cgroup").read_text("ascii").splitlines()
    except OSError:
        return
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        group = root / path.lstrip("/")
        while group.is_relative_to(root):
            yield group
            group = group.parent


def _quota(group: Path) -> float | None:
    """Cores of a control group's quota, of version 2 or 1; None without one."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            words = " ".join((group / name).read_text("ascii") for name in names).split()
        except OSError:
            continue
        if words[0] not in ("max", "-1"):
            return int(words[0]) / int(words[1])
    return None


def _cpu_times() -> _CpuTimes | None:
    """Of /proc/stat and /proc/PID/stat, as proc(5) numbers their fields; None where unreadable."""
    try:
        tick = 1 / os.sysconf("SC_CLK_TCK")
        names = {f"cpu{number}" for number in _affinity()}
        busy = 0
        for line in (PROC / "stat").read_text("ascii").splitlines():
            name, *values = line.split()
            if name in names:
                ticks = [int(value) for value in values[:8]]
                busy += sum(ticks) - ticks[3] - ticks[4]  # without idle and iowait
        own, niceness = str(os.getpid()), os.getpriority(os.PRIO_PROCESS, 0)
        processes, yielding = {}, set()
        for pid in os.listdir(PROC):
            if not pid.isdecimal() or pid == own:
                continue
            try:
                words = (PROC / pid / "stat").read_text("utf-8", "replace").rpartition(")")[2]
            except OSError:  # it has ended
                continue
            fields = words.split()
            key = (pid, fields[19])
            processes[key] = (int(fields[11]) + int(fields[12])) * tick
            if int(fields[16]) >= niceness + MUCH_NICER:
                yielding.add(key)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return _CpuTimes(
        time.monotonic(), busy * tick, time.process_time(), processes, frozenset(yielding)
    )
