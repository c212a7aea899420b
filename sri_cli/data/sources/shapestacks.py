"""The files of ShapeStacks: read (`--from DIR`), or written from simulated towers (`--raw DIR`).

    DIR/shapestacks/splits/<default|blocks_all|ccs_all>/{train,eval,test}.txt
    DIR/shapestacks/recordings/<scenario>/rgb-*cam_N*.png
    iseg-*cam_N*.map beside the images, or in DIR/shapestacks/iseg/<scenario>/

A scenario is named env_<ccs|blocks>-<easy|hard>-h=H-vcom=A-vpsf=B-v=V: its height, and the block
that violates the centre-of-mass or the planar-surface rule (0: none; such a tower is stable).
Splits are by scenario and listings are sorted, so the order of the file system changes nothing.
Simulated towers are written at 224 px and the whole field of view, as the original's images are.
Axis: V views.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.atomic import ensure_folder, lock_file, new_folder, write_atomic
from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.parallel import parallel_map
from sri_cli.data.source import Options, Scenario, Simulation, Source
from sri_cli.data.transforms import Resizing
from sri_cli.data.writer import Header, check_space
from sri_cli.errors import SriError, SriFailure, did_you_mean

NAME = "shapestacks"
LIST_FILES = {"train": "train.txt", "val": "eval.txt", "test": "test.txt"}
SIMULATED = "simulated.json"  # beside splits/ in files written by `--raw`: their parameters
SIZE_PX, IMAGE_PX, CROP_PX = 64, 224, 196  # as GENESIS-v2 and SRI; of the files; their crop
LABEL_STEP, UNASSIGNED = 32, 7  # of instance maps, see `read_labels`
NUM_FIRST_MAPS = 3  # checked before the long work begins
VIEW_BYTES = 64_000  # of a written image and its map
SCENARIO = re.compile(
    r"env_(?:ccs|blocks)-(?:easy|hard)-h=([0-9]{1,2})-vcom=([0-9]{1,2})-vpsf=([0-9]{1,2})-v=[0-9]{1,9}"
)
# Images and maps name different textures: only the camera agrees.
IMAGE = re.compile(r"rgb-.*cam_([0-9]{1,4})(?![0-9]).*\.png")
MAP = re.compile(r"iseg-.*cam_([0-9]{1,4})(?![0-9]).*\.map")

Scenarios = Mapping[str, Sequence[str]]  # names by split, sorted


class OriginalFiles(Source):
    """The files of the data set, unpacked, or those that `--raw` writes; see `find_root`."""

    def __init__(self, root: Path, options: Options, split: str = "default") -> None:
        """Reads the split lists and the first scenario's folder; SriError for faulty lists."""
        options.refuse_seed()
        self.root, self.options, self.split = root, options, split
        self.resizing = Resizing(options.size_px or SIZE_PX, centre=CROP_PX)
        self.scenarios = self.read_scenarios()
        cameras, maps = self.files_of(self.scenarios["train"][0])
        self.views = max(1, len(list(cameras)[: options.views]))
        self.header = self.header_of(bool(maps), read_simulated(root))

    def header_of(self, masks: bool, simulated: Mapping[str, Any] | None) -> Header:
        """The header of the data file; `simulated`: the parameters of our own files."""
        options, scenarios = self.options, self.scenarios
        text = "".join(f"{part}\n{name}\n" for part in SPLITS for name in scenarios[part])
        parameters: dict[str, Any] = {
            **(simulated or {}),
            "split": self.split,
            "scenarios_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "masks": masks,
        }
        for part, number in options.given.items():
            if number is not None or options.scenes is not None:
                parameters[part] = len(scenarios[part])
        if options.views is not None:
            parameters["views"] = options.views
        return Header(
            name=NAME,
            size=self.resizing.size,
            source="original" if simulated is None else "simulated",
            background_labels=1,
            parameters=parameters,
            preprocessing=self.resizing.describe(),
        )

    def read_scenarios(self) -> Scenarios:
        """The scenarios of the split lists, as many as the options say.

        SriError for an empty list, a line that is not a scenario, or a scenario in two lists.
        """
        folder = self.root / "splits" / self.split
        names: dict[str, list[str]] = {}
        lists: dict[str, str] = {}  # scenario -> its list
        for split, file in LIST_FILES.items():
            names[split] = read_list(folder / file)
            for name in names[split]:
                if name in lists:
                    raise SriError(
                        f"{name} is in two lists of {folder}: {lists[name]} and {file}",
                        "unpack shapestacks-meta.tar.gz again",
                    )
                lists[name] = file
        return {split: choose(names[split], split, self.options) for split in SPLITS}

    def survey(self, workers: int) -> tuple[Header, Any]:
        """List every scenario's folder and compare them."""
        everyone = [name for split in SPLITS for name in self.scenarios[split]]
        numbers: dict[str, int] = {}
        first_maps: dict[str, Path | None] = {}
        with Progress(len(everyone), 0, f"check {self.root}", "scenario") as progress:
            for done, name in enumerate(everyone, start=1):
                images, maps = self.files_of(name)
                numbers[name], first_maps[name] = len(images), next(iter(maps.values()), None)
                missing = images.keys() - maps.keys()
                if maps and missing:
                    raise SriError(
                        f"{name} has no instance map of camera {min(missing)}", self.again("iseg")
                    )
                progress.update(done)
        check_cameras(numbers, self.options.views, self.again("rgb"))
        self.check_maps(first_maps)
        counts = {split: len(self.scenarios[split]) * self.views for split in SPLITS}
        return replace(self.header, counts=counts), self.scenarios

    def again(self, archive: str) -> str:
        """How to get missing files of an archive back."""
        if (self.root / SIMULATED).exists():
            return "delete the folder of this scenario, and run the --raw command again"
        return f"unpack shapestacks-{archive}.tar.gz again"

    def check_maps(self, first_maps: Mapping[str, Path | None]) -> None:
        """SriError unless all scenarios or none have maps, and the maps mark objects."""
        without = [name for name, path in first_maps.items() if path is None]
        if len(without) == len(first_maps):
            for folder in (self.root.parent, self.root):
                archive = folder / "shapestacks-iseg.tar.gz"
                if archive.exists():
                    raise SriError(
                        f"the images in {self.root} are unpacked, the instance maps are not",
                        unpacking(archive, self.root.parent),
                    )
            note = "Note: there are no instance maps; ARI cannot be measured on this file"
            Progress(0, 0, NAME).note(note)
            return
        if without:
            raise SriError(
                f"{len(without):,} of {len(first_maps):,} listed scenarios have no instance maps in"
                f" {self.root}: the first is {without[0]}",
                "unpack shapestacks-iseg.tar.gz again, or remove all maps to prepare without masks",
            )
        paths = [path for path in first_maps.values() if path is not None][:NUM_FIRST_MAPS]
        if not any(read_labels(path).any() for path in paths):
            raise SriError(
                f"the instance maps mark no object: {paths[0]} is 0 everywhere (first channel"
                f" // {LABEL_STEP})",
                "use the original maps, or remove all maps to prepare without masks",
            )

    def make(self, item: str) -> Scenario:
        images, maps = self.files_of(item)
        cameras = list(images)[: self.views]
        masks = [self.resizing.labels(read_labels(maps[camera])) for camera in cameras if maps]
        return Scenario(
            item,
            np.stack([self.resizing.image(read_image(images[camera])) for camera in cameras]),
            np.stack(masks) if masks else None,
            name_factors(item, cameras),
        )

    def files_of(self, name: str) -> tuple[dict[int, Path], dict[int, Path]]:
        """The images and the instance maps of a scenario, by camera."""
        recordings, iseg = self.root / "recordings" / name, self.root / "iseg" / name
        maps = files_by_camera(recordings, MAP) or files_by_camera(iseg, MAP)
        return files_by_camera(recordings, IMAGE), maps


