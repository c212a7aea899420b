"""A trained model and a split of data in, one record of measurements out.

Axis legend: N images of the split, B images of a chunk, K slots, H W pixels. The noise of an
image belongs to (seed, its place in the split): neither chunks nor devices change a number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.checkpoints import LoadedModel
from sri_cli.data.store import DataFile, Split
from sri_cli.errors import SriError, did_you_mean
from sri_cli.metrics import order
from sri_cli.metrics.elbo import bits_per_dimension, negative_elbo
from sri_cli.metrics.segmentation import ari_fg, labels_of, msc_fg
from sri_cli.model.output import Reconstruction
from sri_cli.sampling import chunk_size, device_of, in_chunks, indexed_noise, sample_scenes
from sri_cli.workspace import cannot_write

METRICS = ("ari", "msc", "elbo", "order")
LATER = ("fid", "stack-fd", "sacc-estimate")
DEFAULT_NUM = 320
MAX_ORDER_SCENES = 256  # every pair of them is compared
RECORDS = "metrics.jsonl"

Advance = Callable[[int], None]  # told how many more images are done


def parse_metrics(text: str) -> tuple[str, ...]:
    """'ari,elbo' -> names; SriError for unknown ones and for those that this version lacks."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = f"--metrics {','.join(METRICS)}"
    for name in names:
        if name in LATER:
            raise SriError(f"metric {name} comes with a later version of sri", known)
        if name not in METRICS:
            raise SriError(f"unknown metric {name}{did_you_mean(name, METRICS)}", known)
    if not names:
        raise SriError("no metric named", known)
    return names


def evaluate(
    loaded: LoadedModel,
    data: DataFile,
    metrics: Sequence[str] = METRICS,
    split: str = "test",
    num: int = DEFAULT_NUM,
    seed: int = 0,
    precision: str = "auto",
    advance: Advance = lambda done: None,
) -> dict[str, Any]:
    """Measure `num` images from all over a split (all of it when it has fewer).

    Raises SriError for a data file that does not fit the model or lacks the masks asked for.
    """
    if num < 1:
        raise SriError(f"--num {num}: the number of images must be at least 1", "--num 320")
    part = fitting_split(loaded, data, metrics, split)
    chosen = part.pick(num)
    record: dict[str, Any] = {
        "run": str(loaded.run_dir),
        "step": loaded.step,
        "data": data.caption,
        "split": split,
        "images": len(chosen),
        "seed": seed,
    }
    task = Task(loaded, part, chosen, seed, precision, advance)
    if {"ari", "msc"} & set(metrics):
        record |= segmentation_scores(task, data.background_labels, metrics)
    if "elbo" in metrics:
        record |= bound_scores(task)
    if "order" in metrics:
        record["order"] = order_scores(loaded, _order_scenes(num), seed, precision, advance)
    return record


def planned(metrics: Sequence[str], num: int) -> int:
    """How many images `evaluate` will report to `advance`, at most."""
    passes = bool({"ari", "msc"} & set(metrics)) + ("elbo" in metrics)
    return passes * num + ("order" in metrics) * _order_scenes(num)


class Task:
    """The chosen images of a split with their noise, fed to a model chunk by chunk."""

    def __init__(
        self,
        loaded: LoadedModel,
        part: Split,
        chosen: NDArray[np.intp],
        seed: int,
        precision: str,
        advance: Advance,
    ) -> None:
        self.loaded, self.model, self.part, self.chosen = loaded, loaded.model, part, chosen
        self.seed, self.precision, self.advance = seed, precision, advance
        self.device = device_of(self.model)

    def run(self, compute: Callable[[Tensor, dict[str, Tensor]], Any]) -> list[Any]:
        """compute(images [B,3,H,W] in [0,1], noise) for each chunk, in order."""

        def chunk(start: int, count: int) -> tuple[int, Any]:
            places = self.chosen[start : start + count]
            images = to_tensor(self.part.images[places], self.device)
            noise = evaluation_noise(self.model, self.seed, places, self.device)
            return count, compute(images, noise)

        size = chunk_size(self.model.num_slots, self.model.image_size, self.device)
        results = []
        chunks = in_chunks(chunk, len(self.chosen), size, self.device, self.precision)
        for count, result in chunks:
            results.append(result)
            self.advance(count)
        return results


