"""ShapeStacks by its names alone: split lists, what a scenario's name tells, cameras.

A scenario is named env_<ccs|blocks>-<easy|hard>-h=H-vcom=A-vpsf=B-v=V: height, and the object that
breaks the centre-of-mass or planar-surface rule (0: none; a tower without either stands).
Axis: V views.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, sixth
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header
from sri_cli.errors import SriError

NAME = "shapestacks"
SIZE_PX = 64
SIDE_PX, CENTRE_PX = 224, 196  # of the files; what GENESIS-v2 and SRI cut out of them
LIST_FILES = {"train": "train.txt", "val": "eval.txt", "test": "test.txt"}
MOST_CAMERAS = 32  # numbers 0 to 31; the original has 1 to 16
SCENARIO = re.compile(
    r"env_(?:ccs|blocks)-(?:easy|hard)-h=([0-9]{1,2})-vcom=([0-9]{1,2})-vpsf=([0-9]{1,2})-v=[0-9]{1,9}"
)
# Of the rest of a file's name nothing is certain: pictures and maps name other textures.
PICTURE = re.compile(r"rgb-.*cam_([0-9]{1,4})(?![0-9]).*\.png")
MAP = re.compile(r"iseg-.*cam_([0-9]{1,4})(?![0-9]).*\.map")


@dataclass(frozen=True)
class Lists:
    """The scenarios that are wanted: `scenarios` by our split, sorted; `limits`, the numbers that
    were asked for, by split."""

    split: str
    scenarios: Mapping[str, Sequence[str]]
    limits: Mapping[str, int]

    def sha256(self) -> str:
        """Of all names, so that other lists make another file."""
        text = "".join(f"{split}\n{name}\n" for split in SPLITS for name in self.scenarios[split])
        return hashlib.sha256(text.encode()).hexdigest()

    def everyone(self) -> list[str]:
        """All scenarios in the order of a data file."""
        return [name for split in SPLITS for name in self.scenarios[split]]


def read_lists(texts: Mapping[str, bytes], where: str, split: str, asked: Options) -> Lists:
    """The lists as they lie in `where` (file name -> content), cut to the numbers asked for.

    SriError for an empty list, a line that is no scenario's name, a scenario in two lists, fewer
    scenarios than asked for.
    """
    names = {ours: names_in(texts[file], f"{where}/{file}") for ours, file in LIST_FILES.items()}
    check_disjoint(names, where)
    limits = limits_of(asked, names)
    chosen = {ours: choose(names[ours], limits.get(ours)) for ours in SPLITS}
    return Lists(split, chosen, limits)


def names_in(text: bytes, where: str) -> list[str]:
    """The scenarios of one list, sorted, each once."""
    lines = text.decode("utf-8-sig", "replace").splitlines()
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not named:
        raise SriError(f"{where} is empty", "get shapestacks-meta.tar.gz again")
    names = set()
    for number, line in named:
        name = line if line.startswith("env_") else f"env_{line}"
        if not SCENARIO.fullmatch(name):
            raise SriError(
                f"{where} line {number} is no scenario's name: {line[:60]!r}",
                "a line reads ccs-easy-h=3-vcom=0-vpsf=0-v=1; get shapestacks-meta.tar.gz again",
            )
        names.add(name)
    return sorted(names)


def check_disjoint(names: Mapping[str, Sequence[str]], where: str) -> None:
    """SriError for a scenario in two lists: the test would be on what was trained on."""
    first: dict[str, str] = {}
    for ours, file in LIST_FILES.items():
        for name in names[ours]:
            if name in first:
                raise SriError(
                    f"{name} is in two lists of {where}: {first[name]} and {file}",
                    "get shapestacks-meta.tar.gz again, or strike it from one of them",
                )
            first[name] = file


def limits_of(asked: Options, names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many scenarios of which split are asked for; beside a number of training scenarios the
    others get a sixth, as far as there are so many."""
    wanted = {"train": asked.scenes, "val": asked.val_scenes, "test": asked.test_scenes}
    limits = {split: number for split, number in wanted.items() if number is not None}
    for split, number in limits.items():
        there = len(names[split])
        if number > there:
            flag = "--scenes" if split == "train" else f"--{split}-scenes"
            raise SriError(
                f"{flag} {number}: {LIST_FILES[split]} names {there:,} scenarios",
                f"{flag} {there}, or leave it out for all of them",
            )
    if asked.scenes is not None:
        share = sixth(asked.scenes)
        limits = {split: min(share, len(names[split])) for split in ("val", "test")} | limits
    return limits


