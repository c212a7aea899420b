"""Whether a flaw can be seen: rules on sketches of 64 px, one ray per pixel.

The same scene is judged by the same sketch whatever the size of its pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from sri_cli.data.simulate.blocks import SPHERE, Block
from sri_cli.data.simulate.contact import bottom_m, outline, top_m
from sri_cli.data.simulate.flaws import SEEN_PX, Spoilt
from sri_cli.data.simulate.raycast import SUPERSAMPLING, Camera, trace
from sri_cli.data.simulate.render import Lighting

MIN_CHANGED_PX = 12  # of 64 x 64: two rows of the smallest blocks, 6 pixels wide
MIN_SEEN_PX = 5
_BORDER_PX = 1.0
_INSIDE_M = 0.03
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def whole_in_picture(blocks: Sequence[Block], camera: Camera) -> bool:
    """Whether the boxes round all blocks keep a pixel from the picture's border."""
    level = [outline(block).reach(np.eye(2)) for block in blocks]
    half = np.array([(x, y, b.height_m / 2) for (x, y), b in zip(level, blocks, strict=True)])
    corners = np.array([block.position for block in blocks])[:, None] + half[:, None] * _CORNERS
    at = camera.project(corners.reshape(-1, 3), SEEN_PX)
    return bool((at > _BORDER_PX).all() and (at < SEEN_PX - _BORDER_PX).all())


class Sketch:
    """What each pixel of 64 shows: `labels` [64, 64], 0 background, 1 .. the blocks; `height_m`
    [64, 64] above the floor."""

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: Camera, planes: int
    ) -> None:
        hits = trace(model, data, camera, SEEN_PX // SUPERSAMPLING)
        side = (SEEN_PX, SEEN_PX)
        self.labels = np.maximum(hits.geom - (planes - 1), 0).reshape(side)
        self.height_m = hits.points[:, 2].reshape(side)


def flaw_shows(
    flaw: str, sound: Sketch, seen: Sketch, spoilt: Spoilt, camera: Camera, light: Lighting
) -> bool:
    """Whether one camera's picture changes by MIN_CHANGED_PX and shows what is wrong:

    - floating, gapped: no pixel of the part above is beside one of the part below, so that the
      background is seen between them all along;
    - interpenetrating: MIN_SEEN_PX of the upper block below the lower one's top, and as many of
      the lower above the upper one's bottom (a ball on top needs neither: it is not round);
    - missing-base: the lowest block's shadow on the floor is seen, parted from it.
    """
    labels = seen.labels
    if flaw == "missing-base":
        # Labels begin at the lowest block that is left.
        labels = np.where(labels > 0, labels + spoilt.place, 0)
    if int((labels != sound.labels).sum()) < MIN_CHANGED_PX:
        return False
    if flaw == "missing-base":
        return _shadow_seen(labels, spoilt.blocks[0], camera, light)
    if flaw == "interpenetrating":
        return _both_stick_out(seen, spoilt)
    above, below = labels > spoilt.place, (labels > 0) & (labels <= spoilt.place)
    enough = min(int(above.sum()), int(below.sum())) >= MIN_SEEN_PX
    return enough and not (_grown(above) & below).any()


def _grown(area: np.ndarray) -> np.ndarray:
    """With all pixels [H, W] beside it, at its corners too."""
    wide = area.copy()
    wide[1:] |= area[:-1]
    wide[:-1] |= area[1:]
    grown = wide.copy()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def _both_stick_out(seen: Sketch, spoilt: Spoilt) -> bool:
    lower, upper = spoilt.blocks[spoilt.place - 1 : spoilt.place + 1]
    if upper.shape == SPHERE:
        return True
    upper_low = (seen.labels == spoilt.place + 1) & (seen.height_m < top_m(lower) - _INSIDE_M)
    lower_high = (seen.labels == spoilt.place) & (seen.height_m > bottom_m(upper) + _INSIDE_M)
    return min(int(upper_low.sum()), int(lower_high.sum())) >= MIN_SEEN_PX


def _shadow_seen(labels: np.ndarray, lowest: Block, camera: Camera, light: Lighting) -> bool:
    """Of the point in the middle below the block, and the pixels round it."""
    towards = light.towards[0]
    x, y, _ = lowest.position
    below = np.array([x, y, 0.0]) - towards / towards[2] * bottom_m(lowest)
    below[2] = 0.0
    column, row = (int(v) for v in np.floor(camera.project(below[None], SEEN_PX)[0]))
    inside = 0 < column < SEEN_PX - 1 and 0 < row < SEEN_PX - 1
    return inside and not labels[row - 1 : row + 2, column - 1 : column + 2].any()
