"""Simulators of the three data sets: scene `index` of a seed is a function of these two alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def object_factor(
    values: list[Any], views: int, max_objects: int, empty: float, dtype: type
) -> np.ndarray:
    """One value per object as a factor [views, max_objects, ...], the same in all views; `empty`
    where there is no object."""
    out = np.full((max_objects, *np.shape(values[0])), empty, dtype)
    out[: len(values)] = values
    return np.broadcast_to(out, (views, *out.shape)).copy()
