"""What a figure consists of: pictures, charts and tables in rows and columns, with their captions.

Nothing here knows where anything lies or how it is drawn: `sheet_layout` places it, `sheet_draw`
makes PNG or PDF of it. Pictures are uint8 [H,W,3]; colours of slots are those of the palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sri_cli.plotting.grid import Picture

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Panels:
    """Pictures of one size in rows and columns; None: an empty place.

    `rows` stand before the rows and `columns` above the columns, `names` below each picture.
    `slots` gives the columns that are about a slot its index, whose colour stands under the name.
    Before the columns of `breaks` is a wider gap.
    """

    cells: Sequence[Sequence[Picture | None]]
    caption: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    names: Sequence[Sequence[str]] = ()
    slots: Sequence[int | None] = ()
    breaks: frozenset[int] = frozenset()

    @property
    def picture(self) -> Picture:
        """One of the pictures: they are all of one size."""
        return next(cell for row in self.cells for cell in row if cell is not None)

    @property
    def across(self) -> int:
        """How many columns."""
        return max(len(row) for row in self.cells)


@dataclass(frozen=True)
class Chart:
    """Lines of (step, value); a value that is None or not finite leaves a gap.

    `goals` are dashed lines. `keys` names all lines that have a colour in the figure, so that a
    line keeps its own in every chart.
    """

    lines: Mapping[str, Points]
    caption: str = ""
    goals: Sequence[float] = ()
    log_y: bool = False
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Legend:
    """Which line is whose, for all charts of the figure."""

    keys: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table of words, its header first. `words`: leading columns that are no numbers.

    `spans` has a heading for neighbouring columns ('' for none), `marked` rows (from 0, the header
    counted) stand out, `notes` stand below.
    """

    rows: Sequence[Sequence[str]]
    caption: str = ""
    spans: Sequence[str] = ()
    words: int = 1
    marked: frozenset[int] = frozenset()
    notes: Sequence[str] = ()


Block = Panels | Chart | Legend | Grid


@dataclass(frozen=True)
class Sheet:
    """A figure: a title, rows of blocks (None: an empty place), notes."""

    rows: Sequence[Sequence[Block | None]]
    title: str = ""
    notes: Sequence[str] = ()
