"""Moving pictures: frames of walks side by side, as MP4 (imageio's ffmpeg) or GIF (Pillow).

Axis legend: F frames, N walks, S picture side; always uint8 with 3 channels.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from sri_cli.plotting.grid import Picture, beside, caption, enlarge, grid

CELL_PX = 128  # at least; twice that for a single walk
BLOCK_GAP = 12
PALETTE_FRAMES = 16  # that a GIF's 256 colours are chosen from
H264 = ["-crf", "18", "-movflags", "+faststart"]


@dataclass(frozen=True)
class Walks:
    """Walks of one model: images uint8 [F,N,S,S,3], the same of masks or None, a title or ''."""

    images: Picture
    masks: Picture | None = None
    title: str = ""


class Film(Sequence[Picture]):
    """Frame by frame, one block per model from left to right, of even height and width.

    Frames are made when asked for, so that enlarged ones need not lie in memory together.
    """

    def __init__(self, blocks: Sequence[Walks]) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks[0].images)

    @overload
    def __getitem__(self, frame: int) -> Picture: ...
    @overload
    def __getitem__(self, frame: slice) -> list[Picture]: ...
    def __getitem__(self, frame: int | slice) -> Picture | list[Picture]:
        if isinstance(frame, slice):
            return [self[i] for i in range(*frame.indices(len(self)))]
        if not -len(self) <= frame < len(self):
            raise IndexError(frame)
        return even(beside([_sheet(block, frame) for block in self.blocks], BLOCK_GAP))


def _sheet(block: Walks, frame: int) -> Picture:
    """All walks of a block at one frame, each with its masks at its right."""
    cells = block.images[frame]
    count, size = cells.shape[:2]
    if block.masks is not None:
        cells = np.concatenate([cells, block.masks[frame]], axis=2)
    px = CELL_PX if count > 1 else 2 * CELL_PX
    sheet = grid(enlarge(cells, max(1, -(-px // size))), math.ceil(math.sqrt(count)), gap=4)
    return caption(sheet, block.title, margin=2) if block.title else sheet


def even(picture: Picture) -> Picture:
    """With a white row or column more where its height or width is odd: H.264 halves colours."""
    rows, columns = (side % 2 for side in picture.shape[:2])
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), constant_values=255)


def missing_encoder() -> str | None:
    """Why no MP4 can be written here, or None."""
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return "no ffmpeg (the Python package imageio-ffmpeg brings one)"
    return None


def mp4_bytes(film: Sequence[Picture], fps: int) -> bytes:
    """The content of an MP4 file: H.264, yuv420p, for every browser. Sides must be even.

    Raises OSError when the encoder fails.
    """
    from imageio.v2 import get_writer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        writer: Any = get_writer(
            path,
            format="FFMPEG",
            mode="I",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=H264,
        )
        with closing(writer):
            for frame in film:
                writer.append_data(frame)
        content = path.read_bytes() if path.exists() else b""
    if not is_whole(content):  # imageio does not look how ffmpeg ended
        raise OSError("ffmpeg ended early: too little memory, or no room in the temporary folder")
    return content


def is_whole(mp4: bytes) -> bool:
    """Whether a file's boxes are all there, up to its very end, with the index among them."""
    place, kinds = 0, []
    while place + 8 <= len(mp4):
        kinds.append(mp4[place + 4 : place + 8])
        size = int.from_bytes(mp4[place : place + 4])
        if size == 1:  # of more than 4 GB
            size = int.from_bytes(mp4[place + 8 : place + 16])
        place += max(size, 8)
    return place == len(mp4) and {b"moov", b"mdat"} <= set(kinds)


def palette(pictures: Sequence[Picture]) -> Image.Image:
    """256 colours for pictures of one size, as Pillow wants them.

    Colours count by the square root of their pixels: by pixels, the background takes most of the
    256 and small objects lose their shading.
    """
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    coarse = (pixels.astype(np.int32) >> 3) @ np.array([1 << 10, 1 << 5, 1])
    _, first, counts = np.unique(coarse, return_index=True, return_counts=True)
    weighed = pixels[first].repeat(np.ceil(np.sqrt(counts)).astype(int), axis=0)
    return Image.fromarray(weighed[None]).quantize(256, kmeans=3)


def gif_bytes(film: Sequence[Picture], fps: int) -> bytes:
    """The content of a GIF file that repeats for ever; one palette, so that still parts stay still.

    A GIF's clock ticks in 1/100 s: frames take turns so that the whole lasts F / fps seconds.
    """
    chosen = np.linspace(0, len(film) - 1, min(PALETTE_FRAMES, len(film))).round().astype(int)
    colours = palette([film[int(i)] for i in chosen])
    ticks = np.round(np.arange(len(film) + 1) * 100 / fps)
    first, *others = (
        Image.fromarray(frame).quantize(palette=colours, dither=Image.Dither.NONE) for frame in film
    )
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=[int(10 * tick) for tick in np.diff(ticks)],
        loop=0,
        optimize=False,
    )
    return buffer.getvalue()
