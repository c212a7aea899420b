"""Files of ShapeStacks: hand-drawn ones are read as expected, simulated ones are written and read.

Every drawn image has a frame of 14 px that the centre crop of 196 removes. The left half of the
rest has one colour, the right half another. A map marks rows and columns 49 to 97 of the crop,
which are 16 to 31 at 64 px.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sri_cli.atomic import temporary_beside
from sri_cli.data import prepare as preparing
from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.simulate.towers import simulate_tower
from sri_cli.data.source import Options
from sri_cli.data.sources import shapestacks
from sri_cli.data.sources.choose import choose_source, simulated
from sri_cli.data.sources.shapestacks import RawTowers, write_raw
from sri_cli.errors import Interrupted, SriError, SriFailure

FRAME = (255, 0, 255)
LEFT, RIGHT = (200, 40, 0), (0, 80, 120)
LISTS: Mapping[str, Sequence[str]] = {
    "train": (
        "ccs-easy-h=3-vcom=0-vpsf=0-v=1",
        "blocks-hard-h=6-vcom=2-vpsf=0-v=12",
        "ccs-hard-h=2-vcom=0-vpsf=1-v=100",
    ),
    "eval": ("ccs-easy-h=4-vcom=0-vpsf=0-v=7",),
    "test": ("blocks-easy-h=5-vcom=0-vpsf=3-v=2", "ccs-easy-h=2-vcom=0-vpsf=0-v=3"),
}
EVERY = [f"env_{name}" for names in LISTS.values() for name in names]
A, B, C = sorted(EVERY[:3])  # the training scenarios
CAMERAS = (1, 2, 10)
IMAGE_2 = "rgb-w=5-f=2-l=1-c=unique-cam_2-mono-0.png"


def draw_image(camera: int, mode: str = "RGB", side: int = 224) -> Image.Image:
    """`camera` is the red of the left half's top left corner after cropping, 49 px wide."""
    image = Image.new("RGB", (side, side), FRAME)
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, 111, 209), fill=LEFT)
    draw.rectangle((112, 14, 209, 209), fill=RIGHT)
    draw.rectangle((14, 14, 62, 62), fill=(camera, 0, 0))
    return image.convert(mode)


def draw_map(label: int, mode: str = "RGB") -> Image.Image:
    """One object; a corner of the frame and a strip of the crop are not assigned (7)."""
    image = Image.new("L", (224, 224), 0)
    draw = ImageDraw.Draw(image)
    draw.rectangle((63, 63, 111, 111), fill=32 * label)
    draw.rectangle((0, 0, 13, 13), fill=32 * 7)
    draw.rectangle((14, 161, 209, 209), fill=32 * 7)
    bands = [image, *(Image.new("L", image.size, 99) for _ in range(2))]  # only the first counts
    return Image.merge("RGB", bands).convert(mode)


def write_files(
    folder: Path,
    *,
    maps: str | None = "iseg",
    names: Iterable[str] = EVERY,
    cameras: Sequence[int] = CAMERAS,
    mode: str = "RGB",
) -> Path:
    """The folder `shapestacks` in `folder`; `maps` in iseg/ or recordings/, or None."""
    root = folder / "shapestacks"
    write_lists(root, LISTS)
    for name in names:
        recording = root / "recordings" / name
        recording.mkdir(parents=True)
        (recording / "log.txt").write_text("not an image")
        for camera in cameras:
            path = recording / IMAGE_2.replace("cam_2", f"cam_{camera}")
            draw_image(camera, mode).save(path, "PNG")
        if maps:
            write_maps(root / maps / name, cameras, mode)
    return root