def find_root(folder: Path) -> Path:
    """The folder with recordings/, beside which splits/ should be: `folder`, or shapestacks/ in it.

    SriError with the commands that unpack the archives, where those are not unpacked.
    """
    for root in (folder / "shapestacks", folder):
        if (root / "recordings").is_dir():  # missing split lists are reported by name
            return root
    archives = [folder / f"shapestacks-{kind}.tar.gz" for kind in ("meta", "rgb", "iseg")]
    existing = [path for path in archives if path.exists()]
    if existing:
        missing = [path.name for path in archives[:2] if not path.exists()]
        lacking = f" ({' and '.join(missing)} is missing)" if missing else ""
        commands = " && ".join(unpacking(path, folder) for path in existing)
        raise SriError(f"the archives in {folder} are not unpacked{lacking}", commands)
    raise SriError(
        f"{folder} has no files of ShapeStacks: no splits/ and recordings/ in it or in"
        f" {folder / 'shapestacks'}",
        "name the folder where the original archives were unpacked; for images of your own, use"
        " sri prepare folder",
    )


def unpacking(archive: Path, folder: Path) -> str:
    """The command that unpacks an archive into a folder."""
    return shlex.join(["tar", "-xzf", str(archive), "-C", str(folder)])


def read_list(path: Path) -> list[str]:
    """The scenarios of a split list, sorted, each once; SriError for a list that is damaged."""
    again = "unpack shapestacks-meta.tar.gz again"
    try:
        lines = path.read_text("utf-8-sig", "replace").splitlines()
    except OSError as error:
        near, hint, lists = "", again, path.parent.parent
        if (lists.parent / SIMULATED).exists() and path.parent.name == "default":
            hint = "writing these files was interrupted: run the same --raw command again"
        elif lists.is_dir() and not path.parent.is_dir():
            known = sorted(path.name for path in lists.iterdir() if path.is_dir())
            near = did_you_mean(path.parent.name, known)
            hint = f"available: {', '.join(known) or 'none'}"
        raise SriError(f"no split list {path}{near}", hint) from error
    names = set()
    for number, line in enumerate(map(str.strip, lines), 1):
        name = line if line.startswith("env_") else f"env_{line}"
        if line and not SCENARIO.fullmatch(name):
            raise SriError(f"{path} line {number} is not a scenario: {line[:60]!r}", again)
        if line:
            names.add(name)
    if not names:
        raise SriError(f"{path} is empty", again)
    return sorted(names)


