"""A study's folder: one writer at a time, and what its runs were made by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sri_cli.atomic import ensure_folder, lock_file, write_atomic
from sri_cli.config.schema import flatten
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.studies.file import Study, as_now
from sri_cli.studies.summary import data_of

KEPT = "study.json"
LONGEST = 60  # signs of a value that is told


def check_unchanged(study: Study) -> None:
    """SriError where the runs that are there were made by another protocol."""
    path = study.folder / KEPT
    if not path.is_file():
        return
    kept = json.loads(path.read_text("utf-8"))
    if kept["sha256"] == study.digest():
        return
    changed = "; ".join(changes(as_now(kept["asked"]), study.asked()))
    if not changed:
        return
    raise SriError(
        f"the protocol has changed since the runs of {study.folder}: {changed}",
        f"undo the change, or give the study another name in {study.path}",
    )


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Keys that differ, with their values where these are short."""
    was, now = flatten(old), flatten(new)
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            words = f"{was.get(key)} -> {now.get(key)}"
            yield f"{key} {words}" if len(words) <= LONGEST else key


def keep(study: Study, data: DataFile) -> None:
    """Write down what the runs are made by, before the first; SriError for other images."""
    path = study.folder / KEPT
    if path.is_file():
        was = json.loads(path.read_text("utf-8"))["data"]["sha256"]
        if was != data.attrs["sha256"]:
            raise SriError(
                f"the runs of {study.folder} are of other images than {data.path} holds now",
                f"bring that file back, or move the runs away: mv {study.folder} ELSEWHERE",
            )
        return
    kept = {"sha256": study.digest(), "data": data_of(study, data), "asked": study.asked()}
    write_atomic(path, (json.dumps(kept, indent=1) + "\n").encode())
    write_atomic(study.folder / "protocol.yaml", study.path.read_bytes())


@contextmanager
def held(study: Study) -> Iterator[None]:
    """One study at a time writes to its folder; SriError when another does."""
    path = ensure_folder(study.folder) / f"study-{study.protocol.name}.lock"
    descriptor = lock_file(path, "running", "wait for it, or name another --runs-root")
    try:
        yield
    finally:
        os.close(descriptor)
