"""Every reader of files gives a value or an SriError for files with flipped bytes or a lost end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from sri_cli.config.load import load_recipe
from sri_cli.config.registry import recipe_path
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.image_files import Frame, Unreadable, decode_image, decode_labels, is_lossy
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError
from sri_cli.labeling.session import Session
from sri_cli.metrics.images import open_folder
from sri_cli.metrics.records import read_records
from sri_cli.metrics.tables import evaluation_text, paper_tables
from sri_cli.plotting.blocks import TrainingLog, training_charts
from sri_cli.strict_json import to_json
from sri_cli.training.importing import read_official
from sri_cli.training.log import read_log
from tests.labeling.conftest import small_session
from tests.small_data import write_small_data
from tests.small_measurements import ARI, BITS, measured

VARIANTS = int(os.environ.get("SRI_DAMAGED_VARIANTS", "8"))  # of each file
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)


def variants(data: bytes, count: int) -> Iterator[bytes]:
    """Copies with one to eight flipped bits, in the first kilobyte or anywhere; some are cut."""
    for number in range(count):
        random = np.random.default_rng((7, number))
        copy = bytearray(data)
        for _ in range(random.integers(1, 9)):
            end = min(1024, len(copy)) if random.random() < 0.5 else len(copy)
            copy[random.integers(end)] ^= 1 << int(random.integers(8))
        yield bytes(copy[: random.integers(len(copy))] if random.random() < 0.3 else copy)


def write_images(path: Path) -> Callable[[], Any]:
    path.parent.mkdir()
    if path.suffix == ".npz":
        np.savez_compressed(path, images=PIXELS)
    elif path.suffix == ".npy":
        np.save(path, PIXELS)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=PIXELS, compression="gzip", chunks=(2, 16, 16, 3))
    else:
        Image.fromarray(PIXELS[0]).save(path)
    return lambda: open_folder(path.parent).sha256()


def write_picture(path: Path) -> Callable[[], Any]:
    Image.fromarray(PIXELS[0, :, :, 0]).save(path, lossless=True)

    def read() -> None:
        try:
            decode_image(path, Resizing(16))
            if not is_lossy(path):  # refused as labels
                decode_labels(path, Frame(16, 16), Resizing(16))
        except Unreadable as error:
            raise SriError(str(error)) from error

    return read


def write_data_file(path: Path) -> Callable[[], Any]:
    write_small_data(path, 4, 16)

    def read() -> None:
        data = DataFile(path)
        for name in SPLITS:
            split = data.split(name)
            assert np.array(split.images).shape == (data.counts[name], data.size, data.size, 3)
            assert all(len(values) == len(split) for values in split.factors.values())
            assert split.masks is None or split.masks.shape == split.images.shape[:3]

    return read


def write_measurements(path: Path) -> Callable[[], Any]:
    lines = [measured(*ARI, 0.5, interval=(0.4, 0.6)), measured(*BITS, 0.8)]
    path.write_text("".join(to_json(one) + "\n" for one in lines))

    def read() -> None:
        records = [{**m, "subject": lines[0]["subject"]} for m in read_records(path.parent)]
        evaluation_text(records)
        paper_tables(records)

    return read


def write_log(path: Path) -> Callable[[], Any]:
    keys = ("error_per_element/segregation", "kl/segregation", "images_per_second")
    path.write_text(
        "".join(to_json({"step": s, **dict.fromkeys(keys, 1 / s)}) + "\n" for s in (1, 2))
    )
    return lambda: training_charts([TrainingLog("a", True, 0.5, read_log(path))])


def write_answers(path: Path) -> Callable[[], Any]:
    folder = small_session(path.parent / "labels", num=4, models=1, catch=0)
    session = Session(folder, "Ann")
    session.answer({0: "plausible", 2: "unsure"}, seconds=1.5)
    session.undo()
    shutil.move(folder, path.parent / "session")
    return lambda: Session(path.parent / "session", "Ann").state()


def write_pth(path: Path, zipped: bool = True) -> Callable[[], Any]:
    tensors = {f"encoder.down.{i}.weight": torch.randn(3, 4) for i in range(3)}
    content = {"model_state_dict": tensors, "beta": np.float64(0.5), "iter_idx": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return lambda: read_official(path)


FILES: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "given/a.png": write_images,
    "given/a.npz": write_images,
    "given/a.npy": write_images,
    "given/a.h5": write_images,
    "picture.png": write_picture,
    "picture.jpg": write_picture,
    "picture.tif": write_picture,
    "picture.webp": write_picture,
    "data-16.h5": write_data_file,
    "metrics.jsonl": write_measurements,
    "log.jsonl": write_log,
    "session/answers.jsonl": write_answers,
    "session/session.json": write_answers,
    "session/pictures.npz": write_answers,
    "zip.pth": write_pth,
    "legacy.pth": lambda path: write_pth(path, zipped=False),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")  # of Pillow and NumPy
def test_damage_is_a_value_or_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    read = FILES[name](tmp_path / (name if name.count("session") == 0 else "x"))
    read()  # the whole file has a value
    for data in variants(path.read_bytes(), VARIANTS):
        path.write_bytes(data)
        with suppress(SriError):
            read()


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_recipe_is_a_recipe_or_one_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    for data in variants(recipe_path("sri-mog").read_bytes(), 2 * VARIANTS):
        file.write_bytes(data)
        with suppress(SriError):
            load_recipe(str(file))
