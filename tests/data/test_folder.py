"""Your own images: decoded, cropped and resized, split once; unusable files are reported."""

from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import DataFile
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.sources.folder import FolderOptions, FolderSource
from sri_cli.data.sources.listing import MaskNames
from sri_cli.data.summary import mask_facts
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests import small_cli
from tests.foreign_hdf5 import stopped_at
from tests.small_data import changed, write_small_data
from tests.small_data import save_image as save

pytestmark = pytest.mark.usefixtures("here")
sri = partial(small_cli.sri, "prepare", "folder")


def greys(count: int, masks: bool = False, folder: str = "mine") -> None:
    """Images of one grey, their number; masks whose right half is object 2."""
    for number in range(count):
        save(f"{folder}/{number:02}.png", np.full((8, 8), number))
        if masks:
            save(f"{folder}/masks/{number:02}.png", [[0] * 4 + [2] * 4] * 8)


def made(folder: str = "mine", workers: int = 1, **options: Any) -> DataFile:
    source = FolderSource(Path(folder), FolderOptions(size_px=8, **options))
    path = Path("data", f"{source.header.name}-8.h5")
    return prepare(source, path, workers=workers, force=True).data


def contents(data: DataFile) -> dict[str, list[int]]:
    return {name: data.split(name).images[:, 0, 0, 0].tolist() for name in data.counts}


def test_every_image_is_in_one_split() -> None:
    greys(20, masks=True)
    data = made()
    parts = contents(data)
    assert {name: len(part) for name, part in parts.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(sum(parts.values(), [])) == list(range(20))
    assert (data.name, data.source) == ("mine", "folder")
    assert all(labels_of(data).values())
    names = data.split("val").factors["scenario"]
    assert [int(name) for name in names] == parts["val"]
    assert contents(made(seed=1)) != parts
    assert made(scenes=6, val_scenes=3).counts == {"train": 6, "val": 3, "test": 2}
    greys(3, folder="three")
    assert made("three").counts == {"train": 1, "val": 1, "test": 1}
    assert made("three").split("train").masks is None


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "eval", "testing")])
@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("mine/{}", "mine/masks/{}"),
        ("mine/{}", "mine/{}/masks"),
        ("mine/{}/Images", "mine/{}/Masks"),
        ("mine/images/{}", "mine/masks/{}"),
        ("mine/rgb/{}", "mine/labels/{}"),
        ("mine/archive/{}", "mine/archive/masks/{}"),
    ],
)
def test_a_folder_with_splits_of_its_own(images: str, masks: str, names: tuple[str, ...]) -> None:
    for tens, split in enumerate(names):
        for number in range(2):
            grey = 10 * tens + number
            save(f"{images.format(split)}/a b/{number}.png", np.full((8, 8), grey))
            save(f"{masks.format(split)}/a b/{number}.PNG", np.full((8, 8), grey + 1))
    data = made()
    assert contents(data) == {"train": [0, 1], "val": [10, 11], "test": [20, 21]}
    for name in data.counts:
        assert (data.split(name).masks == data.split(name).images[..., 0] + 1).all()
    assert contents(made(scenes=1, seed=1))["val"] == [10, 11]  # a sixth, 2 at least
    assert made(scenes=1, test_scenes=1).counts == {"train": 1, "val": 2, "test": 1}
    with pytest.raises(SriError, match="--val-scenes 3"):
        made(val_scenes=3)


