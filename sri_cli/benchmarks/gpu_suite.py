"""`sri bench gpu-suite`: the parts that are wanted, run within the minutes that there are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sri_cli.benchmarks.suite import RECORDS, REPORT, Notify, run_suite
from sri_cli.benchmarks.suite_parts import Wanted, suite_parts
from sri_cli.benchmarks.suite_report import fastest, fastest_words, suite_report
from sri_cli.device import choose_device
from sri_cli.errors import SriError


def gpu_suite(
    out: Path,
    minutes: float = 9.5,
    only: Sequence[str] | None = None,
    quick: bool = False,
    device: str = "auto",
    notify: Notify = lambda line: None,
) -> dict[str, Any]:
    """Runs the parts; `records` of all that the folder holds, and which step was the fastest.

    Raises SriError where there is no GPU and `device` is not cpu, SriFailure where `out` cannot
    be written to.
    """
    place = choose_device(device)
    if device == "auto" and place.type != "cuda":
        raise SriError("PyTorch sees no GPU here", "try the parts on the CPU: --device cpu --quick")
    with tempfile.TemporaryDirectory(prefix="sri-bench-") as folder:
        wanted = Wanted(place.type, quick, out, Path(folder) / "towers.h5")
        records = run_suite(suite_parts(wanted, only), out, 60 * minutes, suite_report, notify)
    best = fastest(records)
    return {
        "out": str(out),
        "records": records,
        "fastest": None if best is None else best["part"].removeprefix("step "),
        "fastest_is": fastest_words(records),
    }


def suite_text(result: dict[str, Any]) -> str:
    """Where the report lies, and what it comes to."""
    out = Path(result["out"])
    report = (out / REPORT).read_text("utf-8")
    return f"{report}\nreport: {out / REPORT}, records: {out / RECORDS}"