def segmentation_scores(
    task: Task, background_labels: int, metrics: Sequence[str]
) -> dict[str, Any]:
    """ARI-FG and mSC-FG of decoded and attention masks; images without foreground are counted."""
    found = task.run(lambda images, noise: _segments(task.model.reconstruct(images, noise)))
    assert task.part.masks is not None  # fitting_split saw to it
    true = task.part.masks[task.chosen].astype(np.int64)
    scores: dict[str, Any] = {}
    for i, suffix in enumerate(("", "_attention")):
        predicted = np.concatenate([pair[i] for pair in found]).astype(np.int64)
        ari = ari_fg(true, predicted, background_labels)
        scores["without_foreground"] = int(np.isnan(ari).sum())
        if "ari" in metrics:
            scores[f"ari_fg{suffix}"] = _mean(ari)
        if "msc" in metrics:
            covering = msc_fg(true, predicted, background_labels)
            scores[f"msc_fg{suffix}"] = _mean(covering.mean)
            scores[f"msc_fg_scaled{suffix}"] = _mean(covering.scaled)
    return scores


def bound_scores(task: Task) -> dict[str, Any]:
    """-ELBO in nats and bits per dimension, and each loss term on its own (mean over images)."""

    def compute(images: Tensor, noise: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = task.model.losses(images, noise)
        return {"elbo": negative_elbo(losses), **losses.terms}

    chunks = task.run(compute)
    means = {
        name: float(torch.cat([chunk[name].double() for chunk in chunks]).mean())
        for name in chunks[0]
    }
    nats = means.pop("elbo")
    section = task.loaded.recipe.model
    bits = bits_per_dimension(nats, section.image_size, section.normalised)
    return {"negative_elbo": nats, "bits_per_dimension": bits, "terms": means}


def order_scores(
    loaded: LoadedModel, num: int, seed: int, precision: str, advance: Advance
) -> dict[str, Any]:
    """Order consistency of new scenes at temperature 1 with the training number of slots."""
    masks = []
    slots = loaded.model.num_slots
    for scene in sample_scenes(loaded.model, num, slots, seed=seed, precision=precision):
        masks.append(scene.masks[:, :, 0].float().cpu().numpy())
        advance(len(masks[-1]))
    return order.report(np.concatenate(masks), seed)


def append_record(run_dir: Path, record: dict[str, Any]) -> Path:
    """Add a line to the run's metrics.jsonl; SriFailure when the disk will not take it."""
    path = run_dir / RECORDS
    try:
        with open(path, "ab") as file:
            file.write((json.dumps(record) + "\n").encode())
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def evaluation_noise(
    model: Any, seed: int, places: NDArray[np.intp], device: torch.device
) -> dict[str, Tensor]:
    """The noise of the images at `places` of a split."""
    noise = indexed_noise(model.training_noise(), seed, places.tolist(), "evaluate")
    return {name: value.to(device) for name, value in noise.items()}


def to_tensor(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [B,H,W,3] -> float32 [B,3,H,W] in [0,1], channels_last."""
    tensor = torch.from_numpy(np.array(images)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div_(255)


def _segments(seen: Reconstruction) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The strongest slot of each pixel, by decoded and by attention masks; each [B,H,W]."""
    decoded = labels_of(seen.scene.masks[:, :, 0].float().cpu().numpy())
    attention = labels_of(seen.attention[:, :, 0].float().cpu().numpy())
    return decoded.astype(np.uint8), attention.astype(np.uint8)


def fitting_split(loaded: LoadedModel, data: DataFile, metrics: Sequence[str], split: str) -> Split:
    """The split, if its images fit the model and it has the masks that the metrics need."""
    data.check_size(loaded.recipe.model.image_size)
    part = data.split(split)
    if not part.has_masks and {"ari", "msc"} & set(metrics):
        raise SriError(f"{data.name} holds no masks to compare with", "--metrics elbo,order")
    return part


def _order_scenes(num: int) -> int:
    return min(max(num, order.MIN_SCENES), MAX_ORDER_SCENES)


def _mean(scores: NDArray[np.float64]) -> float | None:
    """Over the images that have a score; None when none has."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else None
