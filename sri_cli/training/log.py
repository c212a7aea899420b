"""The log of a run: one JSON object per record, in log.jsonl and in the trackers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sri_cli.atomic import cannot_write, write_atomic
from sri_cli.console import warn
from sri_cli.errors import SriError, SriFailure, pip_install
from sri_cli.run import LOG_NAME
from sri_cli.strict_json import Record, from_json, parse_lines, to_json, without_nan

if TYPE_CHECKING:  # `sri runs ls` reads logs without pydantic
    from sri_cli.config.schema import Recipe
    from sri_cli.training.trackers import Tracker

RETRY_SEC = 300.0  # after which a tracker that failed is tried again, at the earliest
RETRY_RATIO = 20  # a failed attempt costs at most a twentieth of the time
TAIL_BYTES = 2**16  # of a log, more than its last records have


class RunLog:
    """Appends records to log.jsonl and to the trackers that follow it."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOG_NAME
        self.trackers: list[Tracker] = []

    def follow(self, names: Sequence[str], recipe: Recipe, step: int) -> None:
        """Open the trackers of these names for a run at `step`, and send what they lack.

        Raises:
            SriError: the library is broken.
            SriFailure: the disk refuses, or a tracker that holds nothing of the run yet does:
                before the first step nothing is lost. One that does is tried again later.
        """
        from sri_cli.training.trackers import TRACKERS

        for name in names:
            tracker = TRACKERS[name](self.path.parent, recipe, step)
            self.trackers.append(tracker)
            self._update(tracker, None, may_fail=not tracker.is_new)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; numbers that are not finite become null. SriFailure on a full disk."""
        clean = without_nan(record)
        try:
            with open(self.path, "ab") as file:
                file.write(f"{to_json(clean)}\n".encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        for tracker in self.trackers:
            self._update(tracker, clean)

    def drop_after(self, step: int) -> None:
        """Keep the records up to `step`, without lines that are none (torn by a kill)."""
        if self.path.exists():
            records = [record for record in read_log(self.path) if record["step"] <= step]
            lines = "".join(to_json(record) + "\n" for record in records)
            write_atomic(self.path, lines.encode())
        for tracker in self.trackers:
            if tracker.is_open:
                tracker.rewind(step)
            elif tracker.is_local:  # the others keep what they have received
                tracker.step = min(tracker.step, step)

    def close(self, finished: bool = False, checkpoint: Path | None = None) -> None:
        """Close the trackers, with the newest checkpoint and whether the training is complete."""
        while self.trackers:
            tracker = self.trackers.pop()
            failed = False
            if finished and tracker.retry_at:  # what it missed
                tracker.retry_at = 0.0
                try:
                    self._update(tracker, None, may_fail=False)
                except SriError as error:
                    warn(f"Note: {error.message}; the same `sri train` command sends the rest")
                    failed = True
            if tracker.is_open:
                try:
                    tracker.close("FINISHED" if finished else "KILLED", checkpoint)
                except Exception as error:  # the run itself is complete
                    if not failed:
                        warn(f"Note: {tracker.name}: {one_line(error)}")

    def _update(self, tracker: Tracker, record: Record | None, may_fail: bool = True) -> None:
        """Send `record`, or all that is missing where some may be (None, or after a failure)."""
        began = time.monotonic()
        if began < tracker.retry_at:
            return
        try:
            if not tracker.is_open:
                tracker.open()
                tracker.is_open, record = True, None
            missing = read_log(self.path) if record is None or tracker.retry_at else [record]
            for one in missing:
                if one["step"] > tracker.step:
                    tracker.write(one)
                    began = time.monotonic()  # what was sent has not failed
            tracker.retry_at = 0.0
        except SriError:
            raise
        except ImportError as error:
            fix = pip_install("--upgrade", f"sri-cli[{tracker.name}]")
            raise SriError(f"--tracker {tracker.name}: {one_line(error)}", fix) from error
        except Exception as error:  # libraries raise whatever they like
            if tracker.is_local and isinstance(error, OSError):
                raise cannot_write(self.path.parent, error) from error
            verb = "opened" if tracker.is_local else "reached"
            reason = f"{tracker.name} cannot be {verb}: {one_line(error)}"
            if not may_fail:
                raise SriFailure(reason, tracker.hint) from error
            warn(f"Note: {reason}; training goes on, and the records follow when it answers")
            now = time.monotonic()
            tracker.retry_at = now + max(RETRY_SEC, RETRY_RATIO * (now - began))


def one_line(error: BaseException) -> str:
    """The start of an error's text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160]} ..."


def read_log(path: Path) -> list[Record]:
    """The records of a log.jsonl or of a run folder, each with its `step`; see `parse_lines`.

    Empty without a file: an imported run, or one that has not begun.
    """
    path = path / LOG_NAME if path.is_dir() else path
    try:
        return parse_lines(path.read_bytes(), path, lambda record: type(record.get("step")) is int)
    except (FileNotFoundError, NotADirectoryError):
        return []


def last_record(path: Path) -> Record:
    """The last record of a log.jsonl, from its end alone; empty without one."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):  # the last one may be torn by a kill
        with suppress(ValueError):
            record = from_json(line)
            if isinstance(record, dict) and type(record.get("step")) is int:
                return record
    return {}


def record_at(path: Path, step: int) -> Record:
    """The last record of a log.jsonl up to a step; empty without one."""
    return next((one for one in reversed(read_log(path)) if one["step"] <= step), {})


def train_seconds(records: Iterable[Record], batch: int, last: float = math.inf) -> float:
    """How long the steps up to `last` took, all commands together, by the rate of each record."""
    seconds, before = 0.0, 0
    for record in records:
        step, rate = min(record["step"], last), record.get("images_per_second")
        seconds += (step - before) * batch / rate if rate else 0.0
        before = step
    return seconds


def error_and_kl(record: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Reconstruction error per pixel and channel and total KL of a record, both in nats."""
    kls = [v for k, v in record.items() if k.startswith("kl/") and v is not None]
    return record.get("nll_per_element"), sum(kls) if kls else None


def summary(record: Mapping[str, Any]) -> str:
    """Error, KL and speed of a record, for the progress line."""
    error, kl = error_and_kl(record)
    parts = [] if error is None else [f"error {error:.4f}"]
    parts += [] if kl is None else [f"KL {kl:.1f}"]
    return "  ".join([*parts, f"{record['images_per_second']:.1f} images/s"])
