"""`sri bench gpu-suite`: parts in processes of their own; what one does harms no other.

Every part has a time limit and the whole has one. What a part came to is a line of `suite.jsonl`,
written when it ends, and `suite.md` is the report of all lines so far: a second run in the same
folder replaces what it measures again and keeps the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sri_cli.atomic import cannot_write, ensure_folder, write_atomic

Status = Literal["done", "failed", "timed out", "skipped"]
Notify = Callable[[str], None]
Report = Callable[[Sequence[dict[str, Any]]], str]
RECORDS, REPORT, TRACE = "suite.jsonl", "suite.md", "trace.json.gz"
LARGEST_FILE = 16 * 2**20  # bytes: what is fetched from a far machine must not be larger
TAIL = 2000  # characters of what a failed part said last
SHORTEST = 5.0  # seconds; with less left a part is not begun


@dataclass(frozen=True)
class Part:
    """A command whose last line of output is JSON (or that just ends well, if not `json`).

    `words(seconds)` makes it of the seconds that are its fair share; `limit` is when it is killed.
    `impossible` says why it cannot be run here, if so.
    """

    name: str
    words: Callable[[float], list[str]]
    limit: float
    json: bool = True
    impossible: str | None = None


def run_suite(
    parts: Sequence[Part],
    out: Path,
    seconds: float,
    report: Report,
    notify: Notify = lambda line: None,
) -> list[dict[str, Any]]:
    """Run the parts one after the other within `seconds`; the records of all, older ones too.

    SriFailure where `out` cannot be written to.
    """
    ensure_folder(out)
    ends = time.monotonic() + seconds
    for number, part in enumerate(parts):
        left = ends - time.monotonic()
        record = run_part(part, left, left / (len(parts) - number))
        append_record(out / RECORDS, record)
        drop_if_large(out / TRACE)
        write_atomic(out / REPORT, written(report, read_records(out / RECORDS)).encode())
        notify(f"{part.name}: {record['status']}, {record['seconds']:.0f} s {record['error']}")
    return read_records(out / RECORDS)


def written(report: Report, records: Sequence[dict[str, Any]]) -> str:
    """The report; where a result is not as it should be, that: the parts to come matter more."""
    try:
        return report(records)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return f"no report could be made of {RECORDS}: {error!r}\n"


def run_part(part: Part, left: float, share: float) -> dict[str, Any]:
    """Its record: status, seconds, command, result (None unless done), error."""
    began = time.monotonic()
    words = part.words(share)
    status: Status
    result: Any = None
    if part.impossible is not None:
        status, error = "skipped", part.impossible
    elif left < SHORTEST:
        status, error = "skipped", "no time was left"
    else:
        status, result, error = outcome_of(words, min(part.limit, left), part.json)
    return {
        "part": part.name,
        "status": status,
        "seconds": time.monotonic() - began,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": words,
        "result": result,
        "error": error,
    }


def outcome_of(words: Sequence[str], limit: float, wants_json: bool) -> tuple[Status, Any, str]:
    """Run a command for at most `limit` seconds: what became of it, its result, its last words."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that it can be ended with all that it started
    )
    try:
        shown, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        end_group(process)
        shown, said = process.communicate()
        return "timed out", None, f"killed after {limit:.0f} s; {last_words(shown, said)}"
    finally:
        end_group(process)  # what it left behind, and itself when we are interrupted
    if process.returncode != 0:
        return "failed", None, f"exit code {process.returncode}; {last_words(shown, said)}"
    lines = shown.strip().splitlines() or [""]
    if not wants_json:
        return "done", {"said": lines[-1]}, ""
    try:
        return "done", json.loads(lines[-1]), ""
    except ValueError:
        return "failed", None, f"no JSON: {last_words(shown)}"


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children; nothing where all are gone."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def last_words(*texts: str) -> str:
    """The end of what it said, in one line."""
    return " ".join(word for text in texts for word in text.split())[-TAIL:]


def append_record(path: Path, record: dict[str, Any]) -> None:
    """One line more, on the disk before the next part begins."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """The newest record of every part, in the order in which parts were first run.

    A line that was cut by a crash counts as not there. What was skipped hides nothing older.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["status"] != "skipped" or record["part"] not in found:
            found[record["part"]] = record
    return list(found.values())


def drop_if_large(path: Path) -> None:
    """Remove a file that is over the limit."""
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        path.unlink()
