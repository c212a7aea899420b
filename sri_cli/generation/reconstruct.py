"""`sri reconstruct`: images of a split as the model sees them.

Axis legend: N images, K slots, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sri_cli.atomic import write_atomic
from sri_cli.console import counted
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import device_of, evaluation_noise, in_chunks, quantise, to_tensor
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import fitting_split
from sri_cli.plotting.grid import Picture, png_bytes
from sri_cli.plotting.reconstruction import reconstruction_figure
from sri_cli.run import Workspace

MAX_IMAGES = 64  # columns of one picture


class Seen(NamedTuple):
    """Images at `places` of a split as a model sees them: inputs, pictures (reconstructed) and
    imagined [N,H,W,3], what each slot shows [N,K,H,W,3], attention and decoded masks [N,K,H,W].

    `imagined` (the slot prior's rollout from the image's scene latent) is None for systems without.
    """

    places: NDArray[np.intp]
    inputs: Picture
    attention: NDArray[np.float32]
    pictures: Picture
    masks: NDArray[np.float32]
    rgb: Picture
    imagined: Picture | None


def look_at_reconstructions(
    trained: TrainedRun, data: DataFile, split: str = "test", num: int = 10, seed: int = 0
) -> Picture:
    """Columns of `num` images from all over the split; noise as in evaluation."""
    check_num(num)
    found = seen(trained, data, split, num, seed)
    text = f"{trained.run_dir.name}, step {trained.step}; {data.caption}, {split} split"
    return reconstruction_figure(
        found.inputs, found.attention, found.pictures, found.masks, found.imagined, text
    )


def seen(
    trained: TrainedRun, data: DataFile, split: str = "test", num: int = 10, seed: int = 0
) -> Seen:
    """`num` images from all over the split as the model sees them; noise as in evaluation."""
    model = trained.model
    part = fitting_split(trained, data, (), split)
    places = part.pick(num)
    inputs = np.array(part.images[places])
    device = device_of(model)

    def compute(start: int, count: int) -> tuple[Picture | np.ndarray | None, ...]:
        chosen = slice(start, start + count)
        noise = evaluation_noise(model, seed, places[chosen], device)
        again = model.reconstruct(to_tensor(inputs[chosen], device), noise)
        return (
            again.attention[:, :, 0].float().cpu().numpy(),
            quantise(again.scene.image),
            again.scene.masks[:, :, 0].float().cpu().numpy(),
            quantise(again.scene.rgb),
            None if again.imagined is None else quantise(again.imagined.image),
        )

    chunks = list(in_chunks(compute, len(places), 8, device))
    arrays: list[Any] = [
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*chunks, strict=True)
    ]
    return Seen(places, inputs, *arrays)


def write_reconstructions(
    trained: TrainedRun,
    data: DataFile,
    out: Path | None = None,
    split: str = "test",
    num: int = 10,
    seed: int = 0,
) -> Path:
    """Write the figure to `out` (None: the run's figures/reconstruct-SPLIT.png)."""
    figure = look_at_reconstructions(trained, data, split, num, seed)
    path = out or trained.run_dir / "figures" / f"reconstruct-{split}.png"
    write_atomic(path, png_bytes(figure))
    return path


def reconstruct_of_run(
    workspace: Workspace,
    run: str | None,
    data: str | None,
    split: str,
    num: int,
    seed: int,
    out: Path | None,
    dynamic_slots: bool = False,
) -> tuple[Path, str]:
    """`write_reconstructions` for a run (None: the latest): the file, and what it shows."""
    check_num(num)
    trained = open_run(workspace, run, dynamic_slots)
    file = trained.open_data(data)
    path = write_reconstructions(trained, file, out, split, num, seed)
    shown = counted(min(num, file.counts[split]), "image")
    return path, f"{shown} of {file.caption}, {split} split"


def check_num(num: int) -> None:
    """SriError unless the images fit one figure."""
    if not 1 <= num <= MAX_IMAGES:
        raise SriError(f"--num {num}: one figure shows 1 to {MAX_IMAGES} images", "--num 10")
