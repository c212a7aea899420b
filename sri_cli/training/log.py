"""The log of a run: one JSON object per record in log.jsonl, and TensorBoard if installed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, write_atomic
from sri_cli.run import LOG_NAME
from sri_cli.strict_json import Record, from_json, read_lines, to_json

BOARD_NAME = "tensorboard"
TAIL_BYTES = 2**16  # of a log, more than its last records have


class RunLog:
    """Appends records to log.jsonl, and to TensorBoard's files if it is installed."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOG_NAME
        self.board: Any = None
        self.has_tensorboard = True

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; numbers that are not finite become null. SriFailure on a full disk."""
        line = to_json(record) + "\n"
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
            self._append_to_board(record)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close TensorBoard's file; the next record opens another one."""
        if self.board is not None:
            self.board.close()
            self.board = None

    def drop_after(self, step: int) -> None:
        """Keep the records up to `step`, without lines that are none (torn by a kill)."""
        self.close()
        if self.path.exists():
            records = [record for record in read_log(self.path) if record["step"] <= step]
            lines = "".join(to_json(record) + "\n" for record in records)
            write_atomic(self.path, lines.encode())

    def _append_to_board(self, record: Mapping[str, Any]) -> None:
        if self.board is None and self.has_tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.has_tensorboard = False
                return
            # Events of later steps, from before a roll-back, are ignored.
            self.board = SummaryWriter(self.path.parent / BOARD_NAME, purge_step=record["step"])
        if self.board is not None:
            for key, value in record.items():
                if key != "step" and isinstance(value, int | float):
                    self.board.add_scalar(key, value, record["step"])
            self.board.flush()


def read_log(path: Path) -> list[Record]:
    """The records of a log.jsonl or of a run folder, each with its `step`; see `read_lines`."""
    path = path / LOG_NAME if path.is_dir() else path
    return read_lines(path, lambda record: type(record.get("step")) is int)


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
