"""Simulated towers as files in the layout of the original ShapeStacks: `--raw DIR`.

Whatever reads the original files reads these, `sri prepare shapestacks --from DIR` too. Images show
what the original's show: 224 px at the whole field of view of the camera.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.atomic import cannot_write, ensure_folder, lock_file, write_atomic
from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.parallel import parallel_map, worker_killed
from sri_cli.data.source import FIRST_SCENARIO, Options, Rows, Scenario, Simulation, Source, Survey
from sri_cli.data.sources.shapestacks_files import (
    IMAGE_PX,
    LABEL_STEP,
    LIST_FILES,
    SIMULATED,
    OriginalFiles,
    files_header,
)
from sri_cli.data.writer import check_space
from sri_cli.errors import Interrupted, SriError
from sri_cli.signals import stop_on_signal

VIEW_BYTES = 64_000  # of an image and its map, on disk
UNFINISHED = ".unfinished"


class RawTowers(Source):
    """Simulated towers, written to `folder` as the original's files and read from there."""

    def __init__(self, towers: Simulation, folder: Path) -> None:
        """`towers` say how many, from which seed and at which size the data file is to be."""
        self.towers, self.folder, self.root = towers, folder, folder / "shapestacks"
        self.views = towers.views
        self.options = Options(size_px=towers.header.size)
        names = scenario_names(towers)
        self.header = files_header(
            {split: sorted(names[split].values()) for split in SPLITS},
            self.options,
            "default",
            masks=True,
            simulated=towers.header.parameters,
        )

    def fetch(self, workers: int, command: str) -> None:
        """Write the files that are missing; see `write_raw`."""
        write_raw(self.towers, self.folder, workers, command)
        self.files = OriginalFiles(self.root, self.options)

    def survey(self) -> Survey:
        return self.files.survey()

    def items(self, survey: Survey, rows: Rows) -> Iterable[tuple[str, str]]:
        return self.files.items(survey, rows)

    def make(self, item: str) -> Scenario:
        return self.files.make(item)


def write_raw(towers: Simulation, folder: Path, workers: int, command: str) -> None:
    """Write the missing files of towers to the folder `shapestacks` in `folder`.

    The folder of a scenario exists whole or not at all; the split lists come last.

    Raises:
        SriError: `folder` holds other files.
        Interrupted: A signal came; the scenarios so far are kept.
    """
    root = folder / "shapestacks"
    parameters = {"parameters": dict(towers.header.parameters)}
    record = json.dumps(parameters, sort_keys=True, indent=1) + "\n"
    check_folder(folder, record)
    ensure_folder(root / "recordings")
    lock = lock_file(root / "simulated.lock", "writing", "wait for it, or choose another --raw DIR")
    try:
        write_atomic(root / SIMULATED, record.encode())
        names = scenario_names(towers)
        write_scenarios(towers, root / "recordings", names, workers, command)
        for split, file in LIST_FILES.items():
            text = "".join(f"{name}\n" for name in sorted(names[split].values()))
            write_atomic(root / "splits" / "default" / file, text.encode())
    finally:
        (root / "simulated.lock").unlink(missing_ok=True)
        os.close(lock)


def scenario_names(towers: Simulation) -> dict[str, dict[int, str]]:
    """The scenarios of each split, index -> name."""
    from sri_cli.data.simulate.towers import tower_name

    seed = towers.header.parameters["seed"]
    return {
        split: {
            index: tower_name(index, preset="original", seed=seed)
            for index in range(FIRST_SCENARIO[split], FIRST_SCENARIO[split] + number)
        }
        for split, number in towers.scenes.items()
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


def write_scenarios(
    towers: Simulation,
    recordings: Path,
    names: Mapping[str, Mapping[int, str]],
    workers: int,
    command: str,
) -> None:
    """Simulate and write every scenario that has no folder yet."""
    from sri_cli.data.simulate.towers import simulate_tower

    every = {index: name for split in SPLITS for index, name in names[split].items()}
    existing = {place.name for place in recordings.iterdir()}
    missing = [index for index, name in every.items() if name not in existing]
    if not missing:
        return
    views, seed = towers.views, towers.header.parameters["seed"]
    total, done = len(every) * views, (len(every) - len(missing)) * views
    check_space(recordings, len(missing) * views * VIEW_BYTES)
    simulate = functools.partial(
        simulate_tower,
        size_px=IMAGE_PX,
        views=views,
        preset="original",
        seed=seed,
        full_view=True,
    )
    write = functools.partial(write_scenario, simulate, recordings)
    with (
        Progress(total, 0, "write towers", "view") as progress,
        stop_on_signal() as stop,
        closing(parallel_map(write, ((i, i) for i in missing), workers)) as written,
    ):
        progress.start_at(done)
        resumed = f", resuming after {done:,}" if done else ""
        progress.note(
            f"simulated towers: {counted(total, 'view')} of {IMAGE_PX} px -> {recordings}"
            f" ({counted(workers, 'worker')}){resumed}"
        )
        try:
            for _ in written:
                done += views
                progress.update(done)
                if stop.name:
                    break
        except BrokenProcessPool as error:
            if not stop.name:
                raise worker_killed(command) from error
        if stop.name:
            raise Interrupted(
                f"stopped by {stop.name} after {done:,} of {total:,} views, saved in {recordings}",
                f"resume: {command}",
            )


def write_scenario(simulate: Callable[[int], Scenario], recordings: Path, index: int) -> None:
    """In a worker: simulate a scenario and write its folder, whole or not at all."""
    scenario = simulate(index)
    beside = recordings / f"{scenario.name}{UNFINISHED}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for name, data in scenario_files(scenario):
            (beside / name).write_bytes(data)
        os.rename(beside, recordings / scenario.name)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise cannot_write(recordings, error) from error


def scenario_files(scenario: Scenario) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the images and maps; cameras count from 1, textures and lights from 0."""
    assert scenario.masks is not None
    keys = ("wall_texture", "floor_texture", "light", "camera")
    views = zip(*(scenario.factors[key] for key in keys), strict=True)
    for image, mask, (wall, floor, light, camera) in zip(
        scenario.images, scenario.masks, views, strict=True
    ):
        suffix = f"cam_{int(camera) + 1}-mono-0"
        yield f"rgb-w={wall}-f={floor}-l={light}-c=original-{suffix}.png", png(image)
        levels = np.repeat((mask * LABEL_STEP)[..., None], 3, axis=2)
        yield f"iseg-w=0-f=0-l=0-c=original-{suffix}.map", png(levels)


def png(image: NDArray[np.uint8]) -> bytes:
    """uint8 [H,W,3] as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
