"""A trained model and a split of data in, measurements out.

Axis legend: N images of the split, B images of a chunk, K slots, H W pixels. The noise of an
image belongs to (seed, its place in the split): neither chunks nor devices change a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.dataset import DataFile, Split
from sri_cli.errors import SriError, did_you_mean
from sri_cli.generation.sample import (
    chunk_size,
    device_of,
    evaluation_noise,
    in_chunks,
    sample_scenes,
    to_tensor,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import order
from sri_cli.metrics.elbo import bits_per_dimension, negative_elbo
from sri_cli.metrics.records import (
    Context,
    Estimate,
    Measurement,
    data_facts,
    mean_estimate,
    run_subject,
)
from sri_cli.metrics.segmentation import ari_fg, labels_of, msc_fg
from sri_cli.metrics.table import NO_PART, PART

METRICS = ("ari", "msc", "elbo", "order")
OF_PICTURES = ("stack-fd", "sacc-estimate", "fid")  # of generated pictures alone; fid takes longest
ALL = (*METRICS, *OF_PICTURES)
DEFAULT_NUM = 320
MAX_ORDER_SCENES = 256  # every pair of them is compared
SEGMENTATION = {
    f"{key}{suffix}": f"{name}{word}"
    for suffix, word in (("", ""), ("_attention", " attention"))
    for key, name in (
        ("ari_fg", "ARI-FG"),
        ("msc_fg", "mSC-FG"),
        ("msc_fg_scaled", "mSC-FG scaled"),
    )
}
# Key of a measurement -> key in `order.report`, name.
ORDER = {
    "order_iou": ("iou_over_chance", "order IoU"),
    "order_information": ("mutual_information", "order MI"),
}

Places = NDArray[np.intp]
Advance = Callable[[int], None]  # told how many more images are done


def parse_metrics(text: str) -> tuple[str, ...]:
    """'ari,elbo' -> names; SriError for unknown ones."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    known = f"--metrics {','.join(ALL)}"
    for name in names:
        if name not in ALL:
            raise SriError(f"unknown metric {name}{did_you_mean(name, ALL)}", known)
    if not names:
        raise SriError("no metric named", known)
    return names


def evaluate(
    loaded: TrainedRun,
    data: DataFile,
    metrics: Sequence[str] = METRICS,
    split: str = "test",
    num: int = DEFAULT_NUM,
    seed: int = 0,
    precision: str = "auto",
    advance: Advance = lambda done: None,
) -> Iterator[list[Measurement]]:
    """Measure `num` images from all over a split (all of it when it has fewer), part by part.

    `metrics` are names of METRICS. What comes is finished and may be kept. Raises SriError for a
    data file that does not fit the model or lacks the masks asked for.
    """
    if num < 1:
        raise SriError(f"--num {num}: the number of images must be at least 1", "--num 320")
    part = fitting_split(loaded, data, metrics, split)
    context = Context(run_subject(loaded), data_facts(data, split), seed)
    task = Task(loaded, part, part.pick(num), seed, precision, advance)
    if {"ari", "msc"} & set(metrics):
        yield segmentation_scores(task, context, data.background_labels, metrics)
    if "elbo" in metrics:
        yield bound_scores(task, context)
    if "order" in metrics:
        yield order_scores(loaded, context, _order_scenes(num), precision, advance)


def planned(metrics: Sequence[str], num: int, size: int) -> int:
    """How many images `evaluate` will report to `advance`, of a split of `size` images."""
    passes = bool({"ari", "msc"} & set(metrics)) + ("elbo" in metrics)
    return passes * min(num, size) + ("order" in metrics) * _order_scenes(num)


class Task:
    """The chosen images of a split with their noise, fed to a model chunk by chunk."""

    def __init__(
        self,
        loaded: TrainedRun,
        part: Split,
        chosen: NDArray[np.intp],
        seed: int,
        precision: str,
        advance: Advance,
    ) -> None:
        self.loaded, self.model, self.part, self.chosen = loaded, loaded.model, part, chosen
        self.seed, self.precision, self.advance = seed, precision, advance
        self.device = device_of(self.model)

    def run(self, compute: Callable[[Tensor, dict[str, Tensor], Places], Any]) -> list[Any]:
        """compute(images [B,3,H,W] in [0,1], noise, their places) for each chunk, in order."""

        def chunk(start: int, count: int) -> tuple[int, Any]:
            places = self.chosen[start : start + count]
            images = to_tensor(self.part.images[places], self.device)
            noise = evaluation_noise(self.model, self.seed, places, self.device)
            return count, compute(images, noise, places)

        size = chunk_size(self.model.num_slots, self.model.image_size, self.device)
        results = []
        chunks = in_chunks(chunk, len(self.chosen), size, self.device, self.precision)
        for count, result in chunks:
            results.append(result)
            self.advance(count)
        return results


