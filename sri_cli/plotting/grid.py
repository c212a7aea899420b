"""Pictures beside one another, with captions: arrays uint8 in, one array uint8 out.

Axis legend: N images, R rows, H W picture rows and columns; always uint8 with 3 channels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

PAPER = (255, 255, 255)
INK = (40, 40, 40)
TEXT_PX = 14


def enlarge(images: Picture, factor: int) -> Picture:
    """[..., H, W, 3] -> [..., factor*H, factor*W, 3], every pixel a square."""
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def grid(images: Picture, columns: int | None = None, gap: int = 2, scale: int = 1) -> Picture:
    """[N,H,W,3] -> one picture, row by row; about square when `columns` is left out."""
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"a grid wants images [N,H,W,3], N > 0, got {images.shape}")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    images = enlarge(images, scale)
    height, width = images.shape[1:3]
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def beside(pictures: Sequence[Picture], gap: int = 8) -> Picture:
    """Pictures of any sizes from left to right, aligned at the top."""
    height = max(picture.shape[0] for picture in pictures)
    last = len(pictures) - 1
    parts = [
        _fill(p, height, p.shape[1] + (gap if i < last else 0)) for i, p in enumerate(pictures)
    ]
    return np.concatenate(parts, axis=1)


def below(pictures: Sequence[Picture], gap: int = 8) -> Picture:
    """Pictures of any sizes from top to bottom, aligned at the left."""
    width = max(picture.shape[1] for picture in pictures)
    last = len(pictures) - 1
    parts = [_fill(p, p.shape[0] + (gap if i < last else 0), width) for i, p in enumerate(pictures)]
    return np.concatenate(parts, axis=0)


def caption(picture: Picture, text: str, margin: int = 6) -> Picture:
    """The picture on a white margin with a line of text (wrapped to its width) above it."""
    lines = _wrap(text, picture.shape[1])
    width = max([picture.shape[1], *(_width(line) for line in lines)])
    header = draw_text(lines, width)
    body = below([header, picture], gap=4)
    out = np.full((body.shape[0] + 2 * margin, body.shape[1] + 2 * margin, 3), 255, np.uint8)
    out[margin : margin + body.shape[0], margin : margin + body.shape[1]] = body
    return out


def labelled_rows(
    rows: Sequence[tuple[str, Picture]],
    headers: Sequence[str] | None = None,
    gap: int = 2,
) -> Picture:
    """Rows of equally many images [R,H,W,3], each with its name at the left.

    `headers` stand above the columns.
    """
    left = max([_width(name) for name, _ in rows], default=0) + 8
    lines = []
    if headers is not None:
        lines.append(_header_line(headers, left, rows[0][1].shape[2], gap))
    for name, images in rows:
        strip = grid(images, columns=len(images), gap=gap)
        lines.append(np.concatenate([_centred_label(name, strip.shape[0], left), strip], axis=1))
    return below(lines, gap=gap)


def draw_text(lines: Sequence[str], width: int, px: int = TEXT_PX) -> Picture:
    """Lines of text on white, `width` pixels wide."""
    line_px = px + 4
    image = Image.new("RGB", (width, max(1, len(lines)) * line_px), PAPER)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        draw.text((0, i * line_px), line, fill=INK, font=font(px))
    return np.asarray(image, dtype=np.uint8)


def font(px: int = TEXT_PX) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: there on every machine, no font file to find."""
    return ImageFont.load_default(size=px)


def png_bytes(picture: Picture) -> bytes:
    """The picture [H,W,3] or [H,W] as a PNG file's content."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _fill(picture: Picture, height: int, width: int) -> Picture:
    """The picture in the top left corner of a white sheet."""
    sheet = np.full((height, width, 3), 255, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def _width(text: str, px: int = TEXT_PX) -> int:
    return math.ceil(font(px).getlength(text)) + 1


def _wrap(text: str, width: int) -> list[str]:
    """Lines no wider than `width` pixels, as far as single words allow."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _centred_label(name: str, height: int, width: int) -> Picture:
    label = draw_text([name], width)[:height]
    top = (height - label.shape[0]) // 2
    sheet = np.full((height, width, 3), 255, np.uint8)
    sheet[top : top + label.shape[0]] = label
    return sheet


def _header_line(headers: Sequence[str], left: int, column_px: int, gap: int) -> Picture:
    step = column_px + gap
    image = Image.new("RGB", (left + step * len(headers) - gap, TEXT_PX + 4), PAPER)
    draw = ImageDraw.Draw(image)
    for i, text in enumerate(headers):
        draw.text((left + i * step, 0), text, fill=INK, font=font())
    return np.asarray(image, dtype=np.uint8)
