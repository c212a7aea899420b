"""The data of a report: each file once, how it was made, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sri_cli.data.dataset import DataFile
from sri_cli.data.description import picked_masks
from sri_cli.data.listing import counts_text, masks_cell, parameters_text
from sri_cli.errors import SriError
from sri_cli.plotting.contact import at_sheet_size, labels_at_sheet_size, overlay
from sri_cli.plotting.grid import Picture, below, grid
from sri_cli.plotting.report import Figure, Section
from sri_cli.plotting.report_runs import Subject

SHEET_IMAGES, SHEET_COLUMNS = 12, 6


def data_section(found: Sequence[Subject]) -> Section:
    """Every data file once, with a contact sheet; or why it is not there."""
    parts: dict[str, Section] = {}
    for one in found:
        if isinstance(one.data, SriError):
            notes = [one.data.hint] if one.data.hint else []
            words = f"{one.name}: {one.data.message}."
            parts.setdefault(one.data.message, Section(one.trained.caption, words, notes=notes))
        else:
            parts.setdefault(str(one.data.attrs["sha256"]), _data(one.data))
    if len(parts) > 1:
        return Section("Data", parts=list(parts.values()))
    (only,) = parts.values()
    return Section("Data", only.words, only.facts, only.figures, notes=only.notes)


def _data(data: DataFile) -> Section:
    facts = [
        ("data set", data.caption),
        ("file", str(data.path)),
        ("images", counts_text(data)),
        ("source", data.source),
        ("seed", str(data.attrs.get("seed", "none"))),
        ("made with", parameters_text(data.attrs["parameters"])),
        ("masks", masks_cell(data)),
        ("images (SHA-256)", str(data.attrs["sha256"])[:16]),
    ]
    try:
        return Section(data.caption, facts=facts, figures=[_sheet(data)])
    except SriError as error:  # damaged beyond its header
        notes = [error.hint] if error.hint else []
        return Section(data.caption, f"{error.message}.", facts, notes=notes)


def _sheet(data: DataFile) -> Figure:
    """Training images from all over the split, and the same with their masks."""
    split = data.split("train")
    picked = split.pick(SHEET_IMAGES)
    images = at_sheet_size(split.images[picked])
    masks = picked_masks(split, picked)
    words = f"{len(picked)} training images of {data.caption}"
    if masks is None:
        return Figure(grid(images, SHEET_COLUMNS), f"{words}.", f"A contact sheet of {words}")
    tinted = overlay(images, labels_at_sheet_size(masks), data.background_labels)
    told = f"{words}, each above the same with its masks"
    return Figure(_rows_above(images, tinted), f"{told}.", f"A contact sheet of {told}")


def _rows_above(upper: Picture, lower: Picture) -> Picture:
    """Rows of `upper` [N,H,W,3], each above the same of `lower`."""
    rows = [
        grid(np.concatenate([upper[i : i + SHEET_COLUMNS], lower[i : i + SHEET_COLUMNS]]), step)
        for i in range(0, len(upper), SHEET_COLUMNS)
        for step in [len(upper[i : i + SHEET_COLUMNS])]
    ]
    return below(rows, gap=10)