def test_own_splits_are_never_mixed() -> None:
    for grey, split in enumerate(("train", "val")):
        for number in range(5):
            save(f"mine/{split}/{number}.png", np.full((8, 8), 10 * grey + number))
    save("mine/stray.png", np.zeros((8, 8)))
    with pytest.raises(SriError, match="test/"):
        made()
    save("mine/test/bad.png", np.zeros((8, 8))).write_bytes(b"")
    with pytest.raises(SriError, match="test/bad"):
        made()
    save("mine/test/good.png", np.full((8, 8), 20))
    assert contents(made()) == {"train": [0, 1, 2, 3, 4], "val": [10, 11, 12, 13, 14], "test": [20]}
    greys(10, folder="other/test")
    assert made("other").counts == {"train": 0, "val": 0, "test": 10}
    greys(4, folder="other")  # images for training must not be drawn from the test split
    with pytest.raises(SriError, match="train/"):
        made("other")
    assert made("other", test_only=True).counts["test"] == 10
    for tens, part in enumerate(("a/train", "a/val", "b/train", "b/test")):
        for number in range(3):
            save(f"parts/{part}/{number}.png", np.full((8, 8), 10 * tens + number))
    save("parts/cover.png", np.zeros((8, 8)))
    own = {"train": [0, 1, 2, 20, 21, 22], "val": [10, 11, 12], "test": [30, 31, 32]}
    assert contents(made("parts")) == own


def test_images_beside_masks_with_a_crop() -> None:
    for number, (height, width) in enumerate([(8, 12), (20, 9), (8, 8), (11, 11)]):
        image = np.full((height, width), 100)
        image[(height - 8) // 2 : (height + 8) // 2, (width - 8) // 2 : (width + 8) // 2] = 200
        save(f"mine/images/sub dir/ö {number}.png", image)
        save(f"mine/masks/sub dir/ö {number}.png", image // 50)
    data = made(crop=6)
    assert sum(data.counts.values()) == 4
    assert all((data.split(name).images == 200).all() for name in data.counts)
    assert all((data.split(name).masks == 4).all() for name in data.counts)
    assert "ö" in data.split("train").factors["scenario"][0].decode()


def labels_of(data: DataFile) -> dict[str, bool]:
    """Whether each split has masks, which are 2 in the right half of every image."""
    for name in data.splits:
        masks = data.split(name).masks
        if masks is not None:
            assert (masks[:, :, :4] == 0).all() and (masks[:, :, 4:] == 2).all()
    return {name: data.split(name).has_masks for name in data.splits}


HALVES = [[0] * 4 + [2] * 4] * 8


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("images/{}.jpg", "labels/{}.png", {}),
        ("{}.bmp", "Segmentations/{}.tif", {}),
        ("JPEGImages/{}.jpg", "SegmentationObject/{}.png", {}),
        ("images/a/{}.png", "masks/a/{}_mask.png", {}),
        ("some photos/{}.png", "mask/{}.png", {}),
        ("{}.png", "{}_label.png", {}),
        ("{}.png", "{}_cp_masks.png", {}),
        ("{}_rgb.png", "{}-seg.png", {}),
        ("{}.png", "{}.npy", {}),
        ("images/{}.png", "masks/{}.npy", {}),
        ("{}.jpg", "{}.png", {"masks": MaskNames(suffix=".png")}),
        ("{}.jpg", "{}_id.png", {"masks": MaskNames(suffix="_id")}),
        ("a/{}.png", "b/{}.png", {"masks": MaskNames(folder="b")}),
        ("a/{}.png", "../elsewhere/{}.png", {"masks": MaskNames(folder="elsewhere")}),
        ("img/{}.png", "masks_machine/{}.png", {}),
        ("images/{}.png", "masks/{}_m.png", {"masks": MaskNames(suffix="_m")}),
    ],
)
def test_masks_are_known_by_their_names(image: str, mask: str, options: dict[str, Any]) -> None:
    for number in range(6):
        save(f"mine/{image.format(number)}", np.full((8, 8, 3), number * 30))
        path = Path("mine", mask.format(number))
        if path.suffix == ".npy":
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.array(HALVES, np.int64))
        else:
            save(path, HALVES)
    data = made(**options)
    assert sum(data.counts.values()) == 6 and all(labels_of(data).values())
    assert "6 of 6 images" in json.loads(data.attrs["notes"])[0]


