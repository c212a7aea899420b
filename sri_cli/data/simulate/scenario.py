"""What every simulator hands over, and the limits they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sri_cli.errors import SriError

MAX_VIEWS = 16  # ShapeStacks has as many cameras; the other simulators could draw more
SMALLEST_PX = 8


@dataclass(frozen=True)
class Scenario:
    """One scene from all its views.

    images uint8 [V, H, W, 3]; masks uint8 [V, H, W]: 0 .. background_labels - 1 are the parts of
    the background, each simulator says which, then one label per object; factors: arrays with
    leading axis V, see each simulator; discarded: how many scenes were drawn before this one and
    broke a rule.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray
    factors: dict[str, np.ndarray]
    discarded: int


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
