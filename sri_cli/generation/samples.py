"""New scenes on disk: what `sri sample` leaves in a folder.

Axis legend: N images, B images of a chunk, K slots, H W pixels. Written beside its place and
renamed at the end, so that a folder of samples is always whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import cannot_write, ensure_folder
from sri_cli.console import counting
from sri_cli.errors import SriError, SriFailure
from sri_cli.generation.sample import check_request, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.generation.writers import WRITERS, Arrays
from sri_cli.models.base import Scene
from sri_cli.plotting.grid import caption, make_grid, png_bytes
from sri_cli.plotting.palette import blend_masks
from sri_cli.run import Workspace

GRID_IMAGES = 64
GRID_CELL_PX = 64


@dataclass(frozen=True)
class Request:
    """What to draw; slots None means as many as in training."""

    num: int = 64
    slots: int | None = None
    temperature: float = 1.0
    seed: int = 0
    format: str = "png"
    masks: bool = False


def sample_run(
    workspace: Workspace, run: str | None, request: Request, out: Path | None = None
) -> tuple[TrainedRun, Path]:
    """Samples of a run (None: the latest), and the folder they lie in."""
    # A request that means nothing is refused before any model is looked for.
    slots = 1 if request.slots is None else request.slots
    check_request(request.num, slots, request.temperature, request.seed)
    trained = open_run(workspace, run)
    return trained, write_samples(trained, request, out)


def write_samples(trained: TrainedRun, request: Request, out: Path | None = None) -> Path:
    """Draw the scenes and write them to `out` (None: a folder of the run named after the request).

    grid.png (the first 64), sample.json, and the images as PNGs, one .npz or one .h5.
    Raises SriError for a request that means nothing or a folder that holds something already.
    """
    slots = trained.model.num_slots if request.slots is None else request.slots
    check_request(request.num, slots, request.temperature, request.seed)
    target = _default_folder(trained, request, slots) if out is None else out.resolve()
    if out is not None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SriError(f"{target} is there already", "name a new or empty folder with --out")
    ensure_folder(target.parent)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        _fill(beside, trained, request, slots)
        _put(beside, target)
    except SriFailure:
        raise
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _put(beside: Path, target: Path) -> None:
    """Rename the finished folder to its place."""
    if target == Path.cwd():  # another folder in its stead would not be the one the shell is in
        for path in sorted(beside.iterdir()):
            os.replace(path, target / path.name)
        return
    shutil.rmtree(target, ignore_errors=True)
    os.replace(beside, target)


def _default_folder(trained: TrainedRun, request: Request, slots: int) -> Path:
    name = (
        f"step-{trained.step:09d}_slots-{slots}_temp-{request.temperature:g}"
        f"_seed-{request.seed}_num-{request.num}_{request.format}"
    )
    return trained.run_dir / "samples" / (name + ("_masks" if request.masks else ""))


def _fill(folder: Path, trained: TrainedRun, request: Request, slots: int) -> None:
    """Everything that belongs into the folder."""
    first: list[Arrays] = []
    writing = closing(WRITERS[request.format](folder, request.num))
    with writing as writer, counting("sampling", request.num) as advance:
        for arrays in _chunks(trained, request, slots):
            writer.add(arrays)
            if sum(len(chunk["images"]) for chunk in first) < GRID_IMAGES:
                first.append(arrays)
            advance(len(arrays["images"]))
    text = (
        f"{trained.title}; {slots} slots, temperature {request.temperature:g}, seed {request.seed}"
    )
    _write_grids(folder, first, text, request.masks)
    settings = {
        "run": str(trained.run_dir),
        "step": trained.step,
        "trained_on": trained.caption,
        "num": request.num,
        "slots": slots,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    (folder / "sample.json").write_text(json.dumps(settings, indent=2) + "\n")


def _chunks(trained: TrainedRun, request: Request, slots: int) -> Iterator[Arrays]:
    """images uint8 [B,H,W,3] and, where asked for, masks uint8 [B,K,H,W] (255: all of it)."""
    scenes = sample_scenes(trained.model, request.num, slots, request.temperature, request.seed)
    for scene in scenes:
        images = {"images": quantise(scene.image)}
        yield images | ({"masks": mask_levels(scene)} if request.masks else {})


def mask_levels(scene: Scene) -> NDArray[np.uint8]:
    """Masks as 8-bit levels, uint8 [B,K,H,W]."""
    levels: NDArray[np.uint8] = (scene.masks[:, :, 0] * 255).round().byte().cpu().numpy()
    return levels


def _write_grids(folder: Path, chunks: list[Arrays], text: str, masks: bool) -> None:
    images = np.concatenate([chunk["images"] for chunk in chunks])[:GRID_IMAGES]
    scale = max(1, GRID_CELL_PX // images.shape[1])
    (folder / "grid.png").write_bytes(png_bytes(caption(make_grid(images, scale=scale), text)))
    if masks:
        levels = np.concatenate([chunk["masks"] for chunk in chunks])[:GRID_IMAGES]
        coloured = make_grid(blend_masks(levels / np.float32(255)), scale=scale)
        (folder / "grid-masks.png").write_bytes(png_bytes(caption(coloured, text)))