def write_lists(root: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """The split `default`, whose last lines have no end, as in the original."""
    folder = root / "splits" / "default"
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in lists.items():
        (folder / f"{file}.txt").write_bytes("\n".join(names).encode())


def write_maps(folder: Path, cameras: Sequence[int] = CAMERAS, mode: str = "RGB") -> None:
    """A scenario's maps: camera N marks object 1 + N % 6."""
    folder.mkdir(parents=True, exist_ok=True)
    for camera in cameras:
        path = folder / f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"
        draw_map(1 + camera % 6, mode).save(path, "PNG")


def prepare_from(
    folder: Path,
    out: Path,
    options: Options | None = None,
    *,
    split: str = "default",
    workers: int = 1,
    force: bool = False,
) -> Prepared:
    """`sri prepare shapestacks --from FOLDER --out OUT`."""
    downloads = out.parent / "data" / "downloads"
    source = choose_source(
        "shapestacks", options or Options(), str(folder), split=split, downloads=downloads
    )
    return prepare(source, out, workers=workers, force=force)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out-64.h5"


@pytest.mark.parametrize(("maps", "mode"), [("iseg", "RGB"), ("recordings", "RGBA")])
def test_images_masks_and_factors(tmp_path: Path, out: Path, maps: str, mode: str) -> None:
    data = prepare_from(write_files(tmp_path, maps=maps, mode=mode), out).data
    assert (data.name, data.source, data.size) == ("shapestacks", "original", 64)
    assert data.counts == {"train": 9, "val": 3, "test": 6} and data.background_labels == 1
    assert data.attrs["preprocessing"].startswith("centre crop 196; resize to 64 (Pillow bilinear)")
    train = data.split("train")
    for row, camera in enumerate(CAMERAS * 3):
        image, mask = np.asarray(train.images[row]), train.masks[row]
        # 196 px become 64: beyond 3 px from an edge nothing of the other side is left.
        assert (image[19:, :29] == LEFT).all() and (image[:, 35:] == RIGHT).all()
        assert (image[:13, :13] == (camera, 0, 0)).all()
        assert not (image == FRAME).all(-1).any()
        expected = np.zeros((64, 64), np.uint8)
        expected[16:32, 16:32] = 1 + camera % 6
        assert np.array_equal(mask, expected)
    factors = {name: values.tolist() for name, values in train.factors.items()}
    assert factors["scenario"] == [name.encode() for name in (A, B, C) for _ in CAMERAS]
    assert A == "env_blocks-hard-h=6-vcom=2-vpsf=0-v=12"  # sorted: then ccs-easy, ccs-hard
    scenes = {key: factors[key][:: len(CAMERAS)] for key in ("height", "vcom", "vpsf", "stable")}
    expected_factors = {"height": [6, 3, 2], "vcom": [2, 0, 0], "vpsf": [0, 0, 1]}
    assert scenes == expected_factors | {"stable": [0, 1, 0]}
    assert factors["camera"] == list(CAMERAS) * 3  # 2 before 10
    assert train.factors["camera"].dtype == train.factors["stable"].dtype == np.int16


def test_workers_folder_and_line_ends_do_not_matter(tmp_path: Path, out: Path) -> None:
    root, again = write_files(tmp_path / "a"), tmp_path / "again-64.h5"
    prepare_from(root, out)
    prepare_from(root.parent, again, workers=4)
    assert out.read_bytes() == again.read_bytes()
    root = root.rename(tmp_path / "moved")
    train = root / "splits" / "default" / "train.txt"
    names = [f"env_{name}" for name in reversed(LISTS["train"])]
    for text in ("\n".join(names) + "\n\n\n", "\r\n".join(names) + "\r\n"):
        train.write_bytes(text.encode())
        assert prepare_from(root, again).made == 0


def test_fewer_scenarios_and_views(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path)
    few = prepare_from(root, out, Options(size_px=32, scenes=2, test_scenes=1, views=2)).data
    assert few.counts == {"train": 4, "val": 2, "test": 2} and few.size == 32
    assert few.split("train").factors["camera"].tolist() == [1, 2, 1, 2]
    parameters = few.attrs["parameters"]
    expected = {"split": "default", "train": 2, "val": 1, "test": 1, "views": 2}
    assert {key: parameters[key] for key in expected} == expected
    with pytest.raises(SriError, match="train 2 -> not given"):
        prepare_from(root, out, Options(size_px=32, views=2))


def test_other_lists_make_another_file(tmp_path: Path, out: Path) -> None:
    root = write_files(tmp_path)
    prepare_from(root, out)
    write_lists(root, {"train": LISTS["train"], "eval": LISTS["test"], "test": LISTS["eval"]})
    with pytest.raises(SriError, match="scenarios_sha256"):
        prepare_from(root, out)
    shutil.copytree(root / "splits" / "default", root / "splits" / "ccs_all")
    with pytest.raises(SriError, match="split default -> ccs_all"):
        prepare_from(root, out, split="ccs_all")
    with pytest.raises(SriError, match=r"cc_all.*\n.*ccs_all, default"):
        prepare_from(root, out, split="cc_all")


def test_without_maps_there_are_no_masks(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_files(tmp_path, maps=None)
    assert prepare_from(root, out).data.split("train").masks is None
    assert "ARI" in capsys.readouterr().err
    for name in EVERY:
        write_maps(root / "iseg" / name)
    with pytest.raises(SriError, match="masks False -> True"):
        prepare_from(root, out)


def edit(file: str, text: str) -> Callable[[Path], object]:
    """Another content for a split list."""
    return lambda root: (root / "splits" / "default" / file).write_text(text)


def save(image: Image.Image, file: str) -> Callable[[Path], None]:
    return lambda root: image.save(root / "recordings" / A / file, "PNG")


def remove(pattern: str) -> Callable[[Path], None]:
    def all_of_them(root: Path) -> None:
        for path in list(root.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return all_of_them


def fill_maps(value: int) -> Callable[[Path], None]:
    """Labels below 32, the step of the original's."""

    def fill(root: Path) -> None:
        for path in root.rglob("*.map"):
            Image.new("L", (224, 224), value).save(path, "PNG")

    return fill


def cut_image(root: Path) -> None:
    path = root / "recordings" / B / IMAGE_2
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (cut_image, f"{B}/{IMAGE_2}"),
        (edit("eval.txt", " \r\n\n"), r"eval\.txt"),
        (edit("test.txt", "../../etc"), r"test\.txt line 1 .*'../../etc'"),
        (edit("eval.txt", A), rf"{A} .*train\.txt.*eval\.txt"),
        (remove("splits/default/eval.txt"), r"eval\.txt"),
        (remove("splits/default"), r"train\.txt"),
        (remove("splits"), r"train\.txt"),
        (remove(f"recordings/{B}"), rf"1 of 6 .* {B}"),
        (remove(f"recordings/{A}/*cam_2*.png"), A),
        (remove(f"iseg/{C}"), rf"1 of 6 .* {C}"),
        (remove(f"iseg/{C}/*cam_10*"), rf"{C} .*10"),
        (fill_maps(3), rf"{A}/iseg-.*cam_1-mono-0\.map"),
        (save(draw_image(2, side=192), IMAGE_2), "192x192"),
        (save(draw_image(2), "rgb-w=0-cam_2-x.png"), "camera 2"),
    ],
)
def test_faults_name_the_file_and_leave_nothing(
    tmp_path: Path, out: Path, spoil: Callable[[Path], None], named: str
) -> None:
    root = write_files(tmp_path)
    spoil(root)
    with pytest.raises(SriError, match=named) as caught:
        prepare_from(root, out, workers=2)
    assert caught.value.exit_code == 2 and caught.value.hint
    assert "\n" not in caught.value.message and not list(tmp_path.glob("out*"))


def test_a_disk_that_fails_once_costs_no_rows(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 1)
    path = write_files(tmp_path) / "recordings" / B / IMAGE_2
    path.rename(tmp_path / "away")
    path.symlink_to("nothing")
    with pytest.raises(SriFailure, match=IMAGE_2):
        prepare_from(tmp_path, out)
    path.unlink()
    (tmp_path / "away").rename(path)
    assert prepare_from(tmp_path, out).resumed_from == len(CAMERAS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(scenes=4), "--scenes 4"),
        (Options(test_scenes=3), "--test-scenes 3"),
        (Options(views=4), "--views 4"),
        (Options(seed=4), "--seed 4"),
    ],
)
def test_numbers_that_these_files_do_not_have(
    tmp_path: Path, out: Path, options: Options, named: str
) -> None:
    with pytest.raises(SriError, match=rf"{named}.*\n."):
        prepare_from(write_files(tmp_path), out, options)
    assert not out.exists()