@pytest.mark.parametrize(
    ("image", "mask", "hint"),
    [
        ("pics/{}.png", "anything/{}.png", "--masks anything"),
        ("train/pics/{}.png", "train/anything/{}.png", "--masks anything"),
        ("{}.png", "{}_id.png", "--mask-suffix _id"),
        ("{}.bmp", "{}.png", "--mask-suffix .png"),
        ("train/{}.png", "train_masks/{}_mask.png", "--masks train_masks"),
    ],
)
def test_masks_of_unknown_names_are_no_images(image: str, mask: str, hint: str) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        save(f"mine/{image.format(number)}", rng.integers(0, 256, (8, 8, 3)))
        save(f"mine/{mask.format(number)}", HALVES)
    with pytest.raises(SriError, match=rf"\n.*{re.escape(hint)}"):
        made()
    if "bmp" not in image:
        assert sum(made(masks=MaskNames(none=True)).counts.values()) == 12
    for number in range(6):  # photographs of the same names, as of several cameras, are images
        save(f"mine/{mask.format(number)}", rng.integers(0, 256, (8, 8, 3)))
    if "bmp" not in image:
        assert sum(made().counts.values()) == 12


def test_masks_of_many_instances_are_no_images() -> None:
    """Photographs on a white background are, colours and greys of one name."""
    rng = np.random.default_rng(0)
    cells = np.kron(np.arange(100).reshape(10, 10), np.ones((8, 8)))
    for number in range(6):
        save(f"mine/{number}.png", rng.integers(0, 256, (80, 80, 3)))
        save(f"mine/{number}_id.png", cells)
        photograph = np.full((80, 80, 3), 255)
        photograph[24:56, 24:56] = rng.integers(0, 256, (32, 32, 3))
        save(f"photos/{number}.png", photograph)
        save(f"photos/{number}_id.png", photograph[..., 1])
    with pytest.raises(SriError, match=r"\n.*--mask-suffix _id"):
        made()
    assert sum(made("photos").counts.values()) == 12


def test_images_of_related_names_in_other_folders_are_images() -> None:
    """Photographs and drawings of two cameras, and frames of clips."""
    rng = np.random.default_rng(0)
    drawing = np.zeros((8, 8, 3), np.uint8)
    for number in range(6):
        for name in ("left/{}", "right/{}_b", "clips/a/{}_0", "clips/b/{}_0_1"):
            drawing[:, 4:] = rng.integers(0, 256, 3)
            save(f"photos/{name.format(number)}.png", rng.integers(0, 256, (8, 8, 3)))
            save(f"drawings/{name.format(number)}.png", drawing)
    assert sum(made("photos").counts.values()) == sum(made("drawings").counts.values()) == 24


def test_a_suffix_that_no_mask_has() -> None:
    greys(6, masks=True)
    with pytest.raises(SriError, match="_x"):
        made(masks=MaskNames(suffix="_x"))


def test_instances_are_preferred_to_classes_and_other_masks_are_no_images() -> None:
    greys(6)
    for number in range(6):
        save(f"mine/SegmentationClass/{number:02}.png", np.ones((8, 8)))
        save(f"mine/SegmentationObject/{number:02}.png", HALVES)
    assert all(labels_of(made()).values())
    chosen = made(masks=MaskNames(folder="SegmentationClass"))
    assert sum(chosen.counts.values()) == 6 and (chosen.split("test").masks == 1).all()
    save("mine/masks/00.png", HALVES)
    with pytest.raises(SriError, match="two masks"):
        made()


