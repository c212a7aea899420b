"""A data file is complete or refused; `sri prepare --list` and `show` describe it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from sri_cli.config.load import load_recipe
from sri_cli.config.schema import MOST_SLOTS
from sri_cli.data import summary
from sri_cli.data.dataset import SPLITS, DataFile, prepare_arguments
from sri_cli.data.summary import (
    describe,
    list_files,
    mask_facts,
    mask_parts,
    mean_image_error,
    suggest_slots,
    suggestions,
)
from sri_cli.data.writer import DataFileWriter
from sri_cli.errors import SriError
from sri_cli.models.base import Scene
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.run import Workspace
from tests import small_cli
from tests.foreign_hdf5 import write_flat, write_groups
from tests.small_data import header, random_scenario, write_data, write_small_data, write_splits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "towers-16.h5", images=40, size=16)


def refusal(path: Path) -> SriError:
    with pytest.raises(SriError) as caught:
        DataFile(path)
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"data file {path} ")
    assert caught.value.hint is not None and "\n" not in caught.value.message
    return caught.value


def change(path: Path, how: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        how(file)


def test_what_was_written_is_read(path: Path) -> None:
    data = DataFile(path)
    assert (data.name, data.size, data.source) == ("towers", 16, "simulated")
    assert data.caption == "towers, simulated"
    assert data.counts == {"train": 40, "val": 40, "test": 40}
    assert data.attrs["parameters"] == {"seed": 0}
    for number, name in enumerate(SPLITS):
        scene, split = random_scenario(40, 16, 0, number), data.split(name)
        assert isinstance(split.images, np.memmap)
        assert (split.images == scene.images).all()
        assert (split.masks == scene.masks).all()
        assert split.factors.keys() == scene.factors.keys()
        assert all((split.factors[key] == scene.factors[key]).all() for key in scene.factors)
    assert data.is_intact()
    with h5py.File(path) as file:
        images, masks = file["train/images"], file["train/masks"]
        assert images.chunks is None and images.compression is None
        assert masks.compression == "gzip" and masks.chunks == (40, 16, 16)


def test_a_pick_comes_from_all_over_the_split(path: Path) -> None:
    split = DataFile(path).split("train")
    picked = split.pick(8)
    assert len(set(picked)) == 8 and picked.min() < 20 <= picked.max()
    assert (picked == split.pick(8)).all() and len(split.pick(1000)) == 40


def test_other_sizes_and_splits_are_refused(path: Path) -> None:
    DataFile(path).check_size(16)
    with pytest.raises(SriError, match="16 px, .* 64 px"):
        DataFile(path).check_size(64)
    with pytest.raises(SriError, match="test"):
        DataFile(path).split("tset")


def test_missing_and_not_hdf5(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "shapestacks-64.h5")
    assert missing.hint.endswith("sri prepare shapestacks --size 64")
    other = tmp_path / "towers-16.h5"
    for content in (b"", b"no data"):
        other.write_bytes(content)
        assert "HDF5" in refusal(other).message
    refusal(tmp_path)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.6, 0.99])
def test_truncated(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))
    assert "--force" in (refusal(path).hint or "")


def drop(name: str) -> Callable[[h5py.File], None]:
    def how(file: h5py.File) -> None:
        del file[name]

    return how


def replace_images(shape: tuple[int, ...], dtype: str = "uint8", **how: object) -> Callable:
    def change_file(file: h5py.File) -> None:
        del file["val/images"]
        file["val"].create_dataset("images", shape, dtype, **how)

    return change_file


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (lambda file: file.attrs.pop("schema"), "no schema"),
        (lambda file: file.attrs.update(parameters="{"), "attributes"),
        (lambda file: file.attrs.update(schema=7), "7"),
        (lambda file: file.attrs.update(complete=False), "never finished"),
        (lambda file: file.attrs.pop("sha256"), "never finished"),
        (lambda file: file.attrs.pop("size"), "never finished"),
        (lambda file: file.attrs.update(size="x"), "attributes"),
        (lambda file: file.attrs.update(void_label="x"), "attributes"),
        (drop("test/images"), "test images"),
        (replace_images((0, 16, 16, 3)), "val images"),
        (replace_images((4, 16, 16, 3), "float32"), "val images of float32"),
        (replace_images((40, 16, 16, 3), chunks=True), "val images .* not contiguous"),
        (replace_images((40, 16, 16, 3)), "val images .* not written"),
        (replace_images((4, 16, 16, 3)), r"val masks of uint8 \[40, 16, 16\]"),
    ],
)
def test_other_schemas_and_empty_groups(path: Path, how: Callable, named: str) -> None:
    change(path, how)
    assert re.search(named, refusal(path).message)


def test_a_file_may_hold_a_test_split_alone(tmp_path: Path) -> None:
    scene = random_scenario(5, 16, 0, 0)
    splits = {"test": (scene.images, scene.masks, scene.factors)}
    data = DataFile(path := write_splits(tmp_path / "six-16.h5", "six", splits))
    assert (
        data.counts == {"train": 0, "val": 0, "test": 5}
        and data.splits == ["test"]
        and data.is_intact()
    )
    assert np.array_equal(data.split("test").images, scene.images)
    for split in ("train", "val"):
        with pytest.raises(SriError, match="5 test"):
            data.split(split)
    assert "5 test images" in text_of(path) and "yes" in list_files(Workspace(tmp_path, tmp_path))
    change(path, drop("test/images"))
    assert "test" in refusal(path).message


def test_an_unfinished_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "towers-16.h5"
    scene = random_scenario(8, 16, 0, 0)
    with DataFileWriter(path, header("towers", 16, dict.fromkeys(SPLITS, 8))) as writer:
        writer.append("train", scene.images, scene.masks, scene.factors)
    partial = tmp_path / "towers-16.h5.partial"
    assert list(tmp_path.iterdir()) == [partial]
    assert "unfinished" in refusal(partial).message
    shutil.copy(partial, path)
    refusal(path)


FEW = "--val-scenes 3 --test-scenes 2"
# How a file was made and, in the next line, how the hint makes it again: from DIR or FILE.
MADE = f"""
shapestacks --scenes 3 {FEW} --views 2 --size 16 --seed 7
shapestacks --size 16 --scenes 3 {FEW} --views 2 --seed 7
shapestacks --preset demo --scenes 2 {FEW} --out towers.h5
shapestacks --preset demo --size 32 --scenes 2 {FEW} --views 4 --out towers.h5
shapestacks --scenes 2 {FEW} --views 1 --seed 7 --raw DIR
shapestacks --from DIR --size 64 --scenes 2 {FEW} --views 1
objects-room --from rooms.hdf5 {FEW}
objects-room --from mirror --size 64 {FEW}
clevr6 --from FILE
clevr6 --from FILE --size 96
clevr6 --from FILE --test-only
clevr6 --from FILE --size 96 --test-only
folder DIR --name mine --crop 12 --size 8 {FEW}
folder DIR --name mine --size 8 {FEW} --crop 12
folder DIR --name mine --size 8 --void 9 --group-by '^(.)' --no-masks --test-only
folder DIR --name mine --size 8 --void 9 --group-by '^(.)' --no-masks --test-only
""".strip().splitlines()


def prepare(line: str, code: int = 0) -> Result:
    return small_cli.sri("prepare", *shlex.split(line), code=code)


@pytest.mark.parametrize(("made", "again"), [*zip(MADE[::2], MADE[1::2], strict=True)])
def test_the_hint_for_a_damaged_file_makes_it_again(here: Path, made: str, again: str) -> None:
    write_flat(Path("rooms.hdf5"), 12, 64, 64)
    write_groups(Path("FILE"), {"train": [3, 4], "val": [3], "test": [4]})
    if made.startswith("folder"):
        Path("DIR").mkdir()
        for number in range(12):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(f"DIR/{number}.png")
    prepare(f"{made} --workers 1")
    path = next(here.rglob("*.h5"))
    whole, data = path.read_bytes(), DataFile(path)
    with open(path, "r+b") as file:
        file.seek(data._offsets["test"])
        file.write(b"\xab" * 50)
    shown = prepare(f"show {path.relative_to(here)}", code=2)
    assert shown.stderr.rstrip().endswith(f": sri prepare {again} --force")
    if "--from mirror" not in again:
        prepare(f"{again} --force --workers 1")
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"name": "mine", "size": 64, "source": "simulated", "parameters": {"seed": 0}},
        {"name": "clevr6", "size": 64, "source": "elsewhere", "parameters": {"seed": 0}},
    ],
)
def test_no_command_is_known(attrs: dict[str, object]) -> None:
    assert prepare_arguments(attrs) is None


# --list and show

SIZE = 8


def masks_with(*objects: int) -> np.ndarray:
    """Masks [N,8,8] with so many objects each; background 0 above and 1, a wall, below."""
    masks = np.zeros((len(objects), SIZE, SIZE), np.uint8)
    masks[:, 4:] = 1
    for mask, count in zip(masks, objects, strict=True):
        mask[2, 1 : 1 + count] = np.arange(2, 2 + count)
    return masks


def write_rooms(
    path: Path, masks: np.ndarray | None, source: str = "original", **more: object
) -> Path:
    """A file whose three splits are the same."""
    number = 4 if masks is None else len(masks)
    images = np.random.default_rng(0).integers(0, 256, (number, SIZE, SIZE, 3)).astype(np.uint8)
    names = {"scenario": np.array([b"a", b"a", b"b", b"c"])} if number == 4 else {}
    more |= {"source": source, "background_labels": 2, "parameters": {"seed": 3}}
    return write_splits(path, "rooms", dict.fromkeys(SPLITS, (images, masks, names)), **more)


def zero_chunk(path: Path, name: str) -> None:
    """Overwrite the first chunk of a data set with zeros."""
    with h5py.File(path, "r") as file:
        chunk = file[name].id.get_chunk_info(0)
    whole = bytearray(path.read_bytes())
    whole[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(whole)


def text_of(path: Path) -> str:
    """Without the suggestions for a training, which have tests of their own."""
    return describe(DataFile(path)).partition("\nsuggested ")[0]


def test_show_counts_what_the_masks_hold(tmp_path: Path) -> None:
    masks = masks_with(1, 3, 1, 0)
    masks[[0, 3], 4:] = 0
    masks[3, 5, 3] = 1  # a wall that reaches no side; the first mask has none
    text = text_of(write_rooms(tmp_path / "rooms-8.h5", masks, skipped=("x.png", "y.png")))
    lines = {line[:10].strip(): line[12:] for line in text.splitlines()}
    assert lines["images"] == "4 train, 4 val, 4 test images of 8 px"
    assert lines["scenes"] == "3 train, 3 val, 3 test"
    assert lines["source"] == "original" and lines["made with"] == "seed 3"
    assert lines["masks"].startswith("labels 0 to 4, 2 of them background; 2.0% ")
    assert lines["deviating"].startswith("3 of 12 images") and "(1)" in lines["deviating"]
    assert lines["objects"] == "0 to 3 in an image, 1.2 on average"
    assert lines["left out"].endswith("x.png; y.png")
    bars = {line.split()[0]: line.split()[-2:] for line in text.splitlines()[-3:]}
    assert bars == {"0": ["#" * 20, "25.0%"], "1": ["#" * 40, "50.0%"], "3": ["#" * 20, "25.0%"]}


def test_a_simulated_set_has_no_deviations_and_one_without_masks_no_histogram(
    tmp_path: Path,
) -> None:
    simulated = text_of(write_rooms(tmp_path / "a-8.h5", masks_with(1, 1), "simulated"))
    assert "deviating" not in simulated and "unknown train" in simulated
    assert text_of(write_rooms(tmp_path / "b-8.h5", None)).splitlines()[-1].split() == [
        "masks",
        "unknown",
    ]


def test_of_very_many_images_some_from_everywhere_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "MASK_CHUNK_BYTES", 2 * SIZE**2)
    data = DataFile(write_rooms(tmp_path / "a-8.h5", masks_with(*[1, 3, 1] * 3)))
    parts = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert [part[1:] for part in mask_parts(data)] == parts * 3
    assert mask_facts(data).objects == {1: 18, 3: 9}
    monkeypatch.setattr(summary, "MAX_MASKS", 4)
    assert [part[1:] for part in mask_parts(data)] == [(0, 2), (6, 8)] * 3


def test_the_list_has_a_row_for_each_file(tmp_path: Path) -> None:
    write_rooms(tmp_path / "a-8.h5", masks_with(1, 2))
    write_rooms(tmp_path / "longer-name-8.h5", None)
    (tmp_path / "b-8.h5").write_bytes(b"no HDF5")
    (tmp_path / "d-8.h5.partial").write_bytes(b"no HDF5 yet")
    part = write_rooms(tmp_path / "c-8.h5", masks_with(1, 2)).rename(tmp_path / "c-8.h5.partial")
    with h5py.File(part, "r+") as file:
        file["train"].attrs["rows"], file["test"].attrs["rows"] = 1, 0
    some = write_rooms(tmp_path / "some-8.h5", masks_with(1, 2))
    with h5py.File(some, "r+") as file:
        del file["train/masks"], file.attrs["seed"]
    # The list reads no masks: this file's are damaged, and it is listed all the same.
    zero_chunk(tmp_path / "a-8.h5", "val/masks")

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


def test_damaged_masks_are_refused(tmp_path: Path) -> None:
    path = write_rooms(tmp_path / "a-8.h5", masks_with(1, 2))
    zero_chunk(path, "val/masks")
    with pytest.raises(SriError, match="val"):
        text_of(path)


def suggested(text: str) -> list[list[str]]:
    """The overrides that `sri prepare show` suggests, as words to copy."""
    lines = [line[12:].partition("  ")[0].split() for line in text.splitlines()]
    return [words for words in lines if words and all("=" in word for word in words)]


def test_suggestions_are_overrides_measured_on_the_images(tmp_path: Path) -> None:
    write_data(path := tmp_path / "mine-32.h5")  # one to three squares in an image
    (slots,), *targets = suggested(describe(data := DataFile(path)))
    assert slots == "model.slots=5"
    assert load_recipe("sri-mog", "mine", [slots]).model.slots == 5
    images = torch.tensor(data.split("train").images / 255.0).permute(0, 3, 1, 2)
    mean = images.mean(dim=0).expand(1, len(images), -1, -1, -1).transpose(0, 1)
    scene = Scene(mean, torch.zeros_like(mean[:, :, :1]))
    perfect = dataclasses.replace(scene, rgb=images[:, None])
    for name in ("sri-mog", "sri-g", "emorl"):
        model = load_recipe(name).model
        likelihood = ImageLikelihood(model.likelihood, model.std, model.normalised)
        worst, best = (
            likelihood.nll(images, one).mean().item() / images[0].numel()
            for one in (scene, perfect)
        )
        for share, size in ((0.07, []), (0.2, ["size=tiny"])):
            target = f"train.geco_target={best + share * (worst - best):.5g}"
            assert [*size, target] in targets
            assert load_recipe(name, "mine", [*size, target]).train.geco_target > best


def test_targets_that_can_be_reached_without_objects_are_named(tmp_path: Path) -> None:
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, :16] = 1  # a half of the image
    masks[:, :2] = 255  # void
    varying = np.array([0, 20, 40, 60], np.uint8)[:, None, None]
    found = []
    for number, (objects, background) in enumerate([(1, 1), (1, 0), (0, 1), (1, 4)]):
        grey = np.where(masks == 1, objects * varying, background * varying)
        images = np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)
        path = tmp_path / f"{number}-32.h5"
        splits = {split: (images, masks, {}) for split in SPLITS}
        data = DataFile(write_splits(path, str(number), splits, void_label=255))
        found.append((mean_image_error(data)[1], len(suggestions(data, {1: 4}))))
    shares, lines = zip(*found, strict=True)
    assert shares == pytest.approx([14 / 32, 1, 0, 14 / (14 + 18 * 16)])
    assert [more - lines[0] for more in lines] == [0, 0, 2, 2]


def test_targets_are_of_the_likelihood_that_the_data_set_has(tmp_path: Path) -> None:
    path = write_small_data(tmp_path / "clevr6-32.h5")
    text = describe(DataFile(path))
    model = load_recipe("sri-mog", "clevr6").model
    assert (model.std, model.normalised) == (0.1, False)
    (line,) = (one for one in text.splitlines() if "sri-mog" in one)
    assert "std 0.1, not normalised" in line
    assert f"--data {path}" in text  # it is not in data/


def test_without_masks_no_number_of_slots_is_suggested(tmp_path: Path) -> None:
    write_data(path := tmp_path / "mine-32.h5", with_masks=False)
    words = suggested(describe(DataFile(path)))
    assert words and not [word for line in words for word in line if word.startswith("model")]


@pytest.mark.parametrize(
    ("objects", "background_labels", "slots"),
    [
        ({2: 50, 3: 50}, 1, 5),  # demo-towers
        ({1: 3, 2: 4, 3: 3}, 4, 7),  # Objects Room, whose background has four parts
        ({3: 99, 30: 1}, 1, 5),  # one odd image in a hundred does not count
        ({3: 98, 30: 2}, 1, 32),
        ({0: 5}, 1, 2),
        ({70: 5}, 1, MOST_SLOTS),
    ],
)
def test_slots_for_the_objects(objects: dict[int, int], background_labels: int, slots: int) -> None:
    assert suggest_slots(objects, background_labels)[0] == slots
    assert load_recipe("sri-mog", "mine", [f"model.slots={slots}"]).model.slots == slots
