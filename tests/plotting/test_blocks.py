"""Images, grids and panels: every pixel and colour in its position; logs to charts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import Scenes
from sri_cli.plotting.blocks import (
    VOID_GREY,
    TrainingLog,
    contact_panel,
    contributions,
    flat_labels,
    label_colours,
    order_panel,
    training_charts,
)
from sri_cli.plotting.images import SLOT_COLOURS, blend_masks, caption, make_grid, slot_colours
from tests.small_data import write_data, write_small_data


def halves() -> np.ndarray:
    """Masks [2,4,4]: slot 0 has the left half, slot 1 the right one."""
    masks = np.zeros((2, 4, 4), np.float32)
    masks[0, :, :2] = masks[1, :, 2:] = 1
    return masks


def test_a_slot_shows_what_it_adds_on_white() -> None:
    rgb = np.full((1, 2, 4, 4, 3), 100, np.uint8)
    parts = contributions(rgb, halves()[None])
    assert (parts[0, 0, :, :2] == 100).all() and (parts[0, 0, :, 2:] == 255).all()
    half = contributions(rgb, np.full((1, 2, 4, 4), 0.5, np.float32))
    assert set(np.unique(half)) == {178}  # 255 - 77.5, rounded to even


def test_columns_of_slots_are_numbered_from_one_and_bear_their_colours() -> None:
    rng = np.random.default_rng(0)
    images, rgb = (rng.integers(0, 256, (3, *s, 4, 4, 3), np.uint8) for s in ((), (2,)))
    masks = np.stack([halves()] * 3)
    panel = order_panel(Scenes(images, rgb, masks))
    assert list(panel.columns) == ["image", "masks", "1", "2"]
    assert list(panel.slots) == [(), (), (0,), (1,)]
    assert np.array_equal(panel.cells[2][0], images[2])
    colours = slot_colours(2)
    assert (panel.cells[0][1][0] == colours[[0, 0, 1, 1]]).all()


def test_true_labels_have_the_colours_of_the_slots_that_fit_them() -> None:
    truth = np.full((4, 4), 7, np.uint8)
    truth[:, 2:] = 3
    truth[0, 0] = 9
    image = label_colours(truth, halves())
    colours = slot_colours(4)
    assert (image[1, 0] == colours[0]).all() and (image[1, 3] == colours[1]).all()
    assert image[0, 0].tolist() not in colours[:2].tolist()


def test_void_counts_for_no_slot() -> None:
    truth = np.array([[255, 255, 1, 2]] * 4, np.uint8)
    masks = (np.array([0, 0, 1, 2]) == np.arange(3)[:, None, None]).repeat(4, axis=1)
    image = label_colours(truth, masks.astype(np.float32), 255)
    assert (image[0, 2:] == slot_colours(3)[1:]).all() and (image[:, :2] == VOID_GREY).all()
    assert (label_colours(np.full_like(truth, 255), masks, 255) == VOID_GREY).all()


def test_each_quantity_has_a_chart_and_each_run_its_line() -> None:
    def log(name: str, own: str, normalised: bool = True) -> TrainingLog:
        records = [
            {"step": step, f"error_per_element/{own}": 1 / step, f"kl/{own}": 100 / step}
            for step in (10, 20)
        ]
        records[1]["kl/segregation"] = 3.0
        return TrainingLog(name, normalised, 0.5, records)

    legend, charts = training_charts([log("a", "imagination"), log("b", "genesis-v2")])
    by_caption = {chart.caption.partition(" (")[0]: chart for chart in charts}
    assert list(legend.keys) == ["a", "b"]
    # Each run's own objective, whatever its name.
    assert by_caption["KL, nats"].lines["b"] == [(10, 10.0), (20, 5.0)]
    assert by_caption["KL of segregation, nats"].lines["a"] == [(10, None), (20, 3.0)]
    assert by_caption["error, nats/dim"].goals == [0.5]
    _, charts = training_charts([log("a", "imagination"), log("b", "genesis-v2", False)])
    errors = [chart for chart in charts if chart.caption.startswith("error")]
    assert [list(chart.lines) for chart in errors] == [["a"], ["b"]]


def colours(n: int, h: int = 4, w: int = 5) -> np.ndarray:
    return np.stack([np.full((h, w, 3), i + 1, np.uint8) for i in range(n)])


def test_images_stand_row_by_row() -> None:
    assert make_grid(colours(9), gap=0, scale=2).shape == (24, 30, 3)  # about square
    grid = make_grid(colours(5), columns=3, gap=1)
    assert grid.shape == (9, 17, 3)
    assert grid[0, 0, 0] == 1 and grid[0, 6, 0] == 2 and grid[5, 0, 0] == 4
    assert (grid[4] == 255).all() and (grid[5:, 12:] == 255).all()


def test_a_caption_leaves_the_image_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 200, 3), dtype=np.uint8)
    out = caption(image, "a long caption that needs more than a single line, simulated")
    assert np.array_equal(out[-80:-20, 20:220], image)
    assert out[:-80].min() < 100  # some ink


def test_colours_do_not_depend_on_the_number_of_slots() -> None:
    assert np.array_equal(slot_colours(40)[:7], slot_colours(7))
    assert len({tuple(c) for c in slot_colours(40).tolist()}) == 40


def test_base_colours_differ_for_red_green_blindness() -> None:
    # Projection of linear RGB for deuteranopia (Vienot 1999): red and green fall together.
    linear = (np.array(SLOT_COLOURS) / 255) ** 2.2
    seen = linear @ np.array([[0.293, 0.293, -0.021], [0.707, 0.707, 0.021], [0.0, 0.0, 1.0]])
    seen = 255 * seen.clip(0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:9, None] - seen[None, :9], axis=-1) + 1e3 * np.eye(9)
    assert distance.min() > 25


def test_masks_blend_the_colours_of_their_slots() -> None:
    masks = np.zeros((3, 1, 2))
    masks[2, 0, 0] = 1
    masks[:2, 0, 1] = 0.5
    image = blend_masks(masks)
    assert image.shape == (1, 2, 3) and image[0, 0].tolist() == list(SLOT_COLOURS[2])
    assert np.abs(image[0, 1] - (np.array(SLOT_COLOURS[0]) + SLOT_COLOURS[1]) / 2).max() <= 0.5


def test_labels_have_flat_colours() -> None:
    """Objects those of slots, background labels light greys, the void a grey of its own."""
    labels = np.array([[[0, 1, 2, 3, 255]]], np.uint8)
    out = flat_labels(labels, 2, 255)[0, 0]
    assert np.array_equal(out[2:4], slot_colours(2))
    assert (out[[0, 1, 4]].std(axis=-1) == 0).all() and len({*out[:, 0].tolist()}) == 5
    assert min(out[:2, 0]) > max(out[4, 0], 110)


@pytest.mark.parametrize("size", [16, 48, 200])
def test_a_contact_sheet_has_every_image_above_its_masks(size: int, tmp_path: Path) -> None:
    data = DataFile(write_small_data(tmp_path / f"noise-{size}.h5", 10, size))
    panel, text = contact_panel(data, 10)
    cells = [cell for row in panel.cells for cell in row if cell is not None]
    assert len(cells) == 20 and {cell.shape for cell in cells} == {(size, size, 3)}
    split = data.split("train")
    assert np.array_equal(panel.cells[0][2], split.images[2]) and "10 train" in text
    assert np.array_equal(panel.cells[1][2], flat_labels(split.masks[2:3], 1)[0])
    write_data(tmp_path / "bare-32.h5", with_masks=False)
    panel, _ = contact_panel(DataFile(tmp_path / "bare-32.h5"), 10)
    assert len(panel.cells) == 2 and panel.together == 1
