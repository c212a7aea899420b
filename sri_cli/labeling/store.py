"""The answers of a session on disk: JSON lines, only ever added to, each safe before the next.

A line that a crash cut off is passed over in reading and taken away before the next is added.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sri_cli.atomic import cannot_write, ensure_folder, sync_folder
from sri_cli.errors import SriError

SCHEMA = 1
Record = dict[str, Any]


class AnswerLog:
    """One file for all raters of a session; any number of threads and processes may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All whole records, oldest first. SriError for those of a newer sri."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SriError(f"{self.path} cannot be read: {error.strerror}") from error
        return self._parsed(data)

    def append(self, make: Callable[[list[Record]], Record | None]) -> bool:
        """Add the record that `make` gives when it sees all before it; None: nothing, and False.

        Nobody else writes in between. On return the record is on the disk; SriFailure when the
        machine refuses, and the file is then as it was.
        """
        try:
            with self._locked() as file:
                before = _whole_lines(file)
                record = make(self._parsed(before))
                if record is None:
                    return False
                line = json.dumps({"schema": SCHEMA, **record}) + "\n"
                _write(file, len(before), line.encode())
                return True
        except OSError as error:
            raise cannot_write(self.path, error) from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """A descriptor that no other has locked, whether of this process or of another."""
        is_new = not self.path.exists()
        ensure_folder(self.path.parent)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                sync_folder(self.path.parent)
            yield file
        finally:
            os.close(file)

    def _parsed(self, data: bytes) -> list[Record]:
        records = []
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # what a power cut left; the lines around it are whole
            if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
                continue
            check_schema(self.path, record["schema"])
            records.append(record)
        return records


def check_schema(path: Path, schema: int) -> None:
    """SriError for a file of a newer sri."""
    if schema > SCHEMA:
        raise SriError(
            f"{path} was written by a newer sri (schema version {schema}, this one reads {SCHEMA})",
            "pip install --upgrade sri-cli",
        )


def _whole_lines(file: int) -> bytes:
    """What the file holds, a line that was cut off taken away: no other is glued to it."""
    size = os.fstat(file).st_size
    data = b"".join(_pieces(file, size))
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < size:
        os.ftruncate(file, len(whole))
    return whole


def _pieces(file: int, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        piece = os.pread(file, size - at, at)
        if not piece:
            return
        at += len(piece)
        yield piece


def _write(file: int, at: int, line: bytes) -> None:
    """All of the line behind the first `at` bytes and on the disk, or nothing of it."""
    try:
        done = 0
        while done < len(line):
            done += os.pwrite(file, line[done:], at + done)
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, at)
        raise