def test_some_scenarios_are_of_all_kinds(tmp_path: Path, out: Path) -> None:
    """Not the first of the alphabet, and more scenarios include those of fewer."""
    names = [f"env_ccs-easy-h={h}-vcom=0-vpsf=0-v={v}" for h in range(2, 7) for v in range(20, 28)]
    root = write_files(tmp_path, names=[*names, *EVERY[3:]], cameras=(1,))
    write_lists(root, {**LISTS, "train": names})
    chosen = []
    for number in (10, 20):
        options = Options(scenes=number, val_scenes=1, test_scenes=2)
        factors = prepare_from(root, out, options, force=True).data.split("train").factors
        chosen.append(set(factors["scenario"].tolist()))
        assert len(set(factors["height"])) >= 4 and len(chosen[-1]) == number
    assert chosen[0] < chosen[1]


def test_the_error_for_archives_is_the_commands_that_unpack_them(tmp_path: Path, out: Path) -> None:
    root, folder = write_files(tmp_path / "files"), tmp_path / "my archives"
    folder.mkdir()
    for kind, part in {"meta": "splits", "rgb": "recordings", "iseg": "iseg"}.items():
        with tarfile.open(folder / f"shapestacks-{kind}.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add(root / part, f"shapestacks/{part}")
    with pytest.raises(SriError, match=str(folder)) as caught:
        prepare_from(folder, out)
    commands = (caught.value.hint or "").split(" && ")
    assert len(commands) == 3
    for command in commands[:2]:
        subprocess.run(command, shell=True, check=True)
    with pytest.raises(SriError, match="instance maps") as caught:
        prepare_from(folder, out)
    assert caught.value.hint == commands[2]
    subprocess.run(commands[2], shell=True, check=True)
    unpacked = prepare_from(folder, out).data.path.read_bytes()
    assert prepare_from(root, tmp_path / "again-64.h5").data.path.read_bytes() == unpacked


# Simulated towers as files: `--raw DIR`

OPTIONS = Options(64, scenes=3, val_scenes=1, test_scenes=1, views=2, seed=5)
TOWERS = simulated("shapestacks", OPTIONS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The towers' files, written once; not to be changed."""
    folder = tmp_path_factory.mktemp("raw")
    write_raw(TOWERS, folder, 1)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def from_raw(folder: Path, out: Path, options: Options = OPTIONS, workers: int = 2) -> Prepared:
    return prepare(RawTowers(simulated("shapestacks", options), folder), out, workers=workers)


def test_the_layout_of_the_original(raw: Path) -> None:
    root = raw / "shapestacks"
    lists = {file: (root / f"splits/default/{file}.txt").read_text().split() for file in LISTS}
    assert {file: len(names) for file, names in lists.items()} == {"train": 3, "eval": 1, "test": 1}
    names = sorted(sum(lists.values(), []))
    assert len(set(names)) == 5 and names == sorted(os.listdir(root / "recordings"))
    for name in names:
        assert re.fullmatch(r"env_ccs-easy-h=\d-vcom=\d-vpsf=\d-v=\d+", name)
        files = os.listdir(root / "recordings" / name)
        cameras = sorted(re.findall(r"cam_(\d+)-mono-0\.", " ".join(files)))
        assert len(files) == 4 and cameras[0] == cameras[1] != cameras[2] == cameras[3]
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (224, 224))
    for path in root.rglob("*.map"):
        height = int(re.findall(r"h=(\d)", path.parent.name)[0])
        with Image.open(path) as image:
            levels = set(np.unique(np.asarray(image)[..., 0]).tolist())
        assert levels == {32 * label for label in range(height + 1)}


# At 196 px nothing is shrunk and pixel meets pixel. At 64, one is rendered so small and the other
# cut and shrunk: they differ at edges, and a tower is little more than edges. The grain of floors
# and walls differs at either size, for only the smaller images are softened as they are drawn.
@pytest.mark.parametrize(
    ("size_px", "least_same", "least_iou", "most_apart"),
    [(196, 0.9999, 0.999, 6), (64, 0.99, 0.9, 5)],
)
def test_read_back_they_are_the_towers_simulated(
    raw: Path, tmp_path: Path, size_px: int, least_same: float, least_iou: float, most_apart: float
) -> None:
    data = prepare_from(raw, tmp_path / "back.h5", Options(size_px=size_px)).data
    assert data.caption == "shapestacks, simulated"
    assert data.attrs["seed"] == 5 and data.attrs["parameters"]["preset"] == "original"
    train = data.split("train")
    names = [name.decode() for name in train.factors["scenario"]]
    for index in range(TOWERS.scenes["train"]):
        direct = simulate_tower(index, size_px=size_px, views=2, preset="original", seed=5)
        at = names.index(direct.name)
        images, masks = np.asarray(train.images[at : at + 2]), train.masks[at : at + 2]
        both, either = (masks > 0) & (direct.masks > 0), (masks > 0) | (direct.masks > 0)
        assert (masks == direct.masks).mean() > least_same
        assert both.sum() / either.sum() > least_iou
        assert set(np.unique(masks)) == set(np.unique(direct.masks))
        assert np.abs(images.astype(int) - direct.images).mean() < most_apart
        for key in ("height", "stable", "vcom", "vpsf"):
            assert np.array_equal(train.factors[key][at : at + 2], direct.factors[key])
        assert np.array_equal(train.factors["camera"][at : at + 2], direct.factors["camera"] + 1)


def test_one_command_writes_and_reads(raw: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "raw", tmp_path / "towers-64.h5"
    assert from_raw(folder, path).made == 10 and tree(folder) == tree(raw)
    assert path.read_bytes() == prepare_from(raw, tmp_path / "from-64.h5").data.path.read_bytes()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")}
    assert from_raw(folder, path).made == 0
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")}
    # The data file says nothing about the folder.
    assert from_raw(tmp_path / "other", path).made == 0 and tree(tmp_path / "other") == tree(raw)
    with pytest.raises(SriError, match="seed 5 -> 6"):  # refused before the rendering
        from_raw(tmp_path / "new", path, replace(OPTIONS, seed=6))
    assert not (tmp_path / "new").exists()


def test_interrupted_writing_resumes(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    write = shapestacks.write_scenario

    def stopping(*args: Any) -> None:
        made.append(args[-1])
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        write(*args)

    monkeypatch.setattr(shapestacks, "write_scenario", stopping)
    with pytest.raises(Interrupted):
        from_raw(tmp_path, tmp_path / "a-64.h5", workers=1)
    with pytest.raises(SriError, match=r"no split list.*\n.*--raw"):
        prepare_from(tmp_path, tmp_path / "x-64.h5")
    # An unfinished scenario, as a killed process leaves it, is written anew.
    (whole,) = (tmp_path / "shapestacks" / "recordings").iterdir()
    half = whole.rename(temporary_beside(whole))
    next(half.glob("*.png")).unlink()
    write_raw(TOWERS, tmp_path, 1)
    assert tree(tmp_path) == tree(raw)


def test_folders_with_other_files_are_refused(raw: Path, tmp_path: Path) -> None:
    before = tree(raw)
    write_files(tmp_path / "original", names=[])
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "shapestacks-rgb.tar.gz").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    other = simulated("shapestacks", replace(OPTIONS, seed=6))
    for folder in (*tmp_path.iterdir(), raw):
        with pytest.raises(SriError, match=rf"{folder}.*\n.*--raw DIR"):
            write_raw(other, folder, 1)
    write_raw(simulated("shapestacks", replace(OPTIONS, size_px=32)), raw, 1)
    assert tree(raw) == before  # the size of the data file is no property of the towers
    record = json.loads((raw / "shapestacks" / "simulated.json").read_text())
    assert record["parameters"]["views"] == 2 and "size_px" not in record["parameters"]


@pytest.mark.parametrize("wrong", [{"preset": "demo"}, {"where": "mirror"}])
def test_raw_is_for_simulated_towers_of_the_original(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(SriError, match="--raw"):
        choose_source("shapestacks", Options(), raw=tmp_path / "raw", downloads=tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
