"""The report is one file: nothing outside it, no script, every text escaped."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from sri_cli.figures.report import Figure, Page, Section, Table, render

PICTURE = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = {"meta", "img", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page() -> Page:
    return Page(
        title="A <demo>",
        lead="It's & more",
        facts=[("steps", "4000")],
        sections=[
            Section(
                "Samples",
                words="<script>alert(1)</script>",
                figures=[Figure(PICTURE, "simulated", "eight scenes", pixelated=True)],
                tables=[Table(["metric", "value"], [["ARI-FG", "0.5"]])],
                code="sri train --recipe 'x'",
            )
        ],
    )


def test_nothing_from_outside_and_no_script() -> None:
    html = render(page())
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.seen}
    for _, attributes in tags.seen:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        assert (attributes.get("src") or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)
    assert "&lt;script&gt;" in html and "A &lt;demo&gt;" in html


def test_pictures_are_inside_unchanged() -> None:
    tags = Tags()
    tags.feed(render(page()))
    (image,) = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert image["alt"] == "eight scenes" and (image["width"], image["height"]) == ("12", "8")
    data = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), PICTURE)


def test_phone_print_and_dark() -> None:
    html = render(page())
    for needed in ("width=device-width", "@media print", "prefers-color-scheme: dark"):
        assert needed in html


def test_an_empty_page_renders() -> None:
    assert "<h1>x</h1>" in render(Page("x", ""))
