"""What the simulators share: limits, and factors that do not depend on the view."""

from __future__ import annotations

import numpy as np

from sri_cli.data.source import Scenario as Scenario
from sri_cli.errors import SriError

MAX_VIEWS = 16  # ShapeStacks has as many cameras; the other simulators could draw more
SMALLEST_PX = 8


def check_pictures(size_px: int, views: int, seed: int, what: str) -> None:
    """SriError for pictures that cannot be simulated; `what` is simulated, in the plural."""
    if not 1 <= views <= MAX_VIEWS:
        raise SriError(
            f"{views} views per scenario: {what} have 1 to {MAX_VIEWS}",
            f"--views {min(max(views, 1), MAX_VIEWS)}",
        )
    if size_px < SMALLEST_PX:
        raise SriError(f"pictures of {size_px} pixels are too small", "--size 64")
    if seed < 0:
        raise SriError(f"the seed {seed} is negative", "--seed 0")


def in_every_view(values: list, views: int, places: int, empty: float, dtype: type) -> np.ndarray:
    """A factor of one object or more, the same in all views: [V, places, ...], `empty` where a
    place is not used."""
    out = np.full((places, *np.shape(values[0])), empty, dtype)
    out[: len(values)] = values
    return np.broadcast_to(out, (views, *out.shape)).copy()
