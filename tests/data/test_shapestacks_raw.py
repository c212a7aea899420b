"""Simulated towers written as files of ShapeStacks: read back, they are the towers simulated."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sri_cli.data.prepare import Prepared, prepare
from sri_cli.data.simulate.towers import simulate_tower
from sri_cli.data.source import Options, Simulation
from sri_cli.data.sources import shapestacks_raw as writing
from sri_cli.data.sources.shapestacks import choose_source, simulated_towers
from sri_cli.data.sources.shapestacks_raw import RawTowers
from sri_cli.data.sources.shapestacks_raw import write_raw as write_raw_files
from sri_cli.errors import Interrupted, SriError
from tests.small_shapestacks import prepare_from, write_files

OPTIONS = Options(64, scenes=3, val_scenes=1, test_scenes=1, views=2, seed=5)
TOWERS = simulated_towers(OPTIONS)


def write_raw(
    towers: Simulation, folder: Path, workers: int = 1, command: str = "the command"
) -> None:
    write_raw_files(towers, folder, workers, command)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The towers' files, written once; not to be changed."""
    folder = tmp_path_factory.mktemp("raw")
    write_raw(TOWERS, folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_layout_of_the_original(raw: Path) -> None:
    root = raw / "shapestacks"
    lists = {
        file: (root / "splits" / "default" / f"{file}.txt").read_text().split()
        for file in ("train", "eval", "test")
    }
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
    height = {name: int(re.findall(r"h=(\d)", name)[0]) for name in names}
    for path in root.rglob("*.map"):
        with Image.open(path) as image:
            levels = set(np.unique(np.asarray(image)[..., 0]).tolist())
        assert levels == {32 * label for label in range(height[path.parent.name] + 1)}


# At 196 px nothing is shrunk and pixel meets pixel. At 64, one is rendered so small and the other
# cut and shrunk: they differ at edges, and a tower is little more than edges. The grain of floors
# and walls differs at either size, for only the smaller pictures are softened as they are drawn.
@pytest.mark.parametrize(
    ("size_px", "least_same", "least_iou", "most_apart"),
    [(196, 0.9999, 0.999, 6), (64, 0.99, 0.9, 5)],
)
def test_read_back_they_are_the_towers_simulated(
    raw: Path,
    tmp_path: Path,
    size_px: int,
    least_same: float,
    least_iou: float,
    most_apart: float,
) -> None:
    data = prepare_from(raw, tmp_path / "back.h5", Options(size_px=size_px)).data
    assert data.source == "simulated" and data.caption == "shapestacks, simulated"
    assert data.attrs["seed"] == 5 and data.attrs["parameters"]["preset"] == "original"
    train = data.split("train")
    assert train.masks is not None
    names = [name.decode() for name in train.factors["scenario"]]
    for index in range(TOWERS.scenes["train"]):
        direct = simulate_tower(index, size_px=size_px, views=2, preset="original", seed=5)
        at = names.index(direct.name)
        images, masks = np.asarray(train.images[at : at + 2]), train.masks[at : at + 2]
        assert direct.masks is not None
        both, either = (masks > 0) & (direct.masks > 0), (masks > 0) | (direct.masks > 0)
        assert (masks == direct.masks).mean() > least_same
        assert both.sum() / either.sum() > least_iou
        assert set(np.unique(masks)) == set(np.unique(direct.masks))
        assert np.abs(images.astype(int) - direct.images).mean() < most_apart
        for key in ("height", "stable", "vcom", "vpsf"):
            assert np.array_equal(train.factors[key][at : at + 2], direct.factors[key])
        assert np.array_equal(train.factors["camera"][at : at + 2], direct.factors["camera"] + 1)


def test_the_same_bytes_by_any_number_of_workers(raw: Path, tmp_path: Path) -> None:
    write_raw(TOWERS, tmp_path / "again", workers=3)
    assert tree(tmp_path / "again") == tree(raw)


def from_raw(folder: Path, out: Path, options: Options = OPTIONS) -> Prepared:
    return prepare(RawTowers(simulated_towers(options), folder), out, workers=2)


def test_one_command_writes_reads_and_keeps(raw: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "raw", tmp_path / "towers-64.h5"
    assert from_raw(folder, path).made == 10 and tree(folder) == tree(raw)
    assert path.read_bytes() == prepare_from(raw, tmp_path / "from-64.h5").data.path.read_bytes()
    before = {place: place.stat().st_mtime_ns for place in folder.rglob("*.png")}
    assert from_raw(folder, path).made == 0
    assert before == {place: place.stat().st_mtime_ns for place in folder.rglob("*.png")}


def test_what_the_header_will_be_is_known_before(raw: Path, tmp_path: Path) -> None:
    data = prepare_from(raw, tmp_path / "back-64.h5").data
    assert dict(RawTowers(TOWERS, raw).header.parameters) == data.attrs["parameters"]
    other = replace(OPTIONS, seed=6)
    with pytest.raises(SriError, match="seed 5 -> 6"):
        from_raw(tmp_path / "new", data.path, other)
    with pytest.raises(SriError, match="towers.txt"):
        from_raw(tmp_path / "new", tmp_path / "towers.txt", other)
    assert not (tmp_path / "new").exists()  # refused before the rendering


def test_a_stopped_writing_goes_on(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    write = writing.write_scenario

    def stopping(*args: Any) -> None:
        made.append(args[-1])
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        write(*args)

    monkeypatch.setattr(writing, "write_scenario", stopping)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after 4 of 10 views") as caught:
        write_raw(TOWERS, tmp_path, workers=1, command="the command")
    assert caught.value.hint == "resume: the command"
    with pytest.raises(SriError, match="no split list") as cut:
        (tmp_path / "shapestacks" / "splits").mkdir()
        prepare_from(tmp_path, tmp_path / "x-64.h5")
    assert "--raw" in (cut.value.hint or "")
    with pytest.raises(SriError, match="no split list") as other:
        (tmp_path / "shapestacks" / "splits" / "default").mkdir()
        prepare_from(tmp_path, tmp_path / "x-64.h5", split="ccs_all")
    assert other.value.hint == "available: default"
    # A scenario that was cut short is written anew.
    whole = next((tmp_path / "shapestacks" / "recordings").iterdir())
    half = whole.rename(whole.with_name(f"{whole.name}.unfinished"))
    next(half.glob("*.png")).unlink()
    write_raw(TOWERS, tmp_path)
    assert len(made) == 6 and len(set(made)) == 5 and not half.exists()
    assert tree(tmp_path) == tree(raw)


def test_a_folder_that_holds_other_things(tmp_path: Path) -> None:
    write_files(tmp_path / "original", names=[])
    with pytest.raises(SriError, match="other files: shapestacks"):
        write_raw(TOWERS, tmp_path / "original")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "shapestacks-rgb.tar.gz").write_bytes(b"")
    with pytest.raises(SriError, match="shapestacks-rgb"):
        write_raw(TOWERS, tmp_path / "packed")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SriError, match="is a file"):
        write_raw(TOWERS, tmp_path / "file")


def test_towers_of_other_numbers_are_not_mixed(raw: Path) -> None:
    before = tree(raw)
    with pytest.raises(SriError, match="other parameters") as caught:
        write_raw(simulated_towers(replace(OPTIONS, seed=6)), raw)
    assert "--raw DIR" in (caught.value.hint or "")
    # The size of the data file is no number of theirs.
    write_raw(simulated_towers(replace(OPTIONS, size_px=32)), raw)
    assert tree(raw) == before
    record = json.loads((raw / "shapestacks" / "simulated.json").read_text())
    assert record["parameters"]["views"] == 2 and "size_px" not in record["parameters"]


@pytest.mark.parametrize("wrong", [{"preset": "demo"}, {"where": "mirror"}])
def test_raw_is_for_simulated_towers_of_the_original(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(SriError, match="--raw"):
        choose_source(Options(), raw=tmp_path / "raw", downloads=tmp_path, **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
