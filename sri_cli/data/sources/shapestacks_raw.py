"""Simulated towers as files in the layout of the original ShapeStacks: `--raw DIR`.

Whoever reads the original's files can read these, `sri prepare shapestacks --from DIR` too. They
show what the original shows: 224 px at the camera's whole field of view.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sri_cli.atomic import cannot_write, ensure_folder, lock_file, write_atomic
from sri_cli.console import Progress, counted
from sri_cli.data.dataset import SPLITS
from sri_cli.data.parallel import available_cores, parallel_map, worker_killed
from sri_cli.data.source import FIRST_SCENARIO, Options
from sri_cli.data.sources.shapestacks_files import SIMULATED, resizing_of
from sri_cli.data.sources.shapestacks_names import LIST_FILES, SIDE_PX, Lists, header_of
from sri_cli.data.sources.shapestacks_pictures import LABEL_STEP
from sri_cli.data.sources.shapestacks_places import ARCHIVE, ROOMS
from sri_cli.data.writer import Header, check_space
from sri_cli.errors import Interrupted, SriError
from sri_cli.signals import stop_on_signal

if TYPE_CHECKING:
    from sri_cli.data.source import Scenario
    from sri_cli.data.sources.shapestacks import Towers

VIEW_BYTES = 64_000  # of a picture and its map, on disk
UNFINISHED = ".unfinished"


def write_raw(
    towers: Towers,
    folder: Path,
    workers: int | None = None,
    command: str = "sri prepare shapestacks",
) -> Path:
    """Write what is missing of the towers' files and return the folder `shapestacks` in `folder`.

    A scenario's folder is there whole or not at all, the split lists come last. SriError when
    `folder` holds other files, Interrupted (75) after a signal, with the scenarios so far kept.
    """
    root = folder / "shapestacks"
    record = json.dumps({"parameters": raw_parameters(towers)}, sort_keys=True, indent=1) + "\n"
    check_ours(folder, root, record)
    ensure_folder(root / "recordings")
    lock = lock_file(root / "simulated.lock", "writing", "wait for it, or choose another --raw DIR")
    try:
        write_atomic(root / SIMULATED, record.encode())
        names = scenario_names(towers)
        write_scenarios(towers, root / "recordings", names, workers or available_cores(), command)
        for split, file in LIST_FILES.items():
            text = "".join(f"{name}\n" for name in sorted(names[split].values()))
            write_atomic(root / "splits" / "default" / file, text.encode())
    finally:
        (root / "simulated.lock").unlink(missing_ok=True)
        os.close(lock)
    return root


def raw_parameters(towers: Towers) -> dict[str, Any]:
    """What fixes every byte of the files; they are of 224 px whatever `size_px`."""
    return {key: value for key, value in asdict(towers).items() if key != "size_px"}


def raw_header(towers: Towers) -> Header:
    """The header of the data file that the towers' files will make, before there are any."""
    names = scenario_names(towers)
    scenarios = {split: sorted(names[split].values()) for split in SPLITS}
    resizing = resizing_of(Options(size_px=towers.size_px))
    return header_of(Lists("default", scenarios, {}), resizing, True, None, raw_parameters(towers))


def scenario_names(towers: Towers) -> dict[str, dict[int, str]]:
    """The scenarios of each split, index -> name; an index, and so a name, is there once."""
    from sri_cli.data.simulate.towers import tower_name

    return {
        split: {
            index: tower_name(index, preset=towers.preset, seed=towers.seed)
            for index in range(FIRST_SCENARIO[split], FIRST_SCENARIO[split] + number)
        }
        for split, number in towers.scenarios().items()
    }


def check_ours(folder: Path, root: Path, record: str) -> None:
    """SriError unless the folder is free for these files, or holds a part of them."""
    if folder.exists() and not folder.is_dir():
        raise SriError(f"--raw {folder} is a file", "name a folder")
    known = root / SIMULATED
    if known.is_file():
        if known.read_text("utf-8", "replace") != record:
            raise SriError(
                f"{folder} holds towers that were simulated with other numbers",
                "choose another folder: --raw DIR, or remove that one",
            )
        return
    taken = [place for place in (root, *(folder / room for room in ROOMS)) if place.exists()]
    taken += sorted(folder.glob(ARCHIVE.format("*")))
    if taken:
        raise SriError(
            f"{folder} holds files that are not of `--raw`: {taken[0].name}",
            "choose another folder for the simulated files: --raw DIR",
        )


def write_scenarios(
    towers: Towers,
    recordings: Path,
    names: Mapping[str, Mapping[int, str]],
    workers: int,
    command: str,
) -> None:
    """Simulate and write every scenario that has no folder yet."""
    every = {index: name for split in SPLITS for index, name in names[split].items()}
    there = {place.name for place in recordings.iterdir()}
    missing = [index for index, name in every.items() if name not in there]
    if not missing:
        return
    total, done = len(every) * towers.views, (len(every) - len(missing)) * towers.views
    check_space(recordings, len(missing) * towers.views * VIEW_BYTES)
    write = functools.partial(write_scenario, towers, recordings)
    with (
        Progress(total, 0, "write towers", "view") as progress,
        stop_on_signal() as stop,
        closing(parallel_map(write, ((i, i) for i in missing), workers)) as written,
    ):
        progress.start_at(done)
        progress.note(opening(recordings, done, total, workers))
        try:
            for _ in written:
                done += towers.views
                progress.reach(done)
                if stop.name:
                    break
        except BrokenProcessPool as error:
            if not stop.name:
                raise worker_killed(command) from error
        if stop.name:
            raise Interrupted(
                f"stopped by {stop.name} after {done:,} of {total:,} views, kept in {recordings}",
                f"go on: {command}",
            )


def opening(recordings: Path, done: int, total: int, workers: int) -> str:
    """The note that writing begins with."""
    what = f"simulated towers: {counted(total, 'view')} of {SIDE_PX} px -> {recordings}"
    what += f" ({counted(workers, 'worker')})"
    return f"{what}\nresuming after {done:,} of {total:,} views" if done else what


def write_scenario(towers: Towers, recordings: Path, index: int) -> None:
    """In a worker: simulate one scenario and write its folder, whole or not at all."""
    from sri_cli.data.simulate.towers import simulate_tower

    scenario = simulate_tower(
        index,
        size_px=SIDE_PX,
        views=towers.views,
        preset=towers.preset,
        seed=towers.seed,
        full_view=True,
    )
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
    """(name, content) of the pictures and maps. Cameras count from 1 here; what stands for the
    textures and the light in a name counts from 0, as the simulator does."""
    assert scenario.masks is not None
    look = zip(
        *(scenario.factors[key] for key in ("wall_texture", "floor_texture", "light", "camera")),
        strict=True,
    )
    for picture, mask, (wall, floor, light, camera) in zip(
        scenario.images, scenario.masks, look, strict=True
    ):
        shown = f"cam_{int(camera) + 1}-mono-0"
        yield f"rgb-w={wall}-f={floor}-l={light}-c=original-{shown}.png", png(picture)
        levels = np.repeat((mask * LABEL_STEP)[..., None], 3, axis=2)
        yield f"iseg-w=0-f=0-l=0-c=original-{shown}.map", png(levels)


def png(picture: NDArray[np.uint8]) -> bytes:
    """uint8 [H,W,3] as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()
