"""New scenes on disk: a folder with a grid, the single images and the settings.

Axis legend: N images, B images of a chunk, K slots, H W pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.atomic import cannot_write, ensure_folder
from sri_cli.console import counting
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import check_request, mask_levels, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.generation.writers import WRITERS, Arrays
from sri_cli.plotting.grid import caption, make_grid, png_bytes
from sri_cli.plotting.palette import blend_masks

GRID_IMAGES = 64
GRID_CELL_PX = 64


def write_samples(
    trained: TrainedRun,
    out: Path | None = None,
    *,
    num: int = 64,
    slots: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    file_format: str = "png",
    masks: bool = False,
) -> Path:
    """Sample scenes and write grid.png (the first 64), sample.json and the images.

    The folder is written under another name and renamed at the end, so that it is complete.

    Args:
        trained: The run.
        out: A new or empty folder, by default one in the run's samples/, named by the settings.
        num: N.
        slots: K, by default that of training.
        temperature: Factor of every standard deviation of the prior.
        seed: Image i is a function of the seed and i.
        file_format: A name of WRITERS.
        masks: Whether the masks of all slots are written too.

    Raises:
        SriError: for settings out of range, or a folder that is not empty.
        SriFailure: if the disk refuses.
    """
    slots = trained.model.num_slots if slots is None else slots
    check_request(num, slots, temperature, seed)
    settings = {"num": num, "slots": slots, "temperature": temperature, "seed": seed}
    if out is None:
        name = f"step-{trained.step:09d}_slots-{slots}_temp-{temperature:g}_seed-{seed}_num-{num}"
        name += f"_{file_format}" + "_masks" * masks
        target = trained.run_dir / "samples" / name
    else:
        target = out.resolve()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise SriError(f"{target} is not an empty folder", "name a new folder with --out")
    ensure_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        _write(temporary, trained, settings, file_format, masks)
        _rename(temporary, target)
    except SriFailure:
        raise
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _rename(temporary: Path, target: Path) -> None:
    if target == Path.cwd():  # a new folder of this name would not be the one the shell is in
        for path in sorted(temporary.iterdir()):
            os.replace(path, target / path.name)
        return
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)


def _write(
    folder: Path, trained: TrainedRun, settings: dict[str, Any], file_format: str, masks: bool
) -> None:
    num = settings["num"]
    first: list[Arrays] = []  # chunks of the grid
    writing = closing(WRITERS[file_format](folder, num))
    with writing as writer, counting("sampling", num) as advance:
        for scene in sample_scenes(trained.model, **settings):
            arrays = {"images": quantise(scene.image)}
            if masks:
                arrays["masks"] = mask_levels(scene)
            writer.add(arrays)
            if sum(len(chunk["images"]) for chunk in first) < GRID_IMAGES:
                first.append(arrays)
            advance(len(arrays["images"]))
    text = f"{trained.title}; {settings['slots']} slots, temperature {settings['temperature']:g},"
    text += f" seed {settings['seed']}"
    images = np.concatenate([chunk["images"] for chunk in first])[:GRID_IMAGES]
    scale = max(1, GRID_CELL_PX // images.shape[1])
    grid = caption(make_grid(images, scale=scale), text)
    (folder / "grid.png").write_bytes(png_bytes(grid))
    if masks:
        levels = np.concatenate([chunk["masks"] for chunk in first])[:GRID_IMAGES]
        coloured = make_grid(blend_masks(levels / np.float32(255)), scale=scale)
        (folder / "grid-masks.png").write_bytes(png_bytes(caption(coloured, text)))
    run = {"run": str(trained.run_dir), "step": trained.step, "trained_on": trained.caption}
    (folder / "sample.json").write_text(json.dumps(run | settings, indent=2) + "\n")
