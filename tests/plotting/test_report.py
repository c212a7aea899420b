"""The report is one file: nothing outside it, no script, every text escaped, headings in order."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sri_cli.plotting.report import Figure, Film, Page, Section, Table, parted, render
from sri_cli.plotting.report_chart import MOST_POINTS, SvgChart, thinned
from sri_cli.plotting.report_film import BROKEN, shrunk_gif, still_frames
from sri_cli.plotting.sheet import Chart
from sri_cli.plotting.video import gif_bytes

PICTURE = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}"


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = {"meta", "img", "br", "wbr"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(text: str = "A <demo>") -> Page:
    """Every element, with `text` wherever text goes."""
    film = Film(gif_bytes([PICTURE[:, :4], PICTURE[:, 4:8]], 2), text, text)
    chart = SvgChart(Chart({text: [(0, 1.0), (5, None), (9, 3.0)]}, text, (2.0,)))
    section = Section(
        text,
        text,
        facts=[(text, text)],
        figures=[Figure(PICTURE, text, text, 2, film)],
        legend=[text, "b"],
        charts=[chart],
        tables=[Table(["", text], [[text, text]], text)],
        notes=[text],
        code=text,
        folded=text,
    )
    again = Section(text, parts=[Section(text, code=text)])
    return Page(text, text, facts=[(text, text)], sections=[section, again])


@pytest.mark.parametrize("text", ["A <demo>", HOSTILE, "</style></title>\x00\ud800&amp;"])
def test_whatever_the_texts_are_nothing_runs_and_nothing_is_fetched(text: str) -> None:
    html = render(page(text)).decode()
    plain = Tags(render(page("plain")).decode()).seen
    tags = Tags(html).seen
    drawn = ("polyline", "text")
    assert [t for t, _ in tags if t not in drawn] == [t for t, _ in plain if t not in drawn]
    for tag, attributes in tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    assert not re.search(r"url\(|@import|https?://", html)
    assert ("{{ 7 * 7 }}" in html) == ("{{" in text)


def test_the_policy_allows_this_style_and_no_other() -> None:
    html = render(page()).decode()
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert style and policy and policy[1].startswith("default-src 'none'; img-src data:; ")
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy[1]
    assert "unsafe" not in policy[1]


def test_pictures_are_inside_unchanged() -> None:
    still, film = [a for tag, a in Tags(render(page("x")).decode()).seen if tag == "img"]
    assert still["alt"] == "x" and (still["width"], still["height"]) == ("24", "16")
    data = base64.b64decode(str(still["src"]).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), PICTURE)
    assert str(film["src"]).startswith("data:image/gif;base64,")


def test_headings_are_in_order_and_the_contents_lead_to_them() -> None:
    tags = Tags(render(page("x")).decode()).seen
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
    assert levels == [1, 2, 2, 3]
    targets = {str(a["id"]) for _, a in tags if "id" in a}
    assert {str(a["href"])[1:] for tag, a in tags if tag == "a"} == targets


def test_a_chart_says_in_words_where_its_lines_go_and_leaves_gaps() -> None:
    line = [(0, 1.0), (1, 2.0), (2, None), (3, float("inf")), (4, 4.0), (5, 5.0)]
    chart = SvgChart(Chart({"run": line}, "error", (3.0,)))
    assert chart.alt == "error. run: 1 at step 0, 5 at step 5."
    looks = [mark.look for mark in chart.lines]
    assert looks.count("line-0") == 2 and looks.count("goal") == 1
    assert SvgChart(Chart({"run": [(0, None)]}, "error")).texts[0].text == "no values recorded"


def test_a_long_line_is_thinned_and_keeps_its_spikes() -> None:
    values = np.zeros(20_000)
    values[12_345], values[777] = 9.0, -9.0
    line = [(float(step), float(value)) for step, value in enumerate(values)]
    thin = thinned(line)
    assert len(thin) <= MOST_POINTS + 2
    assert {(12_345.0, 9.0), (777.0, -9.0)} <= set(thin)
    assert [step for step, _ in thin] == sorted(step for step, _ in thin)
    assert thinned(line[:MOST_POINTS]) == line[:MOST_POINTS]
    assert all(value is None for _, value in thinned([(s, None) for s, _ in line]))


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("0.5 [0.4, 0.6]", ("0.5", "[0.4, 0.6]")),
        ("-3.1 (0.1)", ("-3.1", "(0.1)")),
        ("a run [1]", ("a run [1]", "")),
        ("-", ("-", "")),
    ],
)
def test_cells_with_intervals(cell: str, parts: tuple[str, str]) -> None:
    assert parted(cell) == parts


def test_a_large_film_is_made_smaller_and_lasts_as_long() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    gif = gif_bytes(frames, 10)
    assert shrunk_gif(gif, len(gif)) is gif
    small = shrunk_gif(gif, len(gif) // 3)
    assert len(small) <= len(gif) // 3
    with Image.open(io.BytesIO(small)) as film:
        lasts = []
        for index in range(film.n_frames):
            film.seek(index)
            lasts.append(film.info["duration"])
    assert abs(sum(lasts) - 2000) < 100
    assert len(still_frames(gif, 6)) == 6 and len(still_frames(small, 99)) <= 10


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG no gif at all"])
def test_a_broken_film_is_told_as_such(content: bytes) -> None:
    with pytest.raises(BROKEN):
        still_frames(content, 6)


def test_phone_print_and_dark() -> None:
    html = render(page()).decode()
    for needed in ("width=device-width", "@media print", "prefers-color-scheme: dark"):
        assert needed in html


def test_an_empty_page_renders() -> None:
    assert b"<h1>x</h1>" in render(Page("x", ""))
