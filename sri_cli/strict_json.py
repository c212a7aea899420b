"""JSON as this project writes it, and the reader of JSON lines.

JSON has no NaN and no infinities: they are written as null. Files of version 0.1 may hold a bare
NaN, which is read as None. Lines that are torn, or are no record, are skipped with a note.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sri_cli.console import warn

Record = dict[str, Any]


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON; numbers that are not finite become null.

    Paths become text. Keys keep their order.
    """
    return json.dumps(without_nan(value), indent=indent, allow_nan=False, default=str)


def without_nan(value: Any) -> Any:
    """`value` with None for NaN and infinities, also inside mappings, lists and tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return value


def from_json(text: str | bytes) -> Any:
    """The value; ValueError for anything but JSON. NaN, Infinity and 1e999 are read as None."""
    try:
        return without_nan(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_lines(data: bytes, path: Path, is_record: Callable[[Record], bool]) -> list[Record]:
    """The records in JSON lines, in order; the other lines are skipped with one note.

    Args:
        data: The lines.
        path: The file that they were read from, for the note.
        is_record: Whether an object is a record: it has the keys that its readers rely on.
    """
    records, skipped = [], []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = from_json(line)
        except ValueError:
            value = None
        if isinstance(value, dict) and is_record(value):
            records.append(value)
        else:
            skipped.append(number)
    if skipped:
        _note(path, tuple(skipped))
    return records


@cache
def _note(path: Path, skipped: tuple[int, ...]) -> None:
    """Once per process: a command may read a file several times."""
    which = f"line {skipped[0]}" if len(skipped) == 1 else f"{len(skipped)} lines"
    warn(f"Note: {path}: {which} skipped, no record")
