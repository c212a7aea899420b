"""Multi-dSprites and Tetrominoes: records in their published layout, and simulated scenes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from sri_cli.data.dataset import DataFile
from sri_cli.data.simulate.flat import (
    ELLIPSE,
    HALF_SQUARE,
    HEART,
    SQUARE,
    TETROMINO_COLOURS,
    TETROMINOES,
    VARIANTS,
    Sprite,
    simulate_sprites,
    simulate_tetrominoes,
)
from tests import small_cli
from tests.foreign_records import example, floats, one_string, single_bytes, write
from tests.small_server import serving

pytestmark = pytest.mark.usefixtures("here")
FEW = ("--val-scenes", "1", "--test-scenes", "1")
sri = partial(small_cli.sri, "prepare")


def sprites(entities: int, channels: int, **changes: bytes) -> bytes:
    """A record with sprites in columns 10 k to 10 k + 11, so that each overlaps the next by two."""
    masks = np.zeros((64, 64, entities, 1), np.uint8)  # entities third
    for entity in range(1, entities):
        masks[20:30, 10 * entity : 10 * entity + 12, entity] = 255
    masks[..., 0, 0] = 255 * (masks[..., 1:, 0].max(-1) == 0)
    image = np.arange(64 * 64 * channels).reshape(64, 64, channels) % 251
    numbers = dict.fromkeys(("x", "y", "shape", "visibility", "orientation", "scale"))
    features = {name: floats(range(entities)) for name in numbers}
    features["color"] = floats(range(entities * channels))
    features |= {"image": single_bytes(image), "mask": single_bytes(masks)} | changes
    return example({name: value for name, value in features.items() if value})


@pytest.mark.parametrize(
    ("variant", "entities", "channels"),
    [("binarized", 4, 1), ("colored_on_grayscale", 6, 3), ("colored_on_colored", 5, 3)],
)
def test_sprites_as_published(variant: str, entities: int, channels: int) -> None:
    """The file's name says the variant; grey images get three channels; the first of overlapping
    entities has the pixel, as in the other data sets."""
    file = f"multi_dsprites_{variant}.tfrecords"
    write(Path(file), [sprites(entities, channels)] * 3)
    sri("multi-dsprites", "--from", file, *FEW, code=0)
    plain = variant == "colored_on_grayscale"
    name = "multi-dsprites" + ("" if plain else f"-{variant.replace('_', '-')}")
    data = DataFile(f"data/{name}-64.h5")
    assert (data.name, data.background_labels, data.source) == (name, 1, "original")
    split = data.split("train")
    expected = np.arange(64 * 64 * channels).reshape(64, 64, channels) % 251
    assert (split.images[0] == np.broadcast_to(expected, (64, 64, 3))).all()
    row = [0] * 10 + [1] * 12 + [2] * 10 + [3] * 10 + [4] * 10 + [5] * 10
    assert split.masks[0, 25, : 10 * entities + 2].tolist() == [
        min(label, entities - 1) if label < entities else 0
        for label in (row + [0] * 9)[: 10 * entities + 2]
    ]
    assert split.factors["color"].shape == (1, entities, channels) or channels == 1
    assert split.factors["scale"].tolist() == [list(range(entities))]


def damages() -> Iterable[tuple[str, bytes]]:
    yield "multi-dsprites", sprites(4, 3)  # too few entities
    yield "multi-dsprites", sprites(6, 1)
    yield "multi-dsprites", sprites(6, 3, mask=one_string(np.zeros((64, 64, 6))[:63]))
    yield "multi-dsprites", sprites(6, 3, color=floats(range(5)))
    yield "multi-dsprites", sprites(6, 3, scale=b"")
    yield "tetrominoes", sprites(4, 3)
    yield "tetrominoes", b"nothing"


@pytest.mark.parametrize(("name", "bad"), list(damages()))
def test_damaged_records_and_other_sets(name: str, bad: bytes) -> None:
    good = sprites(6, 3) if name == "multi-dsprites" else pieces(0)
    write(Path("some.tfrecords"), [good, bad, good])
    assert "record 2: " in sri(name, "--from", "some.tfrecords", *FEW, code=2).stderr
    assert not list(Path().glob("data/*"))


def test_wrong_variants() -> None:
    write(Path("some.tfrecords"), [sprites(4, 1)] * 3)
    assert "--variant" in sri("multi-dsprites", "--from", "some.tfrecords", *FEW, code=2).stderr
    words = ("multi-dsprites", "--from", "some.tfrecords", "--variant", "binarized", *FEW)
    assert sri(*words).exit_code == 0
    assert DataFile("data/multi-dsprites-binarized-64.h5").counts["train"] == 1
    for words in (
        ("multi-dsprites", "--variant", "no"),
        ("multi-dsprites", "--views", "2"),
        ("tetrominoes", "--variant", "binarized"),
        ("tetrominoes", "--from", "nothing.tfrecords"),
        ("tetrominoes", "--from", "."),
    ):
        assert sri(*words).exit_code == 2, words


def pieces(number: int) -> bytes:
    """Three pieces: 5 px cells at the left edge, colours by number."""
    masks = np.zeros((4, 35, 35), np.uint8)
    for entity in range(1, 4):
        masks[entity, 10 * entity - 10 : 10 * entity - 5, :20] = 255
    masks[0] = 255 * (masks.max(0) == 0)
    image = np.zeros((35, 35, 3), np.uint8)
    image[masks[1:].max(0) > 0] = (number, 255, 0)
    more = {name: floats(range(4)) for name in ("x", "y", "shape", "visibility")}
    more["color"] = floats(range(12), packed=False)
    return example({"image": one_string(image), "mask": one_string(masks), **more})


def test_pieces_are_resized_from_35_px_unless_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write(Path("tetrominoes_train.tfrecords"), map(pieces, range(5)))
    with serving(file.read_bytes()) as server:
        monkeypatch.setenv("SRI_BUCKET", server.url.rpartition("/")[0])
        assert sri("tetrominoes", "--from", "bucket", *FEW).exit_code == 0
    assert os.listdir("data/downloads") == ["tetrominoes_train.tfrecords"]
    data = DataFile("data/tetrominoes-32.h5")
    split = data.split("train")
    assert "resize to 32" in data.attrs["preprocessing"]
    assert split.images.shape == (3, 32, 32, 3)
    assert np.bincount(split.masks[0].ravel()).argmax() == 0
    assert split.masks[0, [2, 11, 20, 30], 3].tolist() == [1, 2, 3, 0]
    assert split.images[0, 2, 3].tolist() == [2, 255, 0]
    assert sri("tetrominoes", "--from", ".", "--size", "35", *FEW).exit_code == 0
    whole = DataFile("data/tetrominoes-35.h5").split("test")
    assert np.bincount(whole.masks[0].ravel()).tolist() == [35 * 35 - 300, 100, 100, 100]
    assert whole.factors["color"].tolist() == [np.arange(12).reshape(4, 3).tolist()]


@pytest.mark.parametrize(("name", "px"), [("multi-dsprites", 64), ("tetrominoes", 35)])
def test_groups_of_efficientmorl(name: str, px: int) -> None:
    with h5py.File("some.h5", "w") as file:
        for split, count in (("train", 4), ("val", 2), ("test", 3)):
            masks = np.zeros((count, 4, px, px, 1), np.uint8)
            masks[:, 2, :20] = 255
            file[f"{split}/imgs"] = np.full((count, px, px, 3), 50 + count, np.uint8)
            file[f"{split}/masks"] = masks
    assert sri(name, "--from", "some.h5", "--size", "64").exit_code == 0
    data = DataFile(f"data/{name}-64.h5")
    assert data.counts == {"train": 4, "val": 2, "test": 3}
    assert np.unique(data.split("val").masks).tolist() == [0, 2]
    assert (data.split("test").images == 53).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_simulated_sprites(variant: str) -> None:
    """Every pixel has the colour of its label, and the factors say what is there."""
    fewest, most = VARIANTS[variant]
    seen = set()
    for index in range(20):
        scene = simulate_sprites(index, seed=1, variant=variant)
        factors = {name: values[0] for name, values in scene.factors.items()}
        count = int(factors["objects"])
        assert fewest <= count <= most
        labels = scene.masks[0]
        colours = np.concatenate([factors["background"][None], factors["colours"][:count]])
        assert (scene.images[0] == colours[labels]).all()
        assert np.unique(labels).tolist() == list(range(count + 1))
        sprites = [
            Sprite(int(shape), float(x), float(y), float(scale), float(turn), (0, 0, 0))
            for shape, (x, y), scale, turn in zip(
                *(factors[k] for k in ("shapes", "positions", "scales", "orientations")),
                strict=True,
            )
        ][:count]
        # The last sprite is in front and hides nothing of itself.
        assert (labels[sprites[-1].covers(64)] == count).mean() > 0.97  # float32 of factors
        assert factors["visible"][count - 1] == 1 and factors["visible"][:count].min() >= 0.2
        assert (factors["shapes"][count:] == -1).all() and (factors["scales"][count:] == 0).all()
        seen |= set(factors["shapes"][:count].tolist())
        assert variant != "binarized" or set(np.unique(scene.images)) == {0, 255}
        if variant == "colored_on_grayscale":
            assert len(set(factors["background"].tolist())) == 1
    assert seen == {SQUARE, ELLIPSE, HEART}
    assert (simulate_sprites(3, seed=2).images != simulate_sprites(3, seed=1).images).any()


@pytest.mark.parametrize(("shape", "area"), [(SQUARE, 4), (ELLIPSE, 2.859), (HEART, 3.662)])
def test_sprites_are_whole_at_any_angle(shape: int, area: float) -> None:
    for turn in np.linspace(0.2, 6, 7):
        for scale in (0.5, 1.0):
            at = scale * HALF_SQUARE * 2**0.5  # as far up and left as may be
            covered = Sprite(shape, at, at, scale, turn, (0, 0, 0)).covers(640)
            assert covered.mean() == pytest.approx(area * (scale * HALF_SQUARE) ** 2, rel=0.01)


def test_simulated_tetrominoes() -> None:
    assert len(TETROMINOES) == 19
    shapes, colours = set(), set()
    for index in range(60):
        scene = simulate_tetrominoes(index, size_px=35)
        labels = scene.masks[0]
        assert np.bincount(labels.ravel()).tolist() == [35 * 35 - 300, 100, 100, 100]
        cells = labels[::5, ::5]
        assert (cells.repeat(5, 0).repeat(5, 1) == labels).all()
        for label, shape in enumerate(scene.factors["shapes"][0], 1):
            rows, columns = np.nonzero(cells == label)
            box = cells[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert ((box == label) == TETROMINOES[shape]).all()
            centre = (np.array([columns.min() + columns.max(), rows.min() + rows.max()]) + 1) / 14
            assert scene.factors["positions"][0, label - 1] == pytest.approx(centre)
            colour = scene.factors["colours"][0, label - 1]
            assert (scene.images[0][labels == label] == colour).all()
            shapes.add(int(shape))
            colours.add(tuple(colour.tolist()))
    assert shapes == set(range(19)) and len(colours) == len(TETROMINO_COLOURS) == 6


@pytest.mark.parametrize("size", [32, 64, 96])
def test_simulated_sets_at_any_size(size: int) -> None:
    for words in (("multi-dsprites", "--variant", "binarized"), ("tetrominoes",)):
        numbers = ("--scenes", "3", *FEW, "--workers", "1", "--seed", "4", "--size", str(size))
        sri(*words, *numbers, code=0)
        data = DataFile(f"data/{'-'.join(words).replace('---variant', '')}-{size}.h5")
        assert data.source == "simulated" and data.split("train").masks.shape == (3, size, size)
        assert data.attrs["seed"] == 4 and data.counts == {"train": 3, "val": 1, "test": 1}
        assert sri(*words, *numbers).exit_code == 0  # up to date
