"""The figures of the paper's Tables 1 to 4, as printed there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DATA = {"clevr6": "CLEVR6", "objects-room": "Objects Room", "shapestacks": "ShapeStacks"}
SIZE_PX = {"clevr6": 96, "objects-room": 64, "shapestacks": 64}
WORSE = "worse"  # Table 1 of SRI-SA: than SRI, on all three


@dataclass(frozen=True)
class Published:
    """One cell: a metric of a row's system on a data set."""

    table: int
    row: str
    recipe: str
    data: str
    metric: str  # as in metrics.jsonl
    split: str | None  # None: Table 1, of which it is not known
    printed: str
    taken_over: bool = False  # * : from the GENESIS-v2 paper

    @property
    def value(self) -> float | None:
        """The figure; S-Acc in percent, bits per dimension, FID and ARI-FG as usual."""
        return None if self.printed == WORSE else float(self.printed)

    @property
    def text(self) -> str:
        """As it stands in the paper's table."""
        return self.printed + "*" * self.taken_over


@dataclass(frozen=True)
class Layout:
    """What a table of the paper compares: rows (name -> recipe) by data sets and metrics."""

    number: int
    caption: str
    split: str | None
    columns: tuple[tuple[str, str], ...]  # data set, metric
    rows: dict[str, str]


def _on_shapestacks(*metrics: str) -> tuple[tuple[str, str], ...]:
    return tuple(("shapestacks", metric) for metric in metrics)


LAYOUTS = (
    Layout(
        1,
        "SRI and SRI on slot attention (ShapeStacks)",
        None,
        _on_shapestacks("fid", "ari_fg", "bits_per_dimension"),
        {"SRI": "sri-mog", "SRI-SA": "sri-sa"},
    ),
    Layout(
        2,
        "samples and segmentation (test split)",
        "test",
        (
            *(("clevr6", metric) for metric in ("fid", "ari_fg")),
            *(("objects-room", metric) for metric in ("fid", "ari_fg")),
            *_on_shapestacks("fid", "ari_fg", "sacc"),
        ),
        {
            "EMORL": "emorl",
            "GENESIS": "genesis",
            "GENESIS-v2-G": "genesis-v2-g",
            "SRI-G": "sri-g",
            "GENESIS-v2-MoG": "genesis-v2-mog",
            "SRI-MoG": "sri-mog",
            "SRI-EMORL": "sri-emorl",
        },
    ),
    Layout(
        3,
        "SRI-G without one of its parts (ShapeStacks, validation split)",
        "val",
        _on_shapestacks("fid", "bits_per_dimension", "sacc"),
        {
            "(a) no scene variable": "sri-g-no-scene",
            "(b) no alignment": "sri-g-no-alignment",
            "(c) no cross-order KL": "sri-g-no-cross-order",
            "(d) full": "sri-g",
        },
    ),
    Layout(
        4,
        "a scene variable in each system (ShapeStacks, validation split)",
        "val",
        _on_shapestacks("fid", "bits_per_dimension", "sacc"),
        {
            "GENESIS": "genesis",
            "GENESIS + scene": "genesis-scene",
            "GENESIS-v2": "genesis-v2-mog",
            "GENESIS-v2 + scene": "genesis-v2-scene",
            "SRI": "sri-mog",
        },
    ),
)

# Per table a line for each row of its layout, a figure for each column.
_FIGURES = {
    1: """
        71.0  0.78  0.829
        worse worse worse
    """,
    2: """
        244.0 0.96  178.3  0.47   258.4  0.60   -
        116.9 0.82   62.8* 0.63*  186.8* 0.70*  -
         61.0 0.98   87.6  0.75   115.3  0.68   50.7
         60.6 0.96   55.7  0.74    74.7  0.70   72.0
         61.0 0.98   52.6* 0.85*  112.7* 0.81*  59
         54.4 0.97   48.4  0.83    70.4  0.78   80.7
         48.9 -       -    -        -    -      -
    """,
    3: """
        132.9 0.836 31.7
        123.2 0.845 43.7
        106.3 0.833 61.3
         75.0 0.829 72.0
    """,
    4: """
        233.3 0.832 -
        217.5 1.051 -
        107.4 0.821 59
         84.5 0.823 66.3
         71.0 0.829 80.7
    """,
}


def _cells() -> Iterator[Published]:
    for layout in LAYOUTS:
        lines = _FIGURES[layout.number].split("\n")[1:-1]
        for (row, recipe), line in zip(layout.rows.items(), lines, strict=True):
            for (data, metric), text in zip(layout.columns, line.split(), strict=True):
                if text != "-":
                    at = (layout.number, row, recipe, data, metric, layout.split)
                    yield Published(*at, text.rstrip("*"), text.endswith("*"))


PUBLISHED = tuple(_cells())


def steps(recipe: str, data: str) -> int | None:
    """How long the paper trained a system; None for a data set that it does not have."""
    if data not in DATA:
        return None
    if data != "clevr6":
        return 500_000
    return 225_000 if recipe == "sri-emorl" else 425_000
