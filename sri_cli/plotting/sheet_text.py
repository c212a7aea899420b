"""How wide words are in print, and their lines. Lengths are in units: 1/72 inch, 1 px at 1x."""

from __future__ import annotations

import functools

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FAMILY = "DejaVu Sans"  # it comes with matplotlib: the same on every machine
LEADING = 1.25  # of the size of the letters, from line to line
TITLE, CAPTION, LABEL, NOTE = 13.0, 11.0, 10.0, 9.0  # sizes of letters


@functools.lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """The width of one line."""
    return float(text_to_path.get_text_width_height_descent(text, letters(size, weight), False)[0])


def letters(size: float, weight: str = "normal") -> FontProperties:
    """The one font of all figures."""
    return FontProperties(family=FAMILY, size=size, weight=weight)


def wrapped(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Lines no wider than `width`, as far as single words allow."""
    lines: list[str] = []
    for word in printable(text).split():
        if lines and width_of(f"{lines[-1]} {word}", size, weight) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def fitting_size(texts: list[str], size: float, width: float) -> float:
    """The size, or a smaller one at which the widest word of all texts fits."""
    words = [word for text in texts for word in printable(text).split()]
    widest = max([width_of(word, size) for word in words], default=0)
    return size if widest <= width else size * width / widest


def printable(text: str) -> str:
    """Without what has no place on a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
