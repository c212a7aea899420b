"""How long work takes, again and again: the spread of its repeats, and the table that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sri_cli.metrics.tabular import aligned
from sri_cli.training.step_timing import wait_for

SCHEDULED = Path("/proc/self/schedstat")
HEADS = ("median s", "min s", "1st quartile s", "3rd quartile s", "max s")
QUANTILES = (0.5, 0.0, 0.25, 0.75, 1.0)
KEYS = ("seconds_median", "seconds_min", "seconds_q1", "seconds_q3", "seconds_max")


@dataclass(frozen=True)
class Timed:
    """`number` things of a `unit` took each of `seconds`.

    `flop`: floating-point operations of one repeat, where they are known; `peak`: FLOP/s that the
    machine was measured to reach.
    """

    what: str
    unit: str
    number: float
    seconds: Sequence[float]
    flop: float | None = None
    peak: float | None = None

    @property
    def spread(self) -> tuple[float, ...]:
        """Median, least, first and third quartile, greatest of the seconds."""
        return tuple(float(q) for q in np.quantile(self.seconds, QUANTILES))

    @property
    def median(self) -> float:
        """Seconds."""
        return self.spread[0]

    @property
    def per_second(self) -> float:
        """Things a second, at the median."""
        return self.number / self.median

    @property
    def flop_per_second(self) -> float | None:
        """At the median."""
        return None if self.flop is None else self.flop / self.median

    @property
    def share_of_peak(self) -> float | None:
        """From 0 to about 1."""
        rate = self.flop_per_second
        return None if rate is None or self.peak is None else rate / self.peak

    def record(self) -> dict[str, Any]:
        """For --json."""
        found: dict[str, Any] = {"what": self.what, "unit": self.unit, "number": self.number}
        found |= {"repeats": len(self.seconds)} | dict(zip(KEYS, self.spread, strict=True))
        found["per_second"] = self.per_second
        if self.flop is not None:
            found |= {
                "gflop": self.flop / 1e9,
                "flop_per_second": self.flop_per_second,
                "share_of_peak": self.share_of_peak,
            }
        return found


class Attention:
    """Whether others used the cores that this process waited for, since it was made.

    Seconds are too many then, and no spread tells it.
    """

    MUCH = 0.1  # of the time

    def __init__(self) -> None:
        self.began, self.worked, self.waited = time.perf_counter(), time.process_time(), _waited()

    def report(self) -> dict[str, Any]:
        """`cpu_seconds` of all threads; `waiting_share` of the time, as Linux counts it for the
        main thread; `notes` for people."""
        wall = time.perf_counter() - self.began
        share = (_waited() - self.waited) / wall
        said = f"the machine is shared: {share:.0%} of the time this process waited for a core"
        return {
            "cpu_seconds": time.process_time() - self.worked,
            "waiting_share": share,
            "notes": [f"{said}, alone it would be faster"] if share > self.MUCH else [],
        }


def _waited() -> float:
    """Seconds that the main thread could have run and did not get to; 0 where nobody counts."""
    try:
        return int(SCHEDULED.read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def repeat(
    work: Callable[[int], object], repeats: int, device: torch.device, warm_ups: int = 1
) -> tuple[float, ...]:
    """The seconds of work(0), work(1), ... after warm-ups with numbers below 0."""
    for number in range(-warm_ups, 0):
        work(number)
    return tuple(_seconds(work, number, device) for number in range(repeats))


def _seconds(work: Callable[[int], object], number: int, device: torch.device) -> float:
    wait_for(device)
    began = time.perf_counter()
    work(number)
    wait_for(device)
    return time.perf_counter() - began


def timing_table(rows: Sequence[dict[str, Any]]) -> str:
    """Of `Timed.record()`s, a line each: seconds of a repeat, things a second, FLOP/s if known."""
    counted = any("gflop" in row for row in rows)
    head = ["", "of", *HEADS, "repeats", "a second"]
    head += ["GFLOP/s", "% of peak"] if counted else []
    return aligned([head, *(_cells(row, counted) for row in rows)], words=2)


def _cells(row: dict[str, Any], counted: bool) -> list[str]:
    unit = row["unit"].removesuffix("s") if row["number"] == 1 else row["unit"]
    cells = [row["what"], f"{digits(row['number'])} {unit}"]
    cells += [digits(row[key]) for key in KEYS]
    cells += [str(row["repeats"]), f"{digits(row['per_second'])} {row['unit']}"]
    if counted:
        rate, share = row.get("flop_per_second"), row.get("share_of_peak")
        cells += ["" if rate is None else digits(rate / 1e9)]
        cells += ["" if share is None else f"{share:.1%}"]
    return cells


def digits(value: float) -> str:
    """Three digits that say something, without an exponent."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    places = 2 - int(np.floor(np.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}"


def machine_line(record: dict[str, Any]) -> str:
    """What the figures were measured on."""
    return (
        f"{record['machine']}, {record['cores']} cores, {record['threads']} threads,"
        f" {record['device']}, torch {record['torch']}"
    )
