"""What lies prepared: the table of `sri prepare --list`, and which files a name means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from sri_cli.atomic import list_folder
from sri_cli.data.dataset import SPLITS, DataFile, as_python
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import Workspace, is_path

HEADER = ("FILE", "DATA SET", "SOURCE", "SIZE", "TRAIN", "VAL", "TEST", "MASKS", "SEED", "MB")


def data_table(workspace: Workspace) -> list[str]:
    """A header and a line for each data file: what it holds, or what is wrong with it.

    Nothing but headers is read, so that hundreds of GB are listed at once.
    """
    paths = [path for path in list_folder(workspace.data_root) if is_data(path)]
    rows = {path: row(path) for path in paths}
    whole = [HEADER, *(cells for cells in rows.values() if isinstance(cells, tuple))]
    widths = [max(len(cells[column]) for cells in whole) for column in range(len(HEADER))]
    lines = [
        aligned(cells, widths) if isinstance(cells, tuple) else f"{path}  {cells}"
        for path, cells in rows.items()
    ]
    return [aligned(HEADER, widths), *lines] if len(whole) > 1 else lines


def aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    """One line of the table; numbers stand to the right."""
    names, numbers = 3, range(3, len(cells))
    left = [cells[i].ljust(widths[i]) for i in range(names)]
    return "  ".join([*left, *(cells[i].rjust(widths[i]) for i in numbers)])


def is_data(path: Path) -> bool:
    """Whether `path` is meant to be a data file, finished or not."""
    return path.name.endswith((".h5", ".h5.partial"))


def row(path: Path) -> tuple[str, ...] | str:
    """The cells of a data file, or what is wrong with it."""
    if path.suffix == ".partial":
        return f"unfinished{progress_of(path)}; the command that began it goes on with it"
    try:
        data = DataFile(path)
    except SriError as error:
        return f"unusable: {error.message.removeprefix(f'data file {path} ')}"
    counts = [f"{data.counts[name]:,}" for name in SPLITS]
    seed = str(data.attrs.get("seed", "-"))
    megabytes = f"{path.stat().st_size / 1e6:,.1f}"
    return (
        str(path),
        data.name,
        data.source,
        f"{data.size} px",
        *counts,
        masks_cell(data),
        seed,
        megabytes,
    )


def masks_cell(data: DataFile) -> str:
    """yes or no, or the splits that have masks."""
    names = [name for name in SPLITS if data.split(name).has_masks]
    return {0: "no", len(SPLITS): "yes"}.get(len(names), "+".join(names))


def progress_of(path: Path) -> str:
    """` (1,200 of 28,800 images)` of an unfinished file; nothing when it cannot be told."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            done = sum(int(file[name].attrs["rows"]) for name in SPLITS)
            total = sum(json.loads(str(as_python(file.attrs["counts"]))))
    except (OSError, LookupError, TypeError, ValueError, RuntimeError):
        # Another program's, or a writer is in the midst of it.
        return ""
    return f" ({done:,} of {total:,} images)"


def counts_text(data: DataFile) -> str:
    """16,000 train, 2,560 val, 10,240 test images of 64 px."""
    counts = ", ".join(f"{data.counts[name]:,} {name}" for name in SPLITS)
    return f"{counts} images of {data.size} px"


def find(workspace: Workspace, name_or_file: str, size: int | None) -> list[Path]:
    """The files that are meant; SriError when there is none."""
    if is_path(name_or_file):
        if size is not None:
            raise SriError(
                f"--size {size} chooses among the files of a data set; {name_or_file} is one file",
                "leave it out, or name a data set",
            )
        return [workspace.find_data(name_or_file, 0)]
    sizes: dict[str, list[Path]] = {}
    for path in list_folder(workspace.data_root):
        name, _, px = path.stem.rpartition("-")
        if path.suffix == ".h5" and px.isdigit():
            sizes.setdefault(name, []).append(path)
    if name_or_file not in sizes:
        near = did_you_mean(name_or_file, sizes)
        there = f"prepared: {', '.join(sorted(sizes))}" if sizes else "make one: sri prepare NAME"
        raise SriError(f"no data file of {name_or_file} in {workspace.data_root}{near}", there)
    if size is None:
        return sizes[name_or_file]
    return [workspace.find_data(name_or_file, size)]


def parameters_text(parameters: dict[str, Any]) -> str:
    """preset original, seed 0, test 640, ..."""
    return ", ".join(f"{key} {value}" for key, value in sorted(parameters.items()))
