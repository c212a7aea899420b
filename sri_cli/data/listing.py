"""What lies prepared: the table of `sri prepare --list`, and one file in words and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sri_cli.data.store import SPLITS, DataFile
from sri_cli.errors import SriError, did_you_mean
from sri_cli.figures.grids import caption, grid, png_bytes
from sri_cli.workspace import Workspace, is_path, list_folder, write_atomic

SHEET_IMAGES = 48
SHEET_COLUMNS = 8
SHEET_IMAGE_PX = 96  # about: images are enlarged by whole factors


@dataclass(frozen=True)
class Description:
    """A data file in words (lines) and pictures (a PNG)."""

    lines: list[str]
    sheet: Path


def data_table(workspace: Workspace) -> list[str]:
    """A line for each data file: what it holds, or what is wrong with it."""
    return [row(path) for path in list_folder(workspace.data_root) if is_data(path)]


def is_data(path: Path) -> bool:
    """Whether `path` is meant to be a data file, finished or not."""
    return path.name.endswith((".h5", ".h5.partial"))


def row(path: Path) -> str:
    """One line of the table."""
    if path.suffix == ".partial":
        return f"{path}  unfinished; the command that began it goes on with it"
    try:
        data = DataFile(path)
    except SriError as error:
        return f"{path}  unusable: {error.message.removeprefix(f'data file {path} ')}"
    return f"{path}  {data.caption}, {counts_text(data)}, seed {data.attrs['seed']}"


def counts_text(data: DataFile) -> str:
    """16,000 train, 2,560 val, 10,240 test images of 64 px."""
    counts = ", ".join(f"{data.counts[name]:,} {name}" for name in SPLITS)
    return f"{counts} images of {data.size} px"


def describe(workspace: Workspace, name_or_file: str, size: int | None = None) -> list[Description]:
    """Every file of a data set (or one file), checked to the last image, with a contact sheet."""
    return [describe_file(path) for path in find(workspace, name_or_file, size)]


def find(workspace: Workspace, name_or_file: str, size: int | None) -> list[Path]:
    """The files that are meant; SriError when there is none."""
    if is_path(name_or_file):
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


def describe_file(path: Path) -> Description:
    """A file in words; its contact sheet is written beside it."""
    data = DataFile(path)
    if not data.is_intact():
        raise SriError(
            f"data file {path} is damaged: its images are not those that were written",
            f"make it again: sri prepare {data.prepare_words} --force",
        )
    made = ", ".join(f"{key} {value}" for key, value in sorted(data.attrs["parameters"].items()))
    lines = [
        f"file        {path} ({path.stat().st_size / 1e6:,.0f} MB, intact)",
        f"data set    {data.caption}",
        f"images      {counts_text(data)}",
        f"made with   {made}",
        f"masks       {masks_text(data)}",
        f"factors     {', '.join(data.split('train').factors) or 'unknown'}",
        f"discarded   {data.attrs.get('discarded', 0)} scenarios that physics contradicted",
        f"sha-256     {data.attrs['sha256']}",
    ]
    sheet = path.with_suffix(".png")
    write_atomic(sheet, contact_sheet(data))
    return Description(lines, sheet)


def masks_text(data: DataFile) -> str:
    """How many labels the masks use, or that there are none."""
    masks = data.split("val").masks
    if masks is None:
        return "unknown"
    return f"labels 0 to {masks.max()}, {data.background_labels} of them background"


def contact_sheet(data: DataFile) -> bytes:
    """PNG of training images from all over the split."""
    split = data.split("train")
    scale = max(1, SHEET_IMAGE_PX // data.size)
    pictures = grid(split.images[split.pick(SHEET_IMAGES)], SHEET_COLUMNS, scale=scale)
    return png_bytes(caption(pictures, f"{data.caption}, {data.size} px, training images"))