def test_the_folder_of_masks_may_be_written_in_another_way() -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        save(f"mine/a/{number}.png", rng.integers(0, 256, (8, 8, 3)))
        save(f"mine/b c/{number}.png", HALVES)
    os.symlink("mine", "link")
    for folder in (Path("mine/b c").resolve(), Path("link/b c"), Path("mine/../mine/b c")):
        data = made(masks=MaskNames(folder=str(folder)))
        assert sum(data.counts.values()) == 6 and all(labels_of(data).values())
    os.makedirs("all")
    os.symlink("../mine", "all/set")
    data = made("all", masks=MaskNames(folder="b c"))  # a name below it, behind a link
    assert sum(data.counts.values()) == 6 and all(labels_of(data).values())
    with pytest.raises(SriError, match=r"\n.*--masks 'b c'"):
        made()


def test_photographs_with_labels_drawn_over_them_are_no_images() -> None:
    """As labelme and Supervisely write them; they would be the training set, without masks."""
    for number in range(6):
        for folder in ("JPEGImages", "SegmentationClassVisualization", "masks_human"):
            save(f"mine/{folder}/{number}.jpg", np.full((8, 8, 3), number * 30))
        save(f"mine/SegmentationObject/{number}.png", HALVES)
    data = made()
    assert sum(data.counts.values()) == 6 and all(labels_of(data).values())
    assert "6 in masks_human/" in data.attrs["notes"]


def test_a_mask_of_one_clip_is_not_one_of_another() -> None:
    for clip, frames in (("a", 8), ("b", 4)):
        for number in range(frames):
            save(f"mine/images/{clip}/{number}.png", np.full((8, 8), number))
    for clip, numbers in (("a", [0, 2]), ("c", [*range(8)])):  # the images of c are not there
        for number in numbers:
            save(f"mine/masks/{clip}/{number}.png", HALVES)
    assert made(test_only=True).counts["test"] == 2
    for number in range(8):
        save(f"mine/masks/a/{number}.png", HALVES)
    assert made(test_only=True).counts["test"] == 8


def test_masks_for_evaluation_alone() -> None:
    """Training needs none: few masked images are for validation and test."""
    greys(20)
    for number in range(3, 8):
        save(f"mine/masks/{number:02}.png", HALVES)
    data = made()
    assert labels_of(data) == {"train": False, "val": True, "test": True}
    parts = contents(data)
    assert sorted(parts["val"] + parts["test"]) == [3, 4, 5, 6, 7] and len(parts["val"]) == 2
    assert contents(made()) == parts != contents(made(seed=1))
    assert made(scenes=6, test_scenes=1).counts == {"train": 6, "val": 2, "test": 1}
    assert made(test_only=True).counts == {"train": 0, "val": 0, "test": 5}
    with pytest.raises(SriError, match="5 images have masks"):
        made(val_scenes=4, test_scenes=2)
    for number in range(8, 20):  # most have one: the others lack theirs
        save(f"mine/masks/{number:02}.png", HALVES)
    data = made()
    assert all(labels_of(data).values()) and data.attrs["skipped"] == 3


def test_masks_of_some_splits_of_the_folders_own() -> None:
    for split in ("train", "val", "test"):
        greys(4, masks=split == "test", folder=f"mine/{split}")
    data = made()
    assert labels_of(data) == {"train": False, "val": False, "test": True}
    save("mine/train/masks/00.png", HALVES)  # training images are not lost for want of masks
    os.remove("mine/test/masks/01.png")
    data = made()
    assert data.counts == {"train": 4, "val": 4, "test": 3} and not labels_of(data)["train"]


