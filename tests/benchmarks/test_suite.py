"""The suite outlives its parts: crashes, hangs and nonsense cost one part each."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from sri_cli.benchmarks.suite import (
    LARGEST_FILE,
    RECORDS,
    REPORT,
    TRACE,
    Part,
    read_records,
    run_suite,
)
from sri_cli.benchmarks.suite_report import fastest, suite_report
from sri_cli.errors import SriFailure


def python(name: str, code: str, limit: float = 60, json: bool = True) -> Part:
    """A part that runs some Python."""
    return Part(name, lambda _: [sys.executable, "-c", code], limit, json)


def is_running(pid: int) -> bool:
    """A killed child whose new parent has not looked yet runs no more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_each_part_ends_as_it_ends_and_the_rest_goes_on(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    hang = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '300']);"
        f" open({str(pid_file)!r}, 'w').write(str(child.pid)); time.sleep(300)"
    )
    parts = [
        python("crash", "import os; os.abort()"),
        python("error", "raise SystemExit('it broke')"),
        python("hang", hang, limit=1.5),
        python("nonsense", "print('no json')"),
        python("fine", "print('a note'); print('{\"answer\": 42}')"),
        python("plain", "print('12 passed')", json=False),
        Part("cannot", lambda _: ["false"], 1.0, impossible="not here"),
    ]
    heard: list[str] = []
    records = {r["part"]: r for r in run_suite(parts, tmp_path, 60, suite_report, heard.append)}
    statuses = {name: record["status"] for name, record in records.items()}
    assert statuses == {
        "crash": "failed",
        "error": "failed",
        "hang": "timed out",
        "nonsense": "failed",
        "fine": "done",
        "plain": "done",
        "cannot": "skipped",
    }
    assert records["fine"]["result"] == {"answer": 42}
    assert records["plain"]["result"] == {"said": "12 passed"}
    assert "it broke" in records["error"]["error"] and "-6" in records["crash"]["error"]
    assert records["hang"]["seconds"] < 10
    assert not is_running(int(pid_file.read_text()))  # what it started is gone too
    assert len(heard) == len(parts)
    report = (tmp_path / REPORT).read_text()
    assert all(name in report for name in ("crash", "hang", "not here"))


def test_the_whole_has_an_end(tmp_path: Path) -> None:
    began = time.monotonic()
    parts = [python(f"slow {i}", "import time; time.sleep(60)") for i in range(5)]
    records = run_suite(parts, tmp_path, 6.0, suite_report)
    assert time.monotonic() - began < 12
    assert [r["status"] for r in records] == ["timed out"] + ["skipped"] * 4
    assert records[1]["error"] == "no time was left"


def test_a_part_is_told_its_share_of_the_time(tmp_path: Path) -> None:
    def words(share: float) -> list[str]:
        return [sys.executable, "-c", f"print({share})"]

    records = run_suite([Part(f"{i}", words, 60) for i in range(3)], tmp_path, 30, suite_report)
    first, _, last = (record["result"] for record in records)
    assert 9 < first <= 10 and 20 < last <= 30


def test_a_second_run_adds_and_a_cut_line_is_no_record(tmp_path: Path) -> None:
    run_suite([python("a", "print(1)"), python("b", "print(2)")], tmp_path, 60, suite_report)
    with open(tmp_path / RECORDS, "a") as file:
        file.write('{"part": "a", "sta')
    with open(tmp_path / RECORDS, "a") as file:
        file.write("\n")
    again = [python("b", "print(3)"), Part("a", lambda _: ["false"], 1, impossible="not now")]
    records = run_suite(again, tmp_path, 60, suite_report)
    assert [(r["part"], r["result"]) for r in records] == [("a", 1), ("b", 3)]
    assert read_records(tmp_path / RECORDS) == records


def test_no_file_is_too_large_to_fetch(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / TRACE)!r}, 'wb').write(bytes({LARGEST_FILE + 1})); print(1)"
    (tmp_path / "mine.bin").write_bytes(bytes(LARGEST_FILE + 1))
    run_suite([python("trace", code)], tmp_path, 60, suite_report)
    assert not (tmp_path / TRACE).exists()
    assert (tmp_path / "mine.bin").exists()  # not the suite's


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SriFailure):
        run_suite([python("a", "print(1)")], tmp_path / "file" / "out", 60, suite_report)


def record(way: str, seconds: float, status: str = "done") -> dict[str, object]:
    result = {"seconds_per_step": seconds, "machine": "M", "size": "paper"}
    return {"part": f"step {way}", "status": status, "seconds": 1, "error": "", "result": result}


def test_the_fastest_of_those_that_were_measured() -> None:
    records = [record("bf16 eager", 0.02), record("bf16 graph", 0.0108)]
    records.append(record("bf16 compiled", 0.001, "timed out"))
    best = fastest(records)
    assert best is not None and best["part"] == "step bf16 graph"
    assert fastest([]) is None
    assert json.loads(json.dumps(best)) == best


def test_a_report_that_fails_loses_no_record(tmp_path: Path) -> None:
    odd = python("step bf16 eager", "print('{}')")
    records = run_suite([odd, python("b", "print(2)")], tmp_path, 60, suite_report)
    assert [r["status"] for r in records] == ["done", "done"]
    assert RECORDS in (tmp_path / REPORT).read_text()