def choose(names: Sequence[str], limit: int | None) -> list[str]:
    """`limit` of the names (None: all), sorted; of all kinds alike, so by their hashes: the first
    names of the alphabet would be the lowest towers."""
    if limit is None:
        return list(names)
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return sorted(by_hash[:limit])


def header_of(
    lists: Lists,
    resizing: Resizing,
    masks: bool,
    views: int | None,
    simulated: Mapping[str, Any] | None,
) -> Header:
    """What the data file says of itself; `simulated` are the parameters of files of our own."""
    parameters = {"split": lists.split, "scenarios_sha256": lists.sha256(), "masks": masks}
    limits = dict(lists.limits) | ({} if views is None else {"views": views})
    return Header(
        name=NAME,
        size=resizing.size,
        source="original" if simulated is None else "simulated",
        background_labels=1,
        parameters={**(simulated or {}), **parameters, **limits},
        preprocessing=resizing.words(),
    )


def camera_in(file: str, pattern: re.Pattern[str]) -> int | None:
    """The camera's number in the name of a picture or map, None when it is neither."""
    found = pattern.fullmatch(file)
    if found is None:
        return None
    camera = int(found.group(1))
    if camera >= MOST_CAMERAS:
        raise SriError(
            f"{file} is of camera {camera}", f"cameras 0 to {MOST_CAMERAS - 1} can be read"
        )
    return camera


def agreed_views(cameras: Mapping[str, tuple[int, ...]], views: int | None, where: str) -> int:
    """Of how many cameras every scenario has pictures (name -> their numbers), `views` at most.

    Simulated towers are not all seen by the same ones. SriError for a scenario that has none, or
    fewer or more than most, and when there are not `views`.
    """
    again = "get shapestacks-rgb.tar.gz again, this copy is not whole"
    numbers = {name: len(there) for name, there in cameras.items()}
    bare = [name for name, number in numbers.items() if not number]
    if bare:
        raise SriError(
            f"{len(bare):,} of {len(cameras):,} listed scenarios have no pictures in {where}:"
            f" the first is {bare[0]}",
            again,
        )
    usual = Counter(numbers.values()).most_common(1)[0][0]
    odd = next((name for name, number in numbers.items() if number != usual), None)
    if odd is not None:
        raise SriError(
            f"{odd} has pictures of {numbers[odd]} cameras, others of {usual}, in {where}", again
        )
    if views is not None and views > usual:
        raise SriError(f"--views {views}: there are {usual} cameras", f"--views {usual}")
    return usual if views is None else views


def check_maps(maps: Mapping[str, bool], where: str) -> None:
    """SriError unless every scenario has the maps of its cameras (name -> whether), or none has."""
    without = [name for name, there in maps.items() if not there]
    if without and len(without) < len(maps):
        raise SriError(
            f"{len(without):,} of {len(maps):,} listed scenarios lack instance maps in {where}:"
            f" the first is {without[0]}",
            "get shapestacks-iseg.tar.gz again, or move all maps away to prepare without masks",
        )


def factors_of(name: str, cameras: Sequence[int]) -> dict[str, NDArray[np.int16]]:
    """What the name tells of every view, [V]; `camera` is the number in the files' names."""
    found = SCENARIO.fullmatch(name)
    assert found is not None  # the lists were checked
    height, vcom, vpsf = (int(number) for number in found.groups())
    whole = {"height": height, "stable": int(vcom == vpsf == 0), "vcom": vcom, "vpsf": vpsf}
    factors = {key: np.full(len(cameras), value, np.int16) for key, value in whole.items()}
    return factors | {"camera": np.asarray(cameras, np.int16)}
