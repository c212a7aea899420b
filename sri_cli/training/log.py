"""The run's log: one JSON object per logging step in log.jsonl, and TensorBoard's if installed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, write_atomic

LOG_NAME = "log.jsonl"
BOARD_NAME = "tensorboard"


class RunLog:
    """Append records; forget those after a step when a run resumes there."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOG_NAME
        self.board: Any = None
        self.board_missing = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line; numbers that are not finite become null. SriFailure on a full disk."""
        line = json.dumps({key: finite_or_none(value) for key, value in record.items()}) + "\n"
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            self._show(record)
        except OSError as error:
            raise cannot_write(self.path.parent / BOARD_NAME, error) from error

    def close(self) -> None:
        """Close TensorBoard's file; the next record opens another, which starts at its step."""
        if self.board is not None:
            self.board.close()
            self.board = None

    def _show(self, record: Mapping[str, Any]) -> None:
        """The numbers as TensorBoard scalars, with the extra `tensorboard` installed."""
        if self.board is None and not self.board_missing:
            self.board = open_board(self.path.parent / BOARD_NAME, record["step"])
            self.board_missing = self.board is None
        if self.board is None:
            return
        for key, value in record.items():
            if key != "step" and isinstance(value, int | float):
                self.board.add_scalar(key, value, record["step"])
        self.board.flush()

    def drop_after(self, step: int) -> None:
        """Keep the records up to `step`; also drops a line torn by a kill."""
        self.close()
        if not self.path.exists():
            return
        kept = [record for record in read_log(self.path) if record["step"] <= step]
        lines = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomic(self.path, lines.encode())


def open_board(folder: Path, step: int) -> Any:
    """A SummaryWriter that forgets events from `step` on, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=step)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl (or of a run folder), a torn last line left out."""
    path = path / LOG_NAME if path.is_dir() else path
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # only the last line can be torn: lines are appended whole
    return records


def summary(record: Mapping[str, Any]) -> str:
    """The most telling numbers of a record, for the progress line."""
    error = record.get("nll_per_element")
    parts = [] if error is None else [f"error {error:.4f}"]
    kls = [v for k, v in record.items() if k.startswith("kl/") and v is not None]
    parts += [f"KL {sum(kls):.1f}"] if kls else []
    return "  ".join([*parts, f"{record['images_per_second']:.1f} images/s"])


def finite_or_none(value: Any) -> Any:
    """NaN and infinities have no place in JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
