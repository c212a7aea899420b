"""The figures that `sri figure` makes: what each shows and which options it knows."""

from __future__ import annotations

from dataclasses import dataclass

from sri_cli.errors import SriError, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A figure. `num`: how many scenes or images, unless told otherwise (None: it has none).

    `knows`: those of slots, temp and seed that change it; `paper`: what it is there.
    """

    name: str
    shows: str
    num: int | None
    knows: tuple[str, ...]
    paper: str = ""


KINDS = (
    Kind(
        "samples",
        "random scenes, a block for each run: systems by data sets",
        18,
        ("slots", "temp", "seed"),
    ),
    Kind(
        "order",
        "random scenes taken apart into their slots, in generation order",
        6,
        ("slots", "temp", "seed"),
        "Figure 4",
    ),
    Kind(
        "slots",
        "the same scene latents with fewer and more slots than in training",
        8,
        ("slots", "temp", "seed"),
    ),
    Kind(
        "temperature",
        "the same noise at several temperatures, a row for each",
        10,
        ("slots", "temp", "seed"),
    ),
    Kind(
        "rollouts",
        "test images, their reconstructions and what is imagined from their scene latents",
        10,
        ("seed",),
    ),
    Kind(
        "segmentation",
        "test images, attention and decoded and true masks, reconstruction, every slot",
        4,
        ("seed",),
    ),
    Kind(
        "failures",
        "random scenes that raters, or else the S-Acc estimate, judged broken",
        18,
        ("slots", "temp", "seed"),
    ),
    Kind("curves", "errors, KLs and their weights in training, from the runs' logs", None, ()),
    Kind("table", "what was measured, beside the published rows", None, (), "Tables 1 to 4"),
)


def kind_of(name: str | None) -> Kind:
    """The figure of a name; SriError for one that there is not."""
    names = [kind.name for kind in KINDS]
    if name not in names:
        wrong = "which figure?" if name is None else f"no figure {name}{did_you_mean(name, names)}"
        raise SriError(wrong, f"there are {', '.join(names)}; sri figure --list says more")
    return KINDS[names.index(name)]


def listing() -> str:
    """Every figure in a line."""
    wide = max(len(kind.name) for kind in KINDS)
    return "\n".join(
        f"{kind.name:<{wide}}  {kind.shows}" + f" (the paper's {kind.paper})" * bool(kind.paper)
        for kind in KINDS
    )
