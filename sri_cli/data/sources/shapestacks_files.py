"""ShapeStacks from its own files, unpacked: `sri prepare shapestacks --from DIR`.

    shapestacks/splits/<list>/{train,eval,test}.txt
    shapestacks/recordings/<scenario>/rgb-*cam_N*.png
    iseg-*cam_N*.map beside the pictures, or in shapestacks/iseg/<scenario>/

Cut and shrunk as GENESIS-v2 and SRI do. Scenarios are split, never pictures; every listing is
sorted, so that the file system's order changes nothing.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.console import Progress
from sri_cli.data.dataset import SPLITS
from sri_cli.data.source import Options, Rows, Scenario, Survey
from sri_cli.data.sources.asked import Job
from sri_cli.data.sources.shapestacks_names import (
    CENTRE_PX,
    LIST_FILES,
    MAP,
    NAME,
    PICTURE,
    SIZE_PX,
    Lists,
    agreed_views,
    camera_in,
    check_maps,
    factors_of,
    header_of,
    read_lists,
)
from sri_cli.data.sources.shapestacks_pictures import labels_in, picture_in
from sri_cli.data.transforms import Resizing
from sri_cli.errors import SriError, did_you_mean

SIMULATED = "simulated.json"  # beside splits/: these files were written by `--raw`
MAPS_LOOKED_AT = 3
NO_MASKS = f"Note: {NAME} has no instance maps here; ARI cannot be measured on this file"


@dataclass(frozen=True)
class SceneFiles:
    """One scenario: names of its pictures and, where `map_room` (recordings or iseg), its maps,
    in the order of `cameras`."""

    name: str
    cameras: tuple[int, ...]
    pictures: tuple[str, ...]
    map_room: str | None
    maps: tuple[str, ...]


@dataclass(frozen=True)
class FoundFiles(Survey):
    """The scenarios of each split beside their counts."""

    scenes: Mapping[str, Sequence[SceneFiles]] = field(default_factory=dict)


def resizing_of(asked: Options) -> Resizing:
    """The data set's published preprocessing."""
    return Resizing(asked.size_px or SIZE_PX, "bilinear", centre=CENTRE_PX)


def files_job(root: Path, asked: Options, split: str = "default") -> Job:
    """The job of unpacked files in `root` (which holds splits/ and recordings/).

    Reads only the lists; listing the folders is the survey's. Raises SriError for faulty lists.
    """
    lists = read_list_files(root, split, asked)
    first = lists.scenarios["train"][0]
    cameras = [*files_by_camera(root / "recordings" / first, PICTURE)]
    masks = map_room(root, first) is not None
    resizing = resizing_of(asked)
    return Job(
        header_of(lists, resizing, masks, asked.views, read_simulated(root)),
        survey=functools.partial(survey, root, lists, asked.views),
        items=missing_scenes,
        make=functools.partial(read_scene, root, resizing),
        views=max(1, len(cameras[: asked.views])),
        survey_again=True,
    )


def read_list_files(root: Path, split: str, asked: Options) -> Lists:
    """The lists of `split`; SriError when there is none of that name."""
    folder = root / "splits" / split
    try:
        texts = {file: (folder / file).read_bytes() for file in LIST_FILES.values()}
    except OSError as error:
        near, hint = "", "get shapestacks-meta.tar.gz again"
        if (root / SIMULATED).exists() and split == "default":
            hint = "writing these files was cut short: go on with the same --raw command"
        elif not folder.is_dir():
            there = sorted(place.name for place in (root / "splits").iterdir() if place.is_dir())
            near, hint = did_you_mean(split, there), f"there is {', '.join(there) or 'none'}"
        raise SriError(f"no split list {error.filename}{near}", hint) from error
    return read_lists(texts, str(folder), split, asked)


def read_simulated(root: Path) -> dict[str, Any] | None:
    """The parameters of files that `--raw` wrote, None for the original's."""
    path = root / SIMULATED
    if not path.exists():
        return None
    return simulated_parameters(path.read_bytes(), str(path))


def simulated_parameters(text: bytes, where: str) -> dict[str, Any]:
    """What a simulated.json says; SriError when it says nothing."""
    try:
        parameters = json.loads(text)["parameters"]
    except (ValueError, KeyError, TypeError) as error:
        raise SriError(f"{where} is damaged", "write the files again: --raw DIR") from error
    if not isinstance(parameters, dict):
        raise SriError(f"{where} is damaged", "write the files again: --raw DIR")
    return parameters