def test_void_and_background_labels() -> None:
    """Label 7 is background, 0 an object, 255 a rim."""
    image = np.zeros((16, 16))
    mask = np.full((16, 16), 7)
    mask[3:12, 3:12] = 255
    mask[4:11, 4:11] = 0
    for number in range(6):
        save(f"mine/{number}.png", image + number * 40)
        save(f"mine/masks/{number}.png", mask)
    assert "--void 255" in made().attrs["notes"]
    data = made(background_label=7, void_label=255)
    assert data.void_label == 255 and data.background_labels == 1
    facts = mask_facts(data)
    assert (facts.largest, facts.objects) == (7, {1: 6})
    assert "--void" not in data.attrs["notes"]
    whole = FolderSource(Path("mine"), FolderOptions(size_px=16, void_label=255))
    whole_data = prepare(whole, Path("whole-16.h5"), workers=1).data
    facts = mask_facts(whole_data)
    assert facts.objects == {1: 6}  # 7
    assert facts.pixels == 6 * (256 - 32) and facts.foreground == 6 * (256 - 81)
    for wrong in (
        {"void_label": 0},
        {"background_label": 3, "background_labels": 2},
        {"background_labels": 2, "void_label": 1},
    ):
        with pytest.raises(SriError):
            made(**wrong)
    assert made(background_labels=0, void_label=0).void_label == 0


def test_what_pillow_reads_is_taken_and_the_rest_counted() -> None:
    for number, ending in enumerate(["jfif", "ppm", "AVIF", "jpe", "tga", "webp"]):
        save(f"mine/{number}.{ending}", np.full((8, 8, 3), 40 * number))
    for name in ("a.heic", "b.heic", "notes.txt", "README", "._0.jpg", "clip.mpg", "x.h5", "y.eps"):
        Path("mine", name).write_bytes(b"nothing")
    data = made()
    assert sum(data.counts.values()) == 6
    note = next(note for note in json.loads(data.attrs["notes"]) if "2 .heic" in note)
    assert all(text in note for text in ("1 .txt", "1 without ending", "1 .mpg", "1 .eps"))
    assert "jpg" not in note


@pytest.mark.parametrize(("largest", "note"), [(4095, "16 of 255"), (65535, None)])
def test_few_of_16_bits_and_stacks_are_noted(largest: int, note: str | None) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, largest, (8, 8), np.uint16)
        pixels[0, 0] = largest
        more = [Image.fromarray(pixels)] if note is None else []
        save(f"mine/{number}.tif", pixels, np.uint16, save_all=True, append_images=more)
    notes = json.loads(made().attrs["notes"])
    assert len(notes) == 1 and (note or "6 files of several") in notes[0]


def test_a_group_stays_in_one_split() -> None:
    rng = np.random.default_rng(0)
    for clip in range(6):
        image = rng.integers(0, 200, (8, 8))
        for frame, level in enumerate((0, 3, 6, 10)):  # the last is 4 levels from the nearest
            save(f"mine/clip{clip}_{frame}.png", image + level)
    (near,) = json.loads(made().attrs["notes"])
    assert near.startswith("18 of 24 images near-identical") and "--group-by" in near
    data = made(group_by="(.+)_")
    groups = [set(data.split(name).factors["scenario"]) for name in data.splits]
    assert [len(group) for group in groups] == [4, 1, 1] and len(set.union(*groups)) == 6
    assert data.counts == {"train": 16, "val": 4, "test": 4}
    assert b"clip" in data.split("val").factors["image"][0]
    assert "--group-by" not in data.attrs["notes"]
    for pattern in ("(", "(.+)", "nothing"):  # no expression; each its own; none
        with pytest.raises(SriError):
            made(group_by=pattern)


def test_frames_without_a_mask_in_a_group_with_one_are_left_out_aloud() -> None:
    rng = np.random.default_rng(0)
    for clip in range(9):
        for frame in range(4):
            save(f"mine/clip{clip}_{frame}.png", rng.integers(0, 256, (8, 8, 3)))
        if clip < 4:
            save(f"mine/masks/clip{clip}_0.png", HALVES)
    data = made(group_by="(.+)_")
    assert data.counts == {"train": 20, "val": 2, "test": 2}
    assert any(
        note.startswith("12 images without a mask") for note in json.loads(data.attrs["notes"])
    )
    for clip in range(4, 9):
        save(f"mine/masks/clip{clip}_0.png", HALVES)
    with pytest.raises(SriError, match=r"\n.*--group-by"):
        made(group_by="(.+)_")


