"""Figures: crisp pixels at every scale, the same bytes again, text that does not overlap."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pypdf
import pytest
from PIL import Image

from sri_cli.plotting.figures import (
    Block,
    Chart,
    Legend,
    Panel,
    Pixels,
    Table,
    _line_style,
    draw,
    figure_bytes,
)
from sri_cli.plotting.images import slot_colours
from tests.small_cli import ENVIRONMENT


def images(count: int, size: int = 32, seed: int = 0) -> list[Pixels]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8))


def every_block() -> list[list[Block | None]]:
    panel = Panel(
        [images(5), images(5, seed=1)],
        "A caption that is wider than the images below it, and needs several lines for that",
        rows=["a row", "a row with a name of several lines"],
        columns=["image", "attention masks", "1", "2", "3"],
        slots=[(), (), (0,), (1,), (2, 0)],
        breaks=frozenset({2}),
    )
    named = Panel([images(3, 48)] * 4, "Named", names=[["0: 1.00"] * 3] * 4, together=2)
    keys = ["one", "the other"]
    lines = {"one": [(0, 3.0), (50_000, None), (100_000, 1.0)], "the other": [(0, 2.0)]}
    charts: list[Block | None] = [
        Chart(lines, keys, "error", [1.5]),
        Chart({"one": [(0, 0.0), (9, 300.0), (10, 2.0)]}, keys, "KL", log_y=True),
    ]
    table = Table(
        "A table",
        [["model", "FID", "ARI-FG"], ["one", "1", "2"], ["other", "1 [0, 2] of many", "2"]],
        ["a note " * 30],
        marked=frozenset({2}),
    )
    return [[panel, named], [Legend(keys)], charts, [table]]


@pytest.mark.parametrize("scale", [0.4, 1.5, 2])
def test_image_pixels_are_squares_of_one_size(scale: float) -> None:
    shown = Image.open(io.BytesIO(figure_bytes(draw(every_block(), "Title", ["note"], scale))))
    sheet = np.asarray(shown.convert("RGB"))
    for image, times in ((images(5, seed=1)[4], 2), (images(3, 48)[1], 2)):
        times = max(1, round(times * scale))
        wanted = image.repeat(times, axis=0).repeat(times, axis=1)
        side = len(wanted)
        places = np.argwhere((sheet[:-side, :-side] == wanted[0, 0]).all(axis=-1))
        assert any((sheet[y : y + side, x : x + side] == wanted).all() for y, x in places)


def test_a_pdf_holds_the_images_pixel_by_pixel_and_text_as_text() -> None:
    page = pypdf.PdfReader(io.BytesIO(figure_bytes(draw(every_block(), "Title"), "pdf"))).pages[0]
    embedded = [np.asarray(Image.open(io.BytesIO(i.data)).convert("RGB")) for i in page.images]
    assert any(np.array_equal(each[:32, :32], images(5)[0]) for each in embedded)
    text = page.extract_text()
    assert all(word in text for word in ("Title", "attention", "ARI-FG", "the other"))


def test_the_same_figure_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; from tests.plotting.test_figures import *\n"
        "for kind in ('png', 'pdf'):\n"
        "    sys.stdout.buffer.write(figure_bytes(draw(every_block()), kind))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    here = b"".join(figure_bytes(draw(every_block()), kind) for kind in ("png", "pdf"))
    env = os.environ | ENVIRONMENT | {"PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert (run.returncode, run.stdout) == (0, here), run.stderr


def test_no_text_overlaps_another_or_leaves_the_figure() -> None:
    figure = draw(every_block(), "A title " * 12, ["a note " * 40])
    renderer = figure.canvas.get_renderer()
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    assert len(boxes) > 30
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    for one, other in combinations(boxes, 2):
        # Glyphs of neighbouring lines may touch by less than a point.
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) < 2


def test_lines_of_many_runs_differ() -> None:
    styles = {(tuple(style["color"]), str(style["ls"])) for style in map(_line_style, range(28))}
    assert len(styles) == 28


@pytest.mark.parametrize(("x", "shown"), [("step", False), ("% of images", True)])
def test_only_the_first_steps_of_a_training_may_leave_the_chart(x: str, shown: bool) -> None:
    line = [*((i, 1.0) for i in range(99)), (99, 50.0)]
    (axes,) = draw([[Chart({"one": line}, ["one"], x=x)]]).axes
    assert (axes.get_ylim()[1] > 50) == shown


def test_without_captions_only_images_and_slot_colours_remain() -> None:
    panel = Panel([images(2)], "caption", ["row"], ["1", "2"], [["a", "b"]], [(0,), (4,)])
    png = figure_bytes(draw([[panel]], "title", ["note"], 1, captions=False))
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    margin, swatch = 10, 6
    assert sheet.shape == (64 + 2 * margin + swatch, 2 * 64 + 2 + 2 * margin, 3)
    for slot, x in ((0, margin), (4, margin + 66)):
        assert (sheet[margin + 1, x + 5] == slot_colours(5)[slot]).all()