def survey(root: Path, lists: Lists, views: int | None) -> FoundFiles:
    """List every scenario's folder and hold them against each other."""
    found = {name: find_scene(root, name) for name in lists.everyone()}
    pictures = str(root / "recordings")
    there = {name: scene.cameras for name, scene in found.items()}
    views = agreed_views(there, views, pictures)
    check_maps({name: bool(scene.maps) for name, scene in found.items()}, str(root))
    scenes = {
        split: tuple(cut(found[name], views) for name in lists.scenarios[split]) for split in SPLITS
    }
    look_at_maps(root, scenes["train"])
    if not scenes["train"][0].maps:
        Progress(0, 0, NAME).note(NO_MASKS)
    return FoundFiles({split: len(scenes[split]) * views for split in SPLITS}, scenes=scenes)


def find_scene(root: Path, name: str) -> SceneFiles:
    """The files of one scenario; no cameras when it has no pictures.

    SriError when it has maps, but not one for every picture.
    """
    pictures = files_by_camera(root / "recordings" / name, PICTURE)
    room = map_room(root, name)
    maps = files_by_camera(root / room / name, MAP) if room else {}
    if maps and pictures.keys() - maps.keys():
        raise SriError(
            f"{name} has no instance map of camera {min(pictures.keys() - maps.keys())}"
            f" in {root / (room or '')}",
            "get shapestacks-iseg.tar.gz again",
        )
    return SceneFiles(
        name,
        tuple(pictures),
        tuple(pictures.values()),
        room,
        tuple(maps[camera] for camera in pictures) if maps else (),
    )


def map_room(root: Path, name: str) -> str | None:
    """Where a scenario's maps lie: beside the pictures, or in a folder of their own."""
    for room in ("recordings", "iseg"):
        if files_by_camera(root / room / name, MAP):
            return room
    return None


def files_by_camera(folder: Path, pattern: re.Pattern[str]) -> dict[int, str]:
    """The files of a scenario by camera, in order; none where there is no such folder.

    SriError for two of one camera.
    """
    found: dict[int, str] = {}
    for file in sorted(os.listdir(folder)) if folder.is_dir() else []:
        camera = camera_in(file, pattern)
        if camera is None:
            continue
        if camera in found:
            raise SriError(
                f"{folder} has two files of camera {camera}: {found[camera]} and {file}",
                "move one of them away",
            )
        found[camera] = sys.intern(file)  # thousands of scenarios share few names
    return dict(sorted(found.items()))


def cut(scene: SceneFiles, views: int) -> SceneFiles:
    """The first `views` of a scenario."""
    return SceneFiles(
        scene.name,
        scene.cameras[:views],
        scene.pictures[:views],
        scene.map_room,
        scene.maps[:views],
    )


def look_at_maps(root: Path, scenes: Sequence[SceneFiles]) -> None:
    """SriError when the first maps mark nothing: told now, not after an hour."""
    first = [
        root / (s.map_room or "") / s.name / s.maps[0] for s in scenes[:MAPS_LOOKED_AT] if s.maps
    ]
    if first and not any(labels_in(path, str(path)).any() for path in first):
        raise all_zero(str(first[0]))


def all_zero(where: str) -> SriError:
    """What to raise when maps mark no object."""
    return SriError(
        f"the instance maps mark no object: {where} is 0 everywhere (first channel // 32)",
        "use the original maps, PNGs whose first channel is 32 x label; or move all maps away to"
        " prepare without masks",
    )


def missing_scenes(found: Survey, rows: Rows) -> Iterator[tuple[str, SceneFiles]]:
    """The scenarios after `rows`, split by split."""
    assert isinstance(found, FoundFiles)
    for split in SPLITS:
        scenes = found.scenes[split]
        for scene in scenes[rows[split] // len(scenes[0].cameras) :]:
            yield split, scene


def read_scene(root: Path, resizing: Resizing, scene: SceneFiles) -> Scenario:
    """In a worker: the views of one scenario, masks None where it has no maps."""
    pictures = [root / "recordings" / scene.name / file for file in scene.pictures]
    maps = [root / (scene.map_room or "") / scene.name / file for file in scene.maps]
    images = [resizing.picture(picture_in(path, str(path))) for path in pictures]
    masks = [resizing.labels(labels_in(path, str(path))) for path in maps]
    return Scenario(
        scene.name,
        np.stack(images),
        np.stack(masks) if masks else None,
        factors_of(scene.name, scene.cameras),
    )
