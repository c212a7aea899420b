"""Files of ShapeStacks, unpacked: what a reader gets of pictures drawn by hand, and faults told."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.source import Options
from sri_cli.errors import SriError
from tests.small_shapestacks import (
    CAMERAS,
    EVERYONE,
    FRAME,
    LEFT,
    LISTS,
    RIGHT,
    label_map,
    picture,
    prepare_from,
    write_files,
    write_lists,
    write_maps,
)

A, B, C = sorted(EVERYONE[:3])  # the training scenarios


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out-64.h5"


@pytest.mark.parametrize("maps", ["iseg", "recordings"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pictures_and_masks_as_worked_out_by_hand(
    tmp_path: Path, out: Path, maps: str, mode: str
) -> None:
    root = write_files(tmp_path, maps=maps, mode=mode)
    data = prepare_from(root, out).data
    assert (data.name, data.source, data.size, data.background_labels) == (
        "shapestacks",
        "original",
        64,
        1,
    )
    assert data.counts == {"train": 9, "val": 3, "test": 6}
    assert data.attrs["preprocessing"].startswith("centre crop 196; resize to 64 (Pillow bilinear)")
    train = data.split("train")
    assert train.masks is not None
    names = [name.decode() for name in train.factors["scenario"]]
    assert names == [name for name in (A, B, C) for _ in CAMERAS]
    for row, camera in enumerate(CAMERAS * 3):
        image, mask = np.asarray(train.images[row]), train.masks[row]
        # 196 px become 64: beyond 3 px from an edge nothing of the other side is left.
        assert (image[19:, :29] == LEFT).all() and (image[:, 35:] == RIGHT).all()
        assert (image[:13, :13] == (camera, 0, 0)).all()
        assert not (image == FRAME).all(-1).any()
        expected = np.zeros((64, 64), np.uint8)
        expected[16:32, 16:32] = 1 + camera % 6
        assert np.array_equal(mask, expected)


def test_factors_are_what_the_names_tell(tmp_path: Path, out: Path) -> None:
    data = prepare_from(write_files(tmp_path), out).data
    factors = data.split("train").factors
    told = {key: factors[key][:: len(CAMERAS)].tolist() for key in ("height", "vcom", "vpsf")}
    assert A == "env_blocks-hard-h=6-vcom=2-vpsf=0-v=12"  # sorted: then ccs-easy, ccs-hard
    assert told == {"height": [6, 3, 2], "vcom": [2, 0, 0], "vpsf": [0, 0, 1]}
    assert factors["stable"].tolist() == [0] * 3 + [1] * 3 + [0] * 3
    assert factors["camera"].tolist() == list(CAMERAS) * 3  # 2 before 10
    assert factors["camera"].dtype == factors["stable"].dtype == np.int16


def test_one_and_four_workers_and_any_place_of_the_folder(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path / "place")
    prepare_from(root, out)
    again = tmp_path / "again-64.h5"
    prepare_from(root.parent, again, workers=4)
    assert out.read_bytes() == again.read_bytes()
    moved = root.rename(tmp_path / "moved")
    assert prepare_from(moved, again).made == 0  # the path is no part of what it is


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n\n"])
def test_lists_as_they_come(tmp_path: Path, out: Path, ending: str) -> None:
    root = write_files(tmp_path)
    prepare_from(root, out)
    train = root / "splits" / "default" / "train.txt"
    lines = [f"env_{name}" for name in reversed(LISTS["train"])]
    line_end = "\r\n" if "\r" in ending else "\n"
    train.write_bytes((line_end.join(lines) + ending).encode())
    assert prepare_from(root, out).made == 0


def test_fewer_scenarios_and_views(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path)
    few = prepare_from(root, out, Options(size_px=32, scenes=2, test_scenes=1, views=2)).data
    assert few.counts == {"train": 4, "val": 2, "test": 2} and few.size == 32
    assert few.split("train").factors["camera"].tolist() == [1, 2, 1, 2]
    parameters = few.attrs["parameters"]
    assert {key: parameters[key] for key in ("split", "train", "val", "test", "views")} == {
        "split": "default",
        "train": 2,
        "val": 1,
        "test": 1,
        "views": 2,
    }
    with pytest.raises(SriError, match="train 2 -> not given"):
        prepare_from(root, out, Options(size_px=32, views=2))


def test_other_lists_make_another_file(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path)
    prepare_from(root, out)
    swapped = {"train": LISTS["train"], "eval": LISTS["test"], "test": LISTS["eval"]}
    write_lists(root, swapped)
    with pytest.raises(SriError, match="scenarios_sha256"):
        prepare_from(root, out)
    other = root / "splits" / "ccs_all"
    shutil.copytree(root / "splits" / "default", other)
    with pytest.raises(SriError, match="split default -> ccs_all"):
        prepare_from(root, out, split="ccs_all")
    with pytest.raises(SriError, match=r"did you mean ccs_all\?") as caught:
        prepare_from(root, out, split="cc_all")
    assert caught.value.hint == "available: ccs_all, default"


def test_without_maps_there_are_no_masks(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_files(tmp_path, maps=None)
    data = prepare_from(root, out).data
    assert data.split("train").masks is None
    assert "ARI cannot be measured" in capsys.readouterr().err
    for name in EVERYONE:
        write_maps(root / "iseg" / name, CAMERAS)
    with pytest.raises(SriError, match="masks False -> True"):
        prepare_from(root, out)


def edit(file: str, text: str) -> Callable[[Path], None]:
    """Another content for a split list."""
    return lambda root: (root / "splits" / "default" / file).write_text(text) and None


def save(image: Image.Image, name: str, file: str) -> Callable[[Path], None]:
    return lambda root: image.save(root / name / file, "PNG")


def remove(pattern: str) -> Callable[[Path], None]:
    def all_of_them(root: Path) -> None:
        for path in list(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return all_of_them


def zero_maps(root: Path) -> None:
    for path in root.rglob("*.map"):
        label_map(0).save(path, "PNG")


def small_integers(root: Path) -> None:
    """Labels where multiples of 32 should be."""
    for path in root.rglob("*.map"):
        Image.fromarray(np.full((224, 224), 3, np.uint8)).save(path, "PNG")


def cut_picture(root: Path) -> None:
    path = root / "recordings" / B / PICTURE
    path.write_bytes(path.read_bytes()[:200])


PICTURE = "rgb-w=5-f=2-l=1-c=unique-cam_2-mono-0.png"
FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (cut_picture, f"{B}/{PICTURE}"),
    (edit("eval.txt", ""), r"eval\.txt is empty"),
    (edit("eval.txt", " \r\n\n"), r"eval\.txt is empty"),
    (edit("test.txt", "../../etc"), r"test\.txt line 1 .*'../../etc'"),
    (edit("test.txt", "a\x00b"), r"test\.txt line 1 "),
    (edit("eval.txt", A), rf"{A} is in two lists of .*: train\.txt and eval\.txt"),
    (remove("splits/default/eval.txt"), r"no split list .*eval\.txt"),
    (remove("splits/default"), r"no split list .*train\.txt"),
    (remove(f"recordings/{B}"), rf"1 of 6 .* {B}"),
    (remove(f"recordings/{A}/*cam_2*.png"), rf"{A} has images of 2 cameras, others of 3"),
    (remove(f"iseg/{C}"), rf"1 of 6 .* instance maps .* {C}"),
    (remove(f"iseg/{C}/*cam_10*"), rf"{C} has no instance map of camera 10"),
    (zero_maps, rf"mark no object: .*{A}/iseg-.*cam_1-mono-0\.map"),
    (small_integers, r"mark no object: .*\.map"),
    (save(picture(2, side=192), f"recordings/{A}", PICTURE), "has 192x192 px, .* 224x224"),
    (save(picture(2), f"recordings/{A}", "rgb-w=0-cam_2-x.png"), "two files of camera 2"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_faults_name_the_file_and_leave_nothing(
    tmp_path: Path, out: Path, spoil: Callable[[Path], None], message: str
) -> None:
    root = write_files(tmp_path)
    spoil(root)
    with pytest.raises(SriError, match=message) as caught:
        prepare_from(root, out, workers=2)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert "\n" not in caught.value.message and not out.exists()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(scenes=4), r"--scenes 4: train\.txt .* 3 "),
        (Options(test_scenes=3), r"--test-scenes 3: test\.txt .* 2 "),
        (Options(views=4), r"--views 4: .* 3 "),
        (Options(size_px=4), r"--size 4 "),
        (Options(seed=4), r"--seed 4 "),
    ],
)
def test_numbers_that_these_files_do_not_have(
    tmp_path: Path, out: Path, options: Options, message: str
) -> None:
    with pytest.raises(SriError, match=message) as caught:
        prepare_from(write_files(tmp_path), out, options)
    assert caught.value.hint and not out.exists()


def test_of_some_scenarios_all_kinds_are_taken(tmp_path: Path, out: Path) -> None:
    """Not the first of the alphabet, and more scenarios keep those that fewer have."""
    names = [f"env_ccs-easy-h={h}-vcom=0-vpsf=0-v={v}" for h in range(2, 7) for v in range(20, 28)]
    others = {"eval": LISTS["eval"], "test": LISTS["test"]}
    root = write_files(
        tmp_path, names=names + [f"env_{n}" for ns in others.values() for n in ns], cameras=(1,)
    )
    write_lists(root, {"train": names, **others})
    heights, chosen = set(), []
    for number in (10, 20):
        options = Options(scenes=number, val_scenes=1, test_scenes=2)
        factors = prepare_from(root, out, options, force=True).data.split("train").factors
        heights = set(factors["height"].tolist())
        chosen.append(set(factors["scenario"].tolist()))
        assert len(heights) >= 4 and len(chosen[-1]) == number
    assert chosen[0] < chosen[1]


@pytest.mark.parametrize("source", ["bucket", "nowhere", "mirorr", "empty", "lists"])
def test_sources_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_lists(Path("lists/shapestacks"), LISTS)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SriError) as caught:
        prepare_from(Path(source), tmp_path / "out-64.h5")
    assert caught.value.exit_code == 2 and caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_the_error_for_archives_is_the_commands_that_unpack_them(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path / "files")
    place = tmp_path / "archives"
    place.mkdir()
    parts = {"meta": ["splits"], "rgb": ["recordings"], "iseg": ["iseg"]}
    for kind, folders in parts.items():
        with tarfile.open(place / f"shapestacks-{kind}.tar.gz", "w:gz", compresslevel=1) as tar:
            for folder in folders:
                tar.add(root / folder, f"shapestacks/{folder}")
    with pytest.raises(SriError, match="not unpacked") as caught:
        prepare_from(place, out)
    assert caught.value.hint is not None
    commands = caught.value.hint.split(" && ")
    assert len(commands) == 3
    for command in commands[:2]:
        subprocess.run(command, shell=True, check=True)
    with pytest.raises(SriError, match="instance maps are not") as caught:
        prepare_from(place, out)
    assert caught.value.hint == commands[2]
    subprocess.run(commands[2], shell=True, check=True)
    unpacked = prepare_from(place, out).data.path.read_bytes()
    assert prepare_from(root, tmp_path / "again-64.h5").data.path.read_bytes() == unpacked
