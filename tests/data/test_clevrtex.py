"""CLEVRTex: its file layout, split and crop, and every gap in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.dataset import DataFile, prepare_arguments
from sri_cli.data.source import Options
from sri_cli.data.sources.clevrtex import ClevrTex
from sri_cli.errors import SriFailure
from tests import small_cli
from tests.small_data import save_image

pytestmark = pytest.mark.usefixtures("here")
sri = partial(small_cli.sri, "prepare", "clevrtex")


def path_of(number: int, variant: str = "full", end: str = ".png") -> Path:
    """Fifteen scenes to a folder, as an example of `**`."""
    name = f"CLEVRTEX_{variant}_{number:06d}{end}"
    return Path("textures", f"clevrtex_{variant}", str(number // 15), name)


def write_scene(number: int, variant: str = "full", mode: str = "RGBA") -> None:
    """Red inside the crop is the scene's number; one object, label 3, in the crop's upper left."""
    image = np.zeros((240, 320, 4), np.uint8)
    image[24:216, 64:256] = (10 * number, 200, 0, 7)  # transparency means nothing
    labels = np.zeros((240, 320), np.uint8)
    labels[24:120, 64:160] = 3
    labels[0, 0] = 9  # outside the crop
    save_image(path_of(number, variant), image if mode == "RGBA" else image[..., [0, 3]])
    save_image(path_of(number, variant, "_flat.png"), labels)
    things = [
        {"shape": "monkey", "size": 0.9, "material": "whitemarble", "rotation": 30.5},
        {"shape": "cube", "size": "small", "material": "poliigon_metal", "rotation": 0},
    ]
    scene = {"objects": things, "ground_material": "lava"}
    path_of(number, variant, ".json").write_text(json.dumps(scene))


def write_scenes(numbers: range, variant: str = "full") -> None:
    for number in numbers:
        write_scene(number, variant)


def numbers(data: DataFile) -> dict[str, list[int]]:
    """Which scenes are in which split."""
    return {s: (data.split(s).images[:, 5, 5, 0] // 10).tolist() for s in data.splits}


@pytest.mark.parametrize("first", [0, 1])
def test_crop_labels_split_and_factors(first: int) -> None:
    write_scenes(range(first, first + 20))
    write_scene(first + 9, mode="LA")  # grey
    sri("--from", "textures", "--workers", "1", code=0)
    data = DataFile("data/clevrtex-128.h5")
    own = list(range(first, first + 20))
    assert numbers(data) == {"test": own[:2], "val": own[2:4], "train": own[4:]}
    split = data.split("val")
    assert data.background_labels == 1 and data.source == "original"
    assert (split.images[..., 1:] == (200, 0)).all()  # nothing of the black around the crop
    assert np.unique(split.masks).tolist() == [0, 3]
    assert (split.masks[0] == 3).sum() == 64 * 64 and (split.masks[0, :64, :64] == 3).all()
    factors = split.factors
    assert factors["shapes"][0, :3].tolist() == [b"monkey", b"cube", b""]
    assert factors["sizes"][0, :2].tolist() == [b"0.9", b"small"]
    assert factors["rotations"][0, 0] == 30.5 and factors["ground"].tolist() == [b"lava"] * 2
    assert factors["objects"].tolist() == [2, 2]
    assert prepare_arguments(data.attrs) == "clevrtex --from DIR --size 128"


def test_variants_and_numbers() -> None:
    write_scenes(range(3), "outd")
    write_scenes(range(10), "camo")
    sri("--from", "textures/clevrtex_outd", "--size", "32", "--workers", "1", code=0)
    data = DataFile("data/clevrtex-outd-32.h5")
    assert data.counts == {"train": 0, "val": 0, "test": 3}
    words = ("--from", "textures", "--variant", "camo", "--size", "32", "--workers", "1")
    assert sri(*words, "--test-scenes", "3", "--scenes", "5", "--val-scenes", "2").exit_code == 0
    assert numbers(DataFile("data/clevrtex-camo-32.h5")) == {
        "train": [5, 6, 7, 8, 9],
        "val": [3, 4],
        "test": [0, 1, 2],
    }
    for wrong in (("--variant", "outd", "--scenes", "2"), ("--seed", "1"), ("--scenes", "11")):
        assert sri(*words, *wrong).exit_code == 2, wrong
    assert "--variant" in sri("--from", "textures", code=2).stderr


MASK, FACTS = path_of(4, end="_flat.png"), path_of(4, end=".json")


def name_twice() -> None:
    path_of(40).parent.mkdir()
    path_of(4).rename(path_of(40).with_name(path_of(5).name))


DAMAGE: list[tuple[Callable[[], object], str]] = [
    (lambda: [path.unlink() for path in (path_of(4), MASK, FACTS, path_of(7))], "000004, 000007"),
    (name_twice, path_of(5).name),
    (MASK.unlink, MASK.name),
    (FACTS.unlink, FACTS.name),
    (lambda: FACTS.write_text("[]"), FACTS.name),
    (lambda: path_of(4).write_bytes(path_of(4).read_bytes()[:300]), path_of(4).name),
    (lambda: Image.new("RGB", (64, 64)).save(path_of(4)), "64x64"),
    (lambda: Image.new("L", (320, 200)).save(MASK), "320x200"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGE)
def test_gaps_and_damage_are_named(damage: Callable[[], object], named: str) -> None:
    write_scenes(range(10))
    damage()
    assert named in sri("--from", "textures", "--workers", "1", code=2).stderr
    assert not list(Path().glob("data/*"))


def test_a_disk_that_fails_is_no_damaged_file() -> None:
    write_scenes(range(10))
    source = ClevrTex(Path("textures"), Options())
    for path in (MASK, path_of(4)):
        path.unlink()
        with pytest.raises(SriFailure, match=path_of(4).name):
            source.make(path_of(4))


def test_wrong_folders() -> None:
    Path("empty").mkdir()
    assert sri("--from", "empty").exit_code == sri("--from", "nothing").exit_code == 2
    write_scenes(range(4))
    assert "--test-scenes" in sri("--from", "textures", code=2).stderr
    for number in range(4):
        path_of(number, end=".json").unlink()
    sri("--from", "textures", "--test-scenes", "1", "--val-scenes", "1", "--size", "16", code=0)
    assert DataFile("data/clevrtex-16.h5").split("train").factor_names() == ["scenario"]