def spoil(kind: str) -> None:
    """Eight good images and one that is bad in some way."""
    greys(8, masks="mask" in kind)
    bad = Path("mine/bad.png")
    save(bad, np.zeros((8, 8)))
    if kind == "text":
        bad.write_text("not an image")
    elif kind == "large mask":
        save("mine/masks/bad.png", np.ones((9, 9)))
    elif kind == "link":
        bad.unlink()
        bad.symlink_to("nothing")


@pytest.mark.parametrize("kind", ["text", "large mask", "no mask", "link"])
def test_unusable_files_are_left_out_or_refused(kind: str) -> None:
    spoil(kind)
    words = ["mine", "--size", "8", "--workers", "1"]
    strict = sri(*words, "--strict")
    assert strict.exit_code == 2 and "1 of 9 images cannot be used: bad: " in strict.stderr
    assert "--strict" in strict.stderr
    assert ("take the masks out" in strict.stderr) == (kind == "large mask")
    assert not Path("data").exists() or os.listdir("data") == []
    assert "bad: " in sri(*words, code=0).stderr
    data = DataFile(Path("data/mine-8.h5"))
    assert sum(data.counts.values()) == 8
    assert data.attrs["skipped"] == 1 and data.attrs["skipped_files"].startswith('["bad: ')


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["none"], "none"),
        (["mine/00.png"], "mine/00.png"),
        (["empty"], "empty"),
        (["mine", "--name", "clevr6"], "clevr6"),
        (["mine", "--name", "a/b"], "a/b"),
        (["图片"], "图片"),
        (["twice"], "twice/00.jpg"),
        (["others"], "1 mask"),
        (["bad"], "3 of 3 images"),
        (["few"], "too few images (2)"),
        (["three"], "1 of 3 images cannot be used: 02: "),
        (["mine", "--scenes", "4"], "4 train"),
        (["mine", "--crop", "9"], "a smaller --crop"),
    ],
)
def test_errors_leave_nothing(words: list[str], reported: str) -> None:
    greys(4)
    Path("empty").mkdir()
    save("twice/00.png", [[1]])
    save("twice/00.jpg", [[1]])
    greys(2, folder="few")
    greys(3, folder="three")
    Path("three/02.png").write_text("not an image")
    greys(4, folder="图片")
    greys(4, folder="others")
    save("others/masks/zz.png", np.zeros((8, 8)))
    Path("bad").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (Path("bad") / name).write_text("not an image")
    assert reported in sri(*words, code=2).stderr
    assert not Path("data").exists()


def test_a_changed_folder_or_other_options_are_noticed() -> None:
    greys(6)
    words = ("mine", "--size", "8", "--workers", "1")
    assert sri(*words).exit_code == sri(*words).exit_code == 0
    assert sri(*words, "--strict").exit_code == 0  # it changes nothing that was made
    assert "background 1 -> 2" in sri(*words, "--background", "2").stderr
    assert "crop largest square -> 8" in sri(*words, "--crop", "8").stderr
    save("mine/06.png", [[1] * 8] * 8)
    assert "files 6 -> 7" in sri(*words, code=2).stderr


def stopped_and_resumed(image: int) -> Prepared:
    """A preparation that a signal stops while it makes this image, counted from 1, and the rest."""
    source = FolderSource(Path("mine"), FolderOptions(size_px=8))
    with pytest.raises(Interrupted):
        prepare(stopped_at(source, image), Path("a-8.h5"), workers=1)
    return prepare(source, Path("a-8.h5"), workers=1)


def test_a_stopped_preparation_resumes_at_any_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 1)
    greys(12, masks=True)
    Path("mine/bad.png").write_bytes(b"")
    resumed = stopped_and_resumed(7)
    assert resumed.resumed_from == 7 and resumed.data.attrs["skipped"] == 1
    one, two = made(), made(workers=2, name="two")
    for split in one.counts:
        for data in (two, resumed.data):
            parts = (one.split(split), data.split(split))
            assert np.array_equal(*(part.images for part in parts))
            assert np.array_equal(*(part.masks for part in parts))
            assert np.array_equal(*(part.factors["scenario"] for part in parts))
    assert b"00.png" not in pickle.dumps(FolderSource(Path("mine"), FolderOptions()))


