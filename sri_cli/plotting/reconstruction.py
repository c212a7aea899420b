"""Images as the model sees them: input, segregation, reconstruction, imagination.

Axis legend: N images, K slots, H W pixels. Masks sum to 1 over K; pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sri_cli.plotting.grid import Picture, caption, enlarge, labelled_rows
from sri_cli.plotting.palette import blend_masks

CELL_PX = 64  # at least


def reconstruction_figure(
    inputs: Picture,
    attention: NDArray[np.floating],
    reconstructed: Picture,
    masks: NDArray[np.floating],
    imagined: Picture | None,
    text: str = "",
) -> Picture:
    """One column per image. inputs, reconstructed, imagined [N,H,W,3]; attention, masks [N,K,H,W].

    `imagined` (the slot prior's rollout from the image's scene latent) is left out when None.
    """
    scale = max(1, -(-CELL_PX // inputs.shape[1]))
    rows = [
        ("input", inputs),
        ("segregation masks", blend_masks(attention)),
        ("reconstruction", reconstructed),
        ("decoded masks", blend_masks(masks)),
    ]
    if imagined is not None:
        rows.append(("imagination rollout", imagined))
    return caption(labelled_rows([(name, enlarge(row, scale)) for name, row in rows]), text)
