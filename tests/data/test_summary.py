"""What `sri prepare --list` and `show` say of a file, on masks whose answers are known by hand."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data import summary
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.summary import (
    MaskFacts,
    check_intact,
    describe,
    deviating,
    histogram_lines,
    list_files,
    mask_facts,
    mask_parts,
)
from sri_cli.data.writer import DataFileWriter, Header
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
    with DataFileWriter(path, head) as writer:
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


def text_of(path: Path) -> str:
    data = DataFile(path)
    check_intact(data)
    return describe(data, mask_facts(data))


def test_show_counts_what_the_masks_hold(tmp_path: Path) -> None:
    masks = masks_with(1, 3, 1, 0)
    masks[3, 4:] = 0
    masks[3, 5, 3] = 1
    text = text_of(write(tmp_path / "rooms-8.h5", masks, skipped=("x.png", "y.png")))
    lines = {line[:10].strip(): line[12:] for line in text.splitlines()}
    assert lines["images"] == "4 train, 4 val, 4 test images of 8 px"
    assert lines["scenes"] == "3 train, 3 val, 3 test"
    assert lines["source"] == "original" and lines["made with"] == "seed 3"
    assert lines["masks"].startswith("labels 0 to 4, 2 of them background; 2.0% ")
    assert lines["deviating"].startswith("3 of 12 images") and "(1)" in lines["deviating"]
    assert lines["objects"] == "0 to 3 in an image, 1.2 on average"
    assert lines["left out"].endswith("x.png, y.png")
    bars = {line.split()[0]: line.split()[-2:] for line in text.splitlines()[-3:]}
    assert bars == {"0": ["#" * 20, "25.0%"], "1": ["#" * 40, "50.0%"], "3": ["#" * 20, "25.0%"]}


def test_a_simulated_set_has_no_deviations_and_one_without_masks_no_histogram(
    tmp_path: Path,
) -> None:
    simulated = text_of(write(tmp_path / "a-8.h5", masks_with(1, 1), "simulated"))
    assert "deviating" not in simulated and "unknown train" in simulated
    assert text_of(write(tmp_path / "b-8.h5", None)).splitlines()[-1].split() == [
        "masks",
        "unknown",
    ]


def test_of_very_many_images_some_from_everywhere_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "MASK_CHUNK_BYTES", 2 * SIZE**2)
    data = DataFile(write(tmp_path / "a-8.h5", masks_with(*[1, 3, 1] * 3)))
    parts = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert [part[1:] for part in mask_parts(data)] == parts * 3
    facts = mask_facts(data)
    assert facts is not None and facts.objects == {1: 18, 3: 9}
    monkeypatch.setattr(summary, "MAX_MASKS", 4)
    assert [part[1:] for part in mask_parts(data)] == [(0, 2), (6, 8)] * 3


def test_many_numbers_of_objects_share_lines() -> None:
    lines = [text for _, text in histogram_lines(dict.fromkeys(range(1, 41), 5))]
    assert len(lines) == 20
    assert lines[0].split() == ["1-2", "objects", "#" * 40, "5.0%"]
    assert lines[-1].split()[0] == "39-40"


def test_the_list_has_a_row_for_each_file_and_says_what_is_wrong(tmp_path: Path) -> None:
    write(tmp_path / "a-8.h5", masks_with(1, 2))
    write(tmp_path / "longer-name-8.h5", None)
    (tmp_path / "b-8.h5").write_bytes(b"no HDF5")
    (tmp_path / "d-8.h5.partial").write_bytes(b"no HDF5 yet")
    part = write(tmp_path / "c-8.h5", masks_with(1, 2)).rename(tmp_path / "c-8.h5.partial")
    with h5py.File(part, "r+") as file:
        file["train"].attrs["rows"], file["test"].attrs["rows"] = 1, 0
    some = write(tmp_path / "some-8.h5", masks_with(1, 2))
    with h5py.File(some, "r+") as file:
        del file["train/masks"], file.attrs["seed"]
    # The list reads no masks: this file's are damaged, and it is listed all the same.
    damage(tmp_path / "a-8.h5", "val/masks")

    lines = list_files(Workspace(tmp_path, tmp_path)).splitlines()
    cells = {line.split()[0]: line.split()[1:-1] for line in lines}
    assert lines[0].split()[0] == "FILE" and len(lines) == 7
    row = ["rooms", "original", "8", "px"]
    assert cells[f"{tmp_path}/a-8.h5"] == [*row, "2", "2", "2", "yes", "3"]
    assert cells[f"{tmp_path}/longer-name-8.h5"] == [*row, "4", "4", "4", "no", "3"]
    assert cells[f"{tmp_path}/some-8.h5"] == [*row, "2", "2", "2", "val+test", "-"]
    assert "b-8.h5: unusable" in lines[4] and "HDF5" in lines[4]
    assert "c-8.h5.partial: unfinished (3 of 6 images)" in lines[5]
    assert "d-8.h5.partial: unfinished" in lines[6]


def test_damaged_masks_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a-8.h5", masks_with(1, 2))
    damage(path, "val/masks")
    with pytest.raises(SriError, match="val"):
        text_of(path)