def test_a_disk_that_fails_once_costs_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 1)
    greys(12)
    source = FolderSource(Path("mine"), FolderOptions(size_px=8))
    left = iter(range(6, -1, -1))

    def make(item: Any) -> Any:
        return source.make(item if next(left) else replace(item, image=Path("gone.png")))

    with pytest.raises(SriFailure):
        prepare(changed(source, make=make), Path("a-8.h5"), workers=1)
    assert prepare(source, Path("a-8.h5"), workers=1).resumed_from == 6


@pytest.mark.parametrize("stopped_in", [9, 10])
def test_a_stop_does_not_judge_the_masks_by_the_few_that_were_made(stopped_in: int) -> None:
    for tens, split in enumerate(("train", "val", "test")):
        for number in range(8):
            save(f"mine/{split}/{number}.png", np.full((8, 8), 10 * tens + number))
            empty = split == "val" and number < 3
            save(f"mine/masks/{split}/{number}.png", np.zeros((8, 8)) if empty else HALVES)
    resumed = stopped_and_resumed(stopped_in)
    assert resumed.resumed_from == 8
    assert contents(resumed.data) == contents(made())


def test_names_of_any_kind_stay_different() -> None:
    greys(3)
    for number, name in enumerate(["ä" * 40 + "1", "ä" * 40 + "2", "a\nb", "IMG.2020.01"]):
        save(f"mine/{name}.png", np.full((8, 8), 3 + number))
    with open(b"mine/\xff\xfe.png", "wb") as file:
        file.write(Path("mine/00.png").read_bytes())
    for ending in (b"f\xfcr alle", *(b"%d" % number for number in range(99))):
        open(b"mine/notes." + ending, "wb").close()
    data = made()
    assert len(data.attrs["notes"]) < 500
    names = [n.decode() for split in data.counts for n in data.split(split).factors["scenario"]]
    assert len(set(names)) == 8 and {"IMG.2020.01", "a\ufffdb", "\ufffd\ufffd"} < set(names)
    for folder, name in (("Bilder für mich", "Bilder-fur-mich"), ("-x.y-", "x-y")):
        greys(5, folder=folder)
        assert made(folder).name == name


def test_names_that_would_be_stored_as_the_same_are_refused() -> None:
    greys(3)
    for name in (b"f\xfcr", b"f\xf6r"):  # of Latin-1, which cannot be decoded
        with open(b"mine/" + name + b".png", "wb") as file:
            file.write(Path("mine/00.png").read_bytes())
    assert r"f\udcfcr.png" in sri("mine", "--size", "8", code=2).stderr


def test_what_is_no_image() -> None:
    """Folders and pipes with such names, hidden files, contact sheets, circles of links. Images
    beside features of their names are some."""
    greys(5)
    os.mkdir("mine/folder.png")
    os.mkfifo("mine/pipe.png")
    for name in (".hidden.png", ".cache/a.png", "sheet-8.png", "cells.png", "05-12.png"):
        save(f"mine/{name}", np.zeros((8, 8)))
    for name in ("sheet-8.h5", "cells.h5"):
        write_small_data(Path("mine", name), images=1, size=8)
    Path("mine/00.h5").touch()
    with h5py.File("mine/05-12.h5", "w") as file:
        file["features"] = np.zeros(4)
    os.symlink("..", "mine/folder.png/up")
    save("elsewhere/linked.JPG", np.zeros((8, 8)))
    os.symlink(Path("elsewhere").resolve(), "mine/link")
    assert sum(made().counts.values()) == 7
