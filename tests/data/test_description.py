"""What `sri prepare --list` and `show` say of a file, on masks whose answers are known by hand."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data import description
from sri_cli.data import mask_facts as facts_of_masks
from sri_cli.data.dataset import SPLITS, DataFile, Split
from sri_cli.data.description import describe_file, histogram_lines
from sri_cli.data.listing import data_table
from sri_cli.data.mask_facts import MaskFacts, blocks, deviating, mask_facts
from sri_cli.data.writer import Header, StoreWriter
from sri_cli.errors import SriError
from sri_cli.run import Workspace

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


def damage(path: Path, name: str) -> None:
    """Overwrite the first chunk of a data set with zeros."""
    with h5py.File(path, "r") as file:
        chunk = file[name].id.get_chunk_info(0)
    whole = bytearray(path.read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(whole)


def test_objects_are_foreground_labels() -> None:
    def objects(background_labels: int, *counts: int) -> dict[int, int]:
        facts = MaskFacts(background_labels)
        facts.add(masks_with(*counts))
        return dict(facts.objects)

    assert objects(2, 0, 1, 3, 1) == {0: 1, 1: 2, 3: 1}
    assert objects(1, 0, 1) == {1: 1, 2: 1}
    assert objects(0, 0, 1) == {2: 1, 3: 1}


def test_a_background_label_in_the_midst_is_probably_an_object() -> None:
    masks = masks_with(1, 1, 1)
    masks[1][masks[1] == 1] = 0
    masks[1, 5, 3:5] = 1  # reaches neither side
    masks[2][masks[2] == 1] = 0  # is not seen at all
    assert np.argwhere(deviating(masks, 2)).tolist() == [[1, 1]]
    assert not deviating(masks, 1).any()
    masks[0, 2, 3] = 2  # with three of them background, label 2 is looked at, too
    assert np.argwhere(deviating(masks, 3)).tolist() == [[0, 2], [1, 1], [1, 2], [2, 2]]


def test_show_counts_what_the_masks_hold(tmp_path: Path) -> None:
    masks = masks_with(1, 3, 1, 0)
    masks[3, 4:] = 0
    masks[3, 5, 3] = 1
    found = describe_file(write(tmp_path / "rooms-8.h5", masks, skipped=("x.png", "y.png")))
    text = "\n".join(found.lines)
    assert "images      4 train, 4 val, 4 test images of 8 px" in text
    assert "scenes      3 train, 3 val, 3 test" in text
    assert "source      original" in text
    assert "labels 0 to 4, 2 of them background; 2.0% of the pixels are foreground" in text
    assert "deviating   3 of 12 images have a background label (1) that" in text
    assert "objects     0 to 3 in an image, 1.2 on average" in text
    assert "left out    2 files: x.png, y.png" in text
    assert (
        "made with   seed 3" in text
        and f"({os.path.getsize(tmp_path / 'rooms-8.h5') / 1e6:,.0f} MB, intact)" in text
    )
    bars = {line.split()[0]: line.split()[-2:] for line in found.lines[-4:-1]}
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
    assert bare.lines[-2] == "masks       unknown" and bare.sheet.exists()


def test_of_very_many_images_some_from_everywhere_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(facts_of_masks, "MOST_IMAGES", 30)
    assert list(blocks(25, 10)) == [(0, 10), (10, 20), (20, 25)]
    assert list(blocks(95, 10)) == [(0, 10), (40, 50), (80, 90)]


def test_many_numbers_of_objects_share_lines() -> None:
    lines = histogram_lines(dict.fromkeys(range(1, 41), 5))
    assert len(lines) == 20
    assert lines[0].split() == ["1-2", "objects", "#" * 40, "5.0%"]
    assert lines[-1].split()[0] == "39-40"


def test_masks_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_of_masks, "MASK_CHUNK_BYTES", 2 * SIZE**2)
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
    damage(tmp_path / "a-8.h5", "val/masks")

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


def test_masks_of_some_splits_are_told_and_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path / "a-8.h5", masks_with(1, 2))
    with h5py.File(path, "r+") as file:
        del file["train/masks"]
    assert data_table(Workspace(tmp_path, tmp_path))[1].split()[8] == "val+test"
    facts = mask_facts(DataFile(path))
    assert facts is not None and facts.images == 4
    assert describe_file(path).sheet.exists()


def test_a_file_without_a_seed_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a-8.h5", None)
    with h5py.File(path, "r+") as file:
        del file.attrs["seed"]
    assert data_table(Workspace(tmp_path, tmp_path))[1].split()[-2] == "-"


def test_looking_at_a_large_file_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a-8.h5", masks_with(1, 2))
    describe_file(path)
    assert capsys.readouterr().err == ""  # a small one is done at once
    monkeypatch.setattr(description, "SHOWN_FROM_BYTES", 1)
    describe_file(path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("check a-8.h5: image 2/6")
    assert any(line.startswith("check a-8.h5: image 6/6") for line in lines)
    assert any(line.startswith("masks of a-8.h5: image 6/6") for line in lines)


def test_damaged_masks_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a-8.h5", masks_with(1, 2))
    damage(path, "val/masks")
    with pytest.raises(SriError, match="is damaged: val cannot be read"):
        describe_file(path)


def test_looking_at_masks_needs_little_memory(tmp_path: Path) -> None:
    """The masks of 20,000 images of 32 px are 20 MB, counted by label 41 MB."""
    path, number = tmp_path / "a-32.h5", 20_000
    head = Header(
        "a", 32, "simulated", 1, {}, "none", dict(zip(SPLITS, (number, 1, 1), strict=True))
    )
    with StoreWriter(path, head) as writer:
        for split, rows in head.counts.items():
            blank = np.zeros((rows, 32, 32), np.uint8)
            writer.append(split, np.zeros((rows, 32, 32, 3), np.uint8), blank, {})
        writer.finish()
    del blank
    data = DataFile(path)
    tracemalloc.start()
    facts = mask_facts(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts is not None and facts.objects == {0: number + 2}
    assert peak < 32e6


def test_a_folder_that_takes_no_sheet_is_described_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "rooms-8.h5", masks_with(1, 2))
    may = os.access
    monkeypatch.setattr(os, "access", lambda place, how: how == os.R_OK and may(place, how))
    found = describe_file(path)
    assert found.sheet is None and any(line.startswith("objects ") for line in found.lines)
    assert found.lines[-1] == f"contact     none: could not write to {tmp_path}: not writable"