def choose(names: Sequence[str], split: str, options: Options) -> list[str]:
    """As many of a split's scenarios as the options say; beside --scenes a sixth.

    They are chosen by their hashes, so that all kinds are among them: the first in alphabetical
    order are the lowest towers.
    """
    options.check_number(split, len(names), f"{LIST_FILES[split]} has {len(names):,} scenarios")
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return sorted(by_hash[: options.number(split)])


def read_simulated(root: Path) -> dict[str, Any] | None:
    """The parameters of files that `--raw` wrote; None for the original's."""
    path = root / SIMULATED
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_bytes())["parameters"])
    except (ValueError, KeyError, TypeError) as error:
        raise SriError(f"{path} is damaged", "write the files again: --raw DIR") from error


def files_by_camera(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """The files of a scenario that match, by camera, in order; {} where there is no folder."""
    files: dict[int, Path] = {}
    for file in sorted(os.listdir(folder)) if folder.is_dir() else []:
        match = pattern.fullmatch(file)
        if match is None:
            continue
        camera = int(match[1])
        if camera in files:
            raise SriError(
                f"{folder} has two files of camera {camera}: {files[camera].name} and {file}",
                "remove one of them",
            )
        files[camera] = folder / file
    return dict(sorted(files.items()))


def check_cameras(numbers: Mapping[str, int], views: int | None, again: str) -> None:
    """SriError unless all scenarios have images of equally many cameras, at least `views`.

    Simulated towers do not all have the same cameras. `again`: how to get missing files.
    """
    empty = [name for name, number in numbers.items() if not number]
    if empty:
        raise SriError(
            f"{len(empty):,} of {len(numbers):,} listed scenarios have no images: the first is"
            f" {empty[0]}",
            again,
        )
    usual = Counter(numbers.values()).most_common(1)[0][0]
    odd = next((name for name, number in numbers.items() if number != usual), None)
    if odd is not None:
        raise SriError(f"{odd} has images of {numbers[odd]} cameras, others of {usual}", again)
    if views is not None and views > usual:
        raise SriError(f"--views {views}: there are {usual} cameras", f"--views {usual}")


def name_factors(name: str, cameras: Sequence[int]) -> dict[str, NDArray[np.int16]]:
    """What a scenario's name says about every view, [V], and the camera in the file's name."""
    match = SCENARIO.fullmatch(name)
    assert match is not None  # the lists were checked
    height, vcom, vpsf = map(int, match.groups())
    values = {"height": height, "stable": int(vcom == vpsf == 0), "vcom": vcom, "vpsf": vpsf}
    factors = {key: np.full(len(cameras), value, np.int16) for key, value in values.items()}
    return factors | {"camera": np.asarray(cameras, np.int16)}


def read_image(path: Path) -> NDArray[np.uint8]:
    """A PNG, uint8 [224,224,3]; SriError when it is damaged or has another size,
    SriFailure when the disk fails."""
    try:
        pixels = np.asarray(Image.open(path, formats=("PNG",)).convert("RGB"))
    except Exception as error:  # Pillow's decoder raises all kinds
        again = "unpack its archive again"
        if reason := getattr(error, "strerror", None):  # of the disk: the rows so far stay
            text = f"{path} cannot be read: {reason}"
            raise SriFailure(text, f"run the same command again, or {again}") from error
        raise SriError(f"{path} cannot be read: {type(error).__name__}", again) from error
    height, width, _ = pixels.shape
    if (height, width) != (IMAGE_PX, IMAGE_PX):
        raise SriError(
            f"{path} has {width}x{height} px, ShapeStacks has {IMAGE_PX}x{IMAGE_PX}",
            "for other images, use sri prepare folder DIR",
        )
    return pixels


def read_labels(path: Path) -> NDArray[np.uint8]:
    """The labels of an instance map, uint8 [224,224]: 0 background, 1 to 6 from the bottom.

    A map is a PNG whose first channel // 32 is the label; 7 (unassigned) becomes background. The
    official loader reads maps with matplotlib, which gives fractions of 1 today where it gave
    integers once, and every mask becomes zero; Pillow gives the integers.
    """
    labels = read_image(path)[..., 0] // LABEL_STEP
    return np.where(labels == UNASSIGNED, 0, labels).astype(np.uint8)


class RawTowers(OriginalFiles):
    """Simulated towers, written to `folder` as the original's files and read from there."""

    writes_files = True

    def __init__(self, towers: Simulation, folder: Path) -> None:
        """`towers` say how many, from which seed and at which size the data file is to be."""
        self.towers, self.folder, self.root = towers, folder, folder / "shapestacks"
        self.views, self.options = towers.views, Options(size_px=towers.header.size)
        self.split = "default"
        self.resizing = Resizing(towers.header.size, centre=CROP_PX)
        self.scenarios = {s: sorted(own.values()) for s, own in scenario_names(towers).items()}
        self.header = self.header_of(True, towers.header.parameters)

    def survey(self, workers: int) -> tuple[Header, Any]:
        """Write the files that are missing, and list them."""
        write_raw(self.towers, self.folder, workers)
        return super().survey(workers)


def write_raw(towers: Simulation, folder: Path, workers: int) -> None:
    """Write the missing files of towers to the folder `shapestacks` in `folder`.

    The folder of a scenario exists whole or not at all; the split lists come last. SriError if
    `folder` holds other files.
    """
    root, recordings = folder / "shapestacks", folder / "shapestacks" / "recordings"
    parameters = {"parameters": dict(towers.header.parameters)}
    record = json.dumps(parameters, sort_keys=True, indent=1) + "\n"
    check_folder(folder, record)
    ensure_folder(recordings)
    lock = lock_file(root / "towers.lock", "writing", "wait for it, or choose another --raw DIR")
    try:
        write_atomic(root / SIMULATED, record.encode())
        for unfinished in recordings.glob(".env_*.tmp"):  # of a killed process
            shutil.rmtree(unfinished, ignore_errors=True)
        names, existing = scenario_names(towers), {path.name for path in recordings.iterdir()}
        every = {index: name for split in SPLITS for index, name in names[split].items()}
        missing = [index for index, name in every.items() if name not in existing]
        views, total = towers.views, len(every) * towers.views
        done = total - len(missing) * views
        if missing:
            check_space(recordings, len(missing) * views * VIEW_BYTES)
            simulate = functools.partial(towers.simulate, size_px=IMAGE_PX, full_view=True)
            write = functools.partial(write_scenario, simulate, recordings)
            with (
                Progress(total, done, "write towers", "view") as progress,
                closing(parallel_map(write, missing, workers)) as written,
            ):
                resumed = f", resuming after {done:,}" if done else ""
                progress.note(
                    f"simulated towers: {counted(total, 'view')} of {IMAGE_PX} px -> {recordings}"
                    f" ({counted(workers, 'worker')}){resumed}"
                )
                for _ in written:
                    progress.update(progress.done + views)
        for split, file in LIST_FILES.items():
            text = "".join(f"{name}\n" for name in sorted(names[split].values()))
            write_atomic(root / "splits" / "default" / file, text.encode())
    finally:
        (root / "towers.lock").unlink(missing_ok=True)
        os.close(lock)


def scenario_names(towers: Simulation) -> dict[str, dict[int, str]]:
    """The scenarios of each split, index -> name."""
    from sri_cli.data.simulate.towers import tower_name

    seed = towers.header.parameters["seed"]
    return {
        split: {index: tower_name(index, preset="original", seed=seed) for index in indices}
        for split, indices in towers.indices.items()
    }


def check_folder(folder: Path, record: str) -> None:
    """SriError unless the folder is free for these files, or holds a part of them."""
    hint = "choose another folder: --raw DIR"
    if folder.exists() and not folder.is_dir():
        raise SriError(f"--raw {folder} is a file", hint)
    known = folder / "shapestacks" / SIMULATED
    if known.is_file():
        if known.read_text("utf-8", "replace") != record:
            raise SriError(f"{folder} holds towers simulated with other parameters", hint)
        return
    for pattern in ("shapestacks", "splits", "recordings", "shapestacks-*.tar.gz"):
        for path in folder.glob(pattern):
            raise SriError(f"{folder} holds other files: {path.name}", hint)


def write_scenario(simulate: Callable[[int], Scenario], recordings: Path, index: int) -> None:
    """In a worker: simulate a scenario and write its folder, whole or not at all; cameras count
    from 1, textures and lights from 0."""
    scenario = simulate(index)
    assert scenario.masks is not None
    keys = ("wall_texture", "floor_texture", "light", "camera")
    views = zip(*(scenario.factors[key] for key in keys), strict=True)
    with new_folder(recordings / scenario.name) as folder:
        for image, mask, (wall, floor, light, camera) in zip(
            scenario.images, scenario.masks, views, strict=True
        ):
            suffix = f"cam_{int(camera) + 1}-mono-0"
            name = f"rgb-w={wall}-f={floor}-l={light}-c=original-{suffix}.png"
            Image.fromarray(image).save(folder / name)
            levels = np.repeat((mask * LABEL_STEP)[..., None], 3, axis=2)
            name = f"iseg-w=0-f=0-l=0-c=original-{suffix}.map"
            Image.fromarray(levels).save(folder / name, "PNG")
