"""One self-contained HTML page: pictures and charts inside it, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from sri_cli.plotting.grid import Picture, png_bytes
from sri_cli.plotting.report_chart import SvgChart, legend_marks

TEMPLATE, STYLE = "report.html", "report.css"


@dataclass(frozen=True)
class Film:
    """A GIF, shown where it is asked for: what moves by itself cannot be read beside."""

    gif: bytes
    words: str
    alt: str

    @property
    def source(self) -> str:
        return data_uri(self.gif, "gif")


@dataclass(frozen=True)
class Figure:
    """A picture with its caption; `alt` says what it shows to those who cannot see it.

    Every pixel is shown as `scale` x `scale`, where the page is wide enough.
    """

    picture: Picture
    caption: str
    alt: str
    scale: int = 1
    film: Film | None = None

    @property
    def source(self) -> str:
        return data_uri(png_bytes(self.picture), "png")

    @property
    def width(self) -> int:
        return self.picture.shape[1] * self.scale

    @property
    def height(self) -> int:
        return self.picture.shape[0] * self.scale


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row. What stands in brackets at a cell's end is
    less loud: `0.5 [0.4, 0.6]`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it, in this order; `parts` have headings of their own.

    `stacked` figures stand one below the other; `folded` code is opened by who wants it.
    """

    title: str
    words: str = ""
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    stacked: bool = False
    legend: Sequence[str] = ()
    charts: Sequence[SvgChart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    code: str = ""
    folded: str = ""
    parts: Sequence[Section] = ()

    @property
    def legend_marks(self) -> list[tuple[object, str]]:
        return list(legend_marks(self.legend))


@dataclass(frozen=True)
class Page:
    """A whole report; `facts` are name and value, shown at the top."""

    title: str
    lead: str
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()


def data_uri(content: bytes, kind: str) -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def parted(cell: str) -> tuple[str, str]:
    """`0.5 [0.4, 0.6]` or `0.5 (0.1)` as the value and what stands in brackets, or ''."""
    found = re.fullmatch(r"(\S+) (\[[^\[]*\]|\([^(]*\))", cell)
    return (found[1], found[2]) if found else (cell, "")


def breakable(text: str) -> Markup:
    """Escaped; a long key may be broken behind its dots and underscores."""
    return Markup(re.sub(r"[._](?=\w)", r"\g<0><wbr>", str(escape(text))))


def render(page: Page) -> bytes:
    """The page as HTML in UTF-8; every text is escaped, and no style but the page's own counts."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"parted": parted, "breakable": breakable}
    folder = files("sri_cli.plotting")
    style = folder.joinpath(STYLE).read_text("utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(f"\n{style}\n".encode()).digest()).decode()
    template = environment.from_string(folder.joinpath(TEMPLATE).read_text("utf-8"))
    text = template.render(page=page, style=style, digest=digest)
    return text.encode("utf-8", "replace")  # names of files need not be text
