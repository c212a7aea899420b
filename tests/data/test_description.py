"""What `sri prepare --list` and `show` say of a file, on masks whose answers are known by hand."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data import description
from sri_cli.data.description import blocks, describe_file, deviates, mask_facts, objects_in
from sri_cli.data.listing import data_table
from sri_cli.data.store import SPLITS, DataFile, Split
from sri_cli.data.writer import Header, StoreWriter
from sri_cli.workspace import Workspace

SIZE = 8


def masks_with(*objects: int) -> np.ndarray:
    """Masks [N,8,8] with so many objects each; background 0 above and 1, a wall, below."""
    masks = np.zeros((len(objects), SIZE, SIZE), np.uint8)
    masks[:, 4:] = 1
    for mask, count in zip(masks, objects, strict=True):
        mask[2, 1 : 1 + count] = np.arange(2, 2 + count)
    return masks


def write(path: Path, masks: np.ndarray | None, source: str = "original", **header: object) -> Path:
    """A file whose three splits are the same."""
    number = 4 if masks is None else len(masks)
    images = np.random.default_rng(0).integers(0, 256, (number, SIZE, SIZE, 3)).astype(np.uint8)
    counts = dict.fromkeys(SPLITS, number)
    head = Header("rooms", SIZE, source, 2, {"seed": 3}, "none", counts, **header)  # type: ignore[arg-type]
    names = np.array([b"a", b"a", b"b", b"c"][:number])
    with StoreWriter(path, head) as writer:
        for split in SPLITS:
            writer.append(split, images, masks, {"scenario": names} if number == 4 else {})
        writer.finish()
    return path


def test_objects_are_foreground_labels() -> None:
    assert objects_in(masks_with(0, 1, 3, 1), 2).tolist() == [0, 1, 3, 1]
    assert objects_in(masks_with(0, 1), 1).tolist() == [1, 2]


def test_a_background_label_in_the_midst_is_probably_an_object() -> None:
    masks = masks_with(1, 1, 1)
    masks[1][masks[1] == 1] = 0
    masks[1, 5, 3:5] = 1  # reaches neither side
    masks[2][masks[2] == 1] = 0  # is not seen at all
    assert deviates(masks, 2).tolist() == [False, True, False]
    assert deviates(masks, 1).tolist() == [False] * 3


def test_show_counts_what_the_masks_hold(tmp_path: Path) -> None:
    masks = masks_with(1, 3, 1, 0)
    masks[3, 4:] = 0
    masks[3, 5, 3] = 1
    found = describe_file(write(tmp_path / "rooms-8.h5", masks, skipped=("x.png", "y.png")))
    text = "\n".join(found.lines)
    assert "images      4 train, 4 val, 4 test images of 8 px" in text
    assert "scenes      3 train, 3 val, 3 test" in text
    assert "labels 0 to 4, 2 of them background; 2% of the pixels are foreground" in text
    assert "deviating   3 of 12 images" in text
    assert "left out    2 files: x.png, y.png" in text
    assert (
        "made with   seed 3" in text
        and f"({os.path.getsize(tmp_path / 'rooms-8.h5') / 1e6:,.0f} MB, intact)" in text
    )
    bars = {line.split()[0]: line.split()[-2:] for line in found.lines if "object" in line[:13]}
    assert bars == {"0": ["#" * 20, "25.0%"], "1": ["#" * 40, "50.0%"], "3": ["#" * 20, "25.0%"]}
    first = found.sheet.read_bytes()
    assert describe_file(tmp_path / "rooms-8.h5").sheet.read_bytes() == first


def test_a_simulated_set_has_no_deviations_and_one_without_masks_no_histogram(
    tmp_path: Path,
) -> None:
    simulated = describe_file(write(tmp_path / "a-8.h5", masks_with(1, 1), "simulated"))
    assert not any("deviating" in line for line in simulated.lines)
    assert "scenes      unknown train" in "\n".join(simulated.lines)
    bare = describe_file(write(tmp_path / "b-8.h5", None))
    assert bare.lines[-1] == "masks       unknown" and bare.sheet.exists()


def test_of_very_many_images_some_from_everywhere_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(description, "BLOCK", 10)
    monkeypatch.setattr(description, "MOST_IMAGES", 30)
    assert list(blocks(25)) == [(0, 10), (10, 20), (20, 25)]
    assert list(blocks(95)) == [(0, 10), (40, 50), (80, 90)]


def test_masks_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "BLOCK", 2)
    asked = []
    read = Split.mask_rows
    monkeypatch.setattr(
        Split, "mask_rows", lambda self, *rows: asked.append(rows) or read(self, *rows)
    )
    facts = mask_facts(DataFile(write(tmp_path / "a-8.h5", masks_with(1, 3, 1))))
    assert facts is not None and facts.objects == {1: 6, 3: 3}
    assert asked == [(0, 2), (2, 3)] * 3


def test_the_list_is_aligned_and_tells_what_is_unfinished_or_useless(tmp_path: Path) -> None:
    write(tmp_path / "a-8.h5", masks_with(1, 2))
    write(tmp_path / "longer-name-8.h5", None)
    (tmp_path / "b-8.h5").write_bytes(b"no HDF5")
    (tmp_path / "d-8.h5.partial").write_bytes(b"no HDF5 yet")
    part = write(tmp_path / "c-8.h5", masks_with(1, 2)).rename(tmp_path / "c-8.h5.partial")
    with h5py.File(part, "r+") as file:
        file["train"].attrs["rows"], file["test"].attrs["rows"] = 1, 0
    # The list opens no masks: this file's are damaged, and it is listed all the same.
    with h5py.File(tmp_path / "a-8.h5", "r") as file:
        chunk = file["val/masks"].id.get_chunk_info(0)
    whole = bytearray((tmp_path / "a-8.h5").read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "a-8.h5").write_bytes(whole)

    lines = data_table(Workspace(tmp_path, tmp_path))
    assert lines[0].split() == [
        "FILE",
        "DATA",
        "SET",
        "SOURCE",
        "SIZE",
        "TRAIN",
        "VAL",
        "TEST",
        "MASKS",
        "SEED",
        "MB",
    ]
    cells = [line.split() for line in lines[1:]]
    assert cells[0][:-1] == [
        f"{tmp_path}/a-8.h5",
        *["rooms", "original", "8", "px", "2", "2", "2", "yes", "3"],
    ]
    assert cells[-1][1:-1] == ["rooms", "original", "8", "px", "4", "4", "4", "no", "3"]
    assert len({len(line) for line in (lines[0], lines[1], lines[-1])}) == 1
    assert "b-8.h5  unusable: is not an HDF5 file" in lines[2]
    assert "c-8.h5.partial  unfinished (3 of 6 images); the command that began it" in lines[3]
    assert "d-8.h5.partial  unfinished; the command that began it" in lines[4]
