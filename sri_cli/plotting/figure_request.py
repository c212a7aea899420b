"""What is asked of `sri figure`, and whether it means anything."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sri_cli.errors import SriError
from sri_cli.generation.sample import check_request
from sri_cli.plotting.figure_names import Kind

FORMATS = ("png", "pdf")
MOST_TIMES = 50


@dataclass(frozen=True)
class Request:
    """What is asked for; None: as usual for the figure.

    `scale`: pixels of a picture's side, or `2x`; `format`: png or pdf (None: as the file ends).
    """

    name: str | None
    num: int | None = None
    slots: int | None = None
    temperature: float | None = None
    seed: int | None = None
    scale: str = "2x"
    captions: bool = True
    format: str | None = None


def check(kind: Kind, request: Request) -> None:
    """SriError for options that mean nothing, or nothing to this figure."""
    check_request(
        1 if request.num is None else request.num,
        1 if request.slots is None else request.slots,
        1.0 if request.temperature is None else request.temperature,
        request.seed or 0,
    )
    given = {"slots": request.slots, "temp": request.temperature, "seed": request.seed}
    idle = [name for name, value in given.items() if value is not None and name not in kind.knows]
    idle += ["num"] * (request.num is not None and kind.num is None)
    if idle:
        raise SriError(f"--{idle[0]} changes nothing in the figure {kind.name}", "leave it out")


def parse_scale(text: str) -> tuple[float, int | None]:
    """'3x' -> times 3; '128' -> pixels of a picture's side; SriError for anything else."""
    times = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if times and 0 < float(times[1]) <= MOST_TIMES:
        return float(times[1]), None
    if re.fullmatch(r"\d{1,5}", text) and int(text) > 0:
        return 1.0, int(text)
    raise SriError(
        f"--scale {text}: neither pixels of a picture's side nor times its standard size",
        "--scale 256, or --scale 4x",
    )


def format_of(request: Request, out: Path | None) -> str:
    """png or pdf: as asked for and as the file ends, which must agree."""
    if out is None:
        return request.format or "png"
    ending = out.suffix.lower()[1:]
    if out.is_dir() or ending not in FORMATS:
        what = "is a folder" if out.is_dir() else "is neither .png nor .pdf"
        raise SriError(f"--out {out} {what}", f"name a file: --out {request.name}.png")
    if request.format not in (None, ending):
        raise SriError(f"--out {out} is no {request.format}", f"--format {ending}")
    return ending
