"""Curves: ticks are round, gaps are left out, an empty run says so."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.plotting.curves import Axis, curve_picture, nice_step


@pytest.mark.parametrize(("rough", "wanted"), [(0.7, 1), (1.1, 2), (2.1, 5), (60, 100), (0.1, 0.1)])
def test_steps_are_round(rough: float, wanted: float) -> None:
    assert nice_step(rough) == pytest.approx(wanted)


def test_axis_places_and_ticks() -> None:
    axis = Axis(0, 10, 100, 200)
    assert axis.place(5) == 150 and axis.place(99) == 200
    assert axis.ticks() == [0, 2, 4, 6, 8, 10]
    assert Axis(-10, 0, 0, 1, log=True).ticks() == [1e-10, 1e-7, 1e-4, 1e-1]


def test_a_rising_line_rises() -> None:
    picture = curve_picture({"": [(0, 0.0), (100, 1.0)]}, "").astype(int)
    blue = picture[..., 2] - picture[..., 0] > 80
    columns = np.flatnonzero(blue.any(axis=0))
    first, last = blue[:, columns[2]].argmax(), blue[:, columns[-3]].argmax()
    assert last < first - 100


@pytest.mark.parametrize(
    "line", [[], [(1, None)], [(5, 2.0)], [(1, 1.0), (2, float("nan")), (3, 1.0)], [(1, 0.0)]]
)
@pytest.mark.parametrize("log_y", [False, True])
def test_odd_records_are_drawn(line: list, log_y: bool) -> None:
    picture = curve_picture({"loss": line}, "loss", goal=0.5, log_y=log_y)
    assert picture.shape == (250, 460, 3)
