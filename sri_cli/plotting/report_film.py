"""A film for a page: stills of a GIF, and a smaller one where it is too large to be put inside.

Axis legend: F frames, H W picture rows and columns; always uint8 with 3 channels.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageSequence

from sri_cli.plotting.grid import Picture
from sri_cli.plotting.video import gif_bytes

# Every n-th frame, every n-th row and column: tried until the film is small enough.
SMALLER = ((2, 1), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8))
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # of a bad GIF


def still_frames(gif: bytes, count: int) -> list[Picture]:
    """`count` frames (at most all) from all over the film. Raises one of BROKEN."""
    with Image.open(io.BytesIO(gif)) as film:
        frames = getattr(film, "n_frames", 1)
        chosen = np.unique(np.linspace(0, frames, min(count, frames), endpoint=False).astype(int))
        return [_frame(film, int(index)) for index in chosen]


def shrunk_gif(gif: bytes, limit: int) -> bytes:
    """The film itself when it has at most `limit` bytes, else one with fewer frames and pixels,
    as short as it can be made. Raises one of BROKEN.
    """
    found = gif
    for every, factor in SMALLER:
        if len(found) <= limit:
            break
        found = _shrunk(gif, every, factor)
    return found


def _shrunk(gif: bytes, every: int, factor: int) -> bytes:
    """The same film, as long."""
    frames, milliseconds = [], 0.0
    with Image.open(io.BytesIO(gif)) as film:
        for index, frame in enumerate(ImageSequence.Iterator(film)):
            milliseconds += frame.info.get("duration", 0)
            if index % every == 0:
                frames.append(np.asarray(frame.convert("RGB"))[::factor, ::factor])
    return gif_bytes(frames, max(1, round(1000 * len(frames) / (milliseconds or 1000))))


def _frame(film: Image.Image, index: int) -> Picture:
    film.seek(index)
    return np.asarray(film.convert("RGB"), dtype=np.uint8)
