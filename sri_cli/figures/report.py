"""One self-contained HTML page: pictures inside it, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from sri_cli.figures.grids import Picture, png_bytes

TEMPLATE = "report.html"


@dataclass(frozen=True)
class Figure:
    """A picture with its caption; `alt` says what it shows to those who cannot see it."""

    picture: Picture
    caption: str
    alt: str
    pixelated: bool = False

    @property
    def source(self) -> str:
        """The picture as a data: URI."""
        return "data:image/png;base64," + base64.b64encode(png_bytes(self.picture)).decode()

    @property
    def width(self) -> int:
        return self.picture.shape[1]

    @property
    def height(self) -> int:
        return self.picture.shape[0]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it, shown in this order: words, figures, tables, code."""

    title: str
    words: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report; `facts` are name and value, shown at the top."""

    title: str
    lead: str
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = files("sri_cli.figures").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(template).render(page=page)
