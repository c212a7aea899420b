"""Preparation from the mirror; `shapestacks.py` will call `Hdf5Source` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.source import Options
from sri_cli.data.sources.hdf5 import Hdf5Source
from sri_cli.data.sources.published import SETS
from sri_cli.run import Workspace


def prepare_mirror(
    workspace: Workspace,
    name: str,
    options: Options,
    *,
    source: Path | None = None,
    offline: bool = False,
    out: Path | None = None,
    **how: Any,
) -> Prepared:
    """Make the data file of `name` out of the mirror's, or out of a copy, `source`."""
    kind = SETS[name]
    path = source or workspace.data_root / "downloads" / kind.mirror_file
    file = Hdf5Source(kind, path, options, remote=source is None, offline=offline)
    return prepare(file, out or workspace.data_path(name, file.header.size), **how)
