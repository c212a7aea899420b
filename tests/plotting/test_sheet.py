"""Sheets drawn: every pixel where it belongs, PDF with words and untouched pictures, same bytes."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import zlib

import numpy as np
import pypdf
import pytest
from PIL import Image as Pillow

from sri_cli.errors import SriError
from sri_cli.plotting.palette import BASE
from sri_cli.plotting.sheet import Chart, Grid, Legend, Panels, Sheet
from sri_cli.plotting.sheet_draw import draw
from sri_cli.plotting.sheet_layout import (
    HIGHEST,
    WIDEST,
    columns_that_fit,
    flowed,
    place,
    rows_that_fit,
    side_by_side,
)
from sri_cli.plotting.sheet_panels import cell_side
from sri_cli.plotting.sheet_parts import Box, Image, Line, Text
from sri_cli.plotting.sheet_text import width_of, wrapped


def noise(side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def panels(rows: int = 2, columns: int = 3, side: int = 8, caption: str = "a system") -> Panels:
    cells = [[noise(side, i * columns + j) for j in range(columns)] for i in range(rows)]
    names = [f"row {i}" for i in range(rows)]
    return Panels(cells, caption, names, ["image", "1", "2"][:columns], slots=[None, 0, 1])


CHART = Chart({"run": [(0, 1.0), (1, 0.5), (2, None), (3, 0.2)]}, "KL", (0.3,), True, ["run"])
TABLE = Grid([["model", "FID"], ["mine", "71.0"]], "A table", ["", "Data"], 1, notes=["a note"])
SHEET = Sheet([[panels(), CHART], [Legend(["run"])], [TABLE]], "The $title", ["of 2_000 images"])


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(png)).convert("RGB"))


def streams(pdf: bytes) -> list[bytes]:
    """What the streams of a PDF hold, unpacked where they are packed."""
    found = []
    for part in pdf.split(b"stream\n")[1:]:
        content = part.split(b"\nendstream")[0]
        try:
            found.append(zlib.decompress(content))
        except zlib.error:
            found.append(content)
    return found


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_in_a_png_every_pixel_is_a_square(scale: float) -> None:
    sheet = opened(draw(SHEET, scale=scale))
    placed = place(SHEET)
    assert sheet.shape[:2] == (placed.height * scale, placed.width * scale)
    images = [part for part in placed.parts if isinstance(part, Image)]
    assert len(images) == 6
    for part in images:
        left, top, side = int(part.x * scale), int(part.y * scale), int(part.width * scale)
        times = side // 8
        wanted = part.picture.repeat(times, 0).repeat(times, 1)
        assert np.array_equal(sheet[top : top + side, left : left + side], wanted)


def test_a_pdf_holds_lines_and_the_pictures_as_they_are() -> None:
    pdf = draw(SHEET, "pdf")
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") == 1
    assert b"/CreationDate" not in pdf and b"/Subtype /Image" in pdf
    assert any(b" l\n" in content for content in streams(pdf))  # lines, drawn as such
    sizes = [pdf.count(b"/Width 8"), pdf.count(b"/Height 8")]
    assert sizes == [6, 6]  # as they came: nothing is resampled, nothing put together


def test_a_pdf_is_read_by_others() -> None:
    page = pypdf.PdfReader(io.BytesIO(draw(SHEET, "pdf"))).pages[0]
    placed = place(SHEET)
    assert [float(edge) for edge in page.mediabox[2:]] == [placed.width, placed.height]
    words = page.extract_text()
    for each in ("The $title", "row 1", "71.0", "of 2_000 images", "KL", "Data", "a note"):
        assert each in words
    found = {np.asarray(image.image.convert("RGB")).tobytes() for image in page.images}
    assert found == {noise(seed=seed).tobytes() for seed in range(6)}


def test_the_same_sheet_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from sri_cli.plotting.sheet import *\n"
        "from sri_cli.plotting.sheet_draw import draw\n"
        "p = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)\n"
        "s = Sheet([[Panels([[p]], 'x', ['row'])]], 'title')\n"
        "print(*(hashlib.sha256(draw(s, kind)).hexdigest() for kind in ('png', 'pdf')))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] and len(set(told[0])) == 2


def test_without_captions_only_pictures_are_left() -> None:
    alone = Sheet([[panels()]], "title", ["note"])
    parts = place(alone, captions=False).parts
    assert not [part for part in parts if isinstance(part, Text)]
    assert sum(isinstance(part, Image) for part in parts) == 6
    assert place(alone, captions=False).height < place(alone).height
    pdf = draw(alone, "pdf", captions=False)
    assert not any(b" Tj" in content or b" TJ" in content for content in streams(pdf))


def test_slots_bear_their_colours_under_their_names() -> None:
    boxes = [part for part in place(Sheet([[panels()]])).parts if isinstance(part, Box)]
    assert [box.colour for box in boxes] == [BASE[0], BASE[1]]
    image, first, second = (
        part.x for part in place(Sheet([[panels(rows=1)]])).parts if isinstance(part, Image)
    )
    assert [box.x for box in boxes] == [first, second] and image < first


def test_nothing_lies_on_anything_else_and_all_on_the_sheet() -> None:
    sheet = Sheet(flowed([panels(), panels(3, 2, 16), panels(1, 3, 96), panels()]), "title", ["n"])
    placed = place(sheet)
    boxes = []
    for part in placed.parts:
        if isinstance(part, Image):
            boxes.append((part.x, part.y, part.x + part.width, part.y + part.height))
        elif isinstance(part, Text):
            wide = width_of(part.text, part.size, part.weight)
            left = part.x - {"left": 0, "center": wide / 2, "right": wide}[part.across]
            boxes.append((left, part.y, left + wide, part.y + part.size))
    for left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= placed.width and bottom <= placed.height
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] + 1 or other[2] <= one[0] + 1
        assert apart or one[3] <= other[1] + 1 or other[3] <= one[1] + 1


def test_pictures_of_other_sizes_are_drawn_in_whole_multiples() -> None:
    assert [cell_side(side) for side in (8, 24, 32, 64, 96)] == [64, 72, 64, 64, 96]


def test_as_many_pictures_as_are_said_to_fit_do() -> None:
    for side in (32, 64, 96):
        across, down = columns_that_fit(side), rows_that_fit(side)
        row, picture = [f"a row {i}" for i in range(down)], noise(side)
        full = Panels([[picture] * across for _ in range(down)], "caption", row)
        placed = place(Sheet([[full]], "title", ["a note"]))
        assert placed.width <= WIDEST and placed.height <= HIGHEST
        assert (across + 2) * cell_side(side) > WIDEST - 150


def test_blocks_fill_their_rows_alike() -> None:
    assert [side_by_side(n, 2) for n in (1, 2, 3, 4, 5)] == [1, 2, 1, 2, 1]
    assert [side_by_side(n, 4) for n in (3, 4, 11)] == [3, 4, 4]
    assert side_by_side(3, 0) == 1  # too wide for any: below each other


def test_a_chart_leaves_gaps_and_says_when_it_is_empty() -> None:
    lines = [part for part in place(Sheet([[CHART]])).parts if isinstance(part, Line)]
    drawn = [line for line in lines if line.width > 1.5]
    assert [len(line.points) for line in drawn] == [2, 2]  # two points; a dot after the gap
    empty = Chart({"run": [(0, None), (1, float("nan"))]}, "KL")
    assert "no values recorded" in [
        part.text for part in place(Sheet([[empty]])).parts if isinstance(part, Text)
    ]


def test_a_run_keeps_its_line_in_every_chart() -> None:
    keys = ["one", "two"]
    both = Chart({key: [(0, 1.0), (1, 2.0)] for key in keys}, keys=keys)
    only = Chart({"two": [(0, 1.0), (1, 2.0)]}, keys=keys)
    looks = [
        [
            (line.colour, line.dashes)
            for line in place(Sheet([[chart]])).parts
            if isinstance(line, Line) and line.width > 1.5
        ]
        for chart in (both, only)
    ]
    assert looks[0][1] == looks[1][0] != looks[0][0]
    assert looks[0][0][1] != looks[0][1][1]  # told apart without colours, too


def test_a_table_wraps_long_cells_and_keeps_numbers_at_the_right() -> None:
    long = Grid(
        [["model", "value"], ["one", "1.00 [0.90, 1.10] (of another protocol)"], ["b", "2"]]
    )
    texts = [part for part in place(Sheet([[long]])).parts if isinstance(part, Text)]
    ends = {part.x for part in texts if part.across == "right"}
    assert len(ends) == 1 and len([p for p in texts if p.across == "right"]) >= 4


def test_wrapped_lines_fit_and_lose_no_word() -> None:
    text = "Random scenes of a system with\na long name, temperature 1"
    lines = wrapped(text, 10, 90)
    assert " ".join(lines).split() == text.split()
    assert all(width_of(line, 10) <= 90 for line in lines)


def test_a_png_too_large_is_refused_with_a_scale_that_works() -> None:
    with pytest.raises(SriError) as caught:
        draw(SHEET, scale=400)
    assert "too large" in caught.value.message and "--scale" in str(caught.value.hint)
