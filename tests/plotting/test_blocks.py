"""Arrays to panels: what stands where, in which colour; logs to charts."""

from __future__ import annotations

import numpy as np

from sri_cli.plotting.blocks import (
    TrainingLog,
    contributions,
    label_colours,
    order_panel,
    segmentation_panel,
    training_charts,
)
from sri_cli.plotting.palette import slot_colours


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
    panel = order_panel(images, rgb, masks)
    assert list(panel.columns) == ["image", "masks", "1", "2"]
    assert list(panel.slots) == [(), (), (0,), (1,)]
    assert np.array_equal(panel.cells[2][0], images[2])  # type: ignore[arg-type]
    colours = slot_colours(2)
    assert (panel.cells[0][1][0] == colours[[0, 0, 1, 1]]).all()  # type: ignore[index]
    without = segmentation_panel(images, masks, images, rgb, masks, None)
    truth = np.zeros((3, 4, 4), np.uint8)
    within = segmentation_panel(images, masks, images, rgb, masks, truth)
    assert set(within.columns) - set(without.columns) == {"true masks"}


def test_true_labels_have_the_colours_of_the_slots_that_fit_them() -> None:
    truth = np.full((4, 4), 7, np.uint8)
    truth[:, 2:] = 3
    truth[0, 0] = 9
    image = label_colours(truth, halves())
    colours = slot_colours(4)
    assert (image[1, 0] == colours[0]).all() and (image[1, 3] == colours[1]).all()
    assert image[0, 0].tolist() not in colours[:2].tolist()


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