def segmentation_scores(
    task: Task, context: Context, background_labels: int, metrics: Sequence[str]
) -> list[Measurement]:
    """ARI-FG and mSC-FG of decoded and attention masks; images without foreground are counted."""

    true_masks = task.part.masks
    assert true_masks is not None  # fitting_split saw to it

    def compute(images: Tensor, noise: dict[str, Tensor], places: Places) -> dict[str, Tensor]:
        seen = task.model.reconstruct(images, noise)
        true = torch.from_numpy(true_masks[places]).to(task.device)
        return {
            key + suffix: score
            for suffix, masks in (("", seen.scene.masks), ("_attention", seen.attention))
            for key, score in _scores(true, masks, background_labels, metrics).items()
        }

    chunks = task.run(compute)
    found = []
    for key in chunks[0]:
        score = torch.cat([chunk[key] for chunk in chunks]).cpu().numpy()
        empty = int(np.isnan(score).sum())
        found.append(
            context.measurement(
                key,
                SEGMENTATION[key],
                mean_estimate(score),
                counts={"images": len(score), "without_foreground": empty},
                protocol=f"strongest {'attention' if 'attention' in key else 'decoded'} mask"
                + "; dynamic slots" * task.model.dynamic_slots,
                slots=task.model.num_slots,
            )
        )
    return found


def _scores(
    true: Tensor, masks: Tensor, background_labels: int, metrics: Sequence[str]
) -> dict[str, Tensor]:
    """Of one chunk [B] each; masks [B,K,1,H,W]."""
    predicted = labels_of(masks[:, :, 0])
    found = {}
    if "ari" in metrics:
        found["ari_fg"] = ari_fg(true, predicted, background_labels)
    if "msc" in metrics:
        covering = msc_fg(true, predicted, background_labels)
        found |= {"msc_fg": covering.mean, "msc_fg_scaled": covering.scaled}
    return found


def bound_scores(task: Task, context: Context) -> list[Measurement]:
    """-ELBO in nats and bits per dimension, and each loss term on its own (mean over images)."""
    bound: list[str] = []

    def compute(images: Tensor, noise: dict[str, Tensor], _: Places) -> dict[str, Tensor]:
        losses = task.model.losses(images, noise)
        bound[:] = losses.bound
        return {"": negative_elbo(losses), **losses.terms}

    chunks = task.run(compute)
    section = task.loaded.recipe.model
    measured = partial(
        context.measurement,
        counts={"images": len(task.chosen)},
        slots=task.model.num_slots,
    )
    how = (
        "one posterior sample an image, every weight 1"
        + "; dynamic slots" * task.model.dynamic_slots
    )
    found = []
    for name in chunks[0]:
        nats = mean_estimate(torch.cat([chunk[name].double() for chunk in chunks]).cpu().numpy())
        if name:
            protocol = f"{how}; {PART if name in bound else NO_PART}"
            key, word = f"term_{name}", name.replace("_", " ")
        else:
            protocol, key, word = how, "negative_elbo", "-ELBO, nats"
            if not section.normalised:
                protocol += "; the likelihood as it was trained, without its constant"
        found.append(measured(key, word, nats, protocol=protocol))
        if not name:
            bits = in_bits(nats, section.image_size, section.normalised)
            protocol = f"{how}; normalised likelihood"
            found.append(measured("bits_per_dimension", "bits/dim", bits, protocol=protocol))
    return found


def in_bits(nats: Estimate, image_size: int, normalised: bool) -> Estimate:
    """-ELBO per image in bits per dimension."""
    value, low, high = (
        None if end is None else bits_per_dimension(end, image_size, normalised)
        for end in (nats.value, nats.low, nats.high)
    )
    return Estimate(value, low, high, nats.how)


def order_scores(
    loaded: TrainedRun, context: Context, num: int, precision: str, advance: Advance
) -> list[Measurement]:
    """Order consistency of new scenes at temperature 1 with the training number of slots."""
    masks = []
    slots = loaded.model.num_slots
    for scene in sample_scenes(loaded.model, num, slots, seed=context.seed, precision=precision):
        masks.append(scene.masks[:, :, 0].float().cpu().numpy())
        advance(len(masks[-1]))
    report = order.report(np.concatenate(masks), context.seed)
    return [
        context.measurement(
            key + suffix,
            name + " shuffled" * bool(suffix),
            Estimate(**report[which][long], how="95 % bootstrap over scenes"),
            counts={"scenes": num},
            protocol="decoded masks of new scenes" + ", slots in random order" * bool(suffix),
            slots=slots,
            temperature=1.0,
        )
        for which, suffix in (("model", ""), ("shuffled", "_shuffled"))
        for key, (long, name) in ORDER.items()
    ]


def fitting_split(loaded: TrainedRun, data: DataFile, metrics: Sequence[str], split: str) -> Split:
    """The split, if its images fit the model and it has the masks that the metrics need."""
    data.check_size(loaded.recipe.model.image_size)
    part = data.split(split)
    if not part.has_masks and {"ari", "msc"} & set(metrics):
        raise SriError(f"{data.name} holds no masks to compare with", "--metrics elbo,order")
    return part


def _order_scenes(num: int) -> int:
    return min(max(num, order.MIN_SCENES), MAX_ORDER_SCENES)
