"""Metrics that need the model: segmentation, -ELBO and order consistency.

Axis legend: N images of the split, B images of a chunk, K slots, H W pixels. The noise of an image
depends on (seed, its index in the split): but for rounding neither chunks nor devices change a
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import (
    as_arrays,
    check_finite,
    chunk_size,
    device_of,
    evaluation_noise,
    in_chunks,
    is_finite,
    sample_scenes,
    to_tensor,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import order
from sri_cli.metrics.features import Advance
from sri_cli.metrics.records import Context, Estimate, Measurement, mean_estimate
from sri_cli.metrics.sacc import wilson
from sri_cli.metrics.segmentation import (
    MIN_SHARE,
    ari_fg,
    count_objects,
    count_slots,
    labels_of,
    mean_iou,
    msc_fg,
)
from sri_cli.models.base import Losses
from sri_cli.models.distributions import HALF_LOG_2PI
from sri_cli.models.matching import MATCHINGS
from sri_cli.rng import NoiseSpec, indexed_noise

# Key of a measurement -> name.
SEGMENTATION = {
    "ari_fg": "ARI-FG",
    "msc_fg": "mSC-FG",
    "msc_fg_scaled": "mSC-FG scaled",
    "mbo": "mBO",
    "miou": "mIoU",
    "slots_used": "slots used",
    "slots_exact": "slot count exact",
    "slots_difference": "slot count off by",
}
USED = f"used: strongest in {MIN_SHARE:.1%} of the pixels or more"
# Key of a measurement -> key in `order.report`, name.
ORDER = {
    "order_iou": ("iou_over_chance", "order IoU"),
    "order_information": ("mutual_information", "order MI"),
}


class SplitTask:
    """The chosen images of a split with their noise, fed to a model chunk by chunk.

    `slots` is K, None for dynamic slots, which `how` says in words.
    """

    def __init__(
        self,
        trained: TrainedRun,
        data: DataFile,
        split: str,
        num: int,
        seed: int,
        advance: Advance = lambda done: None,
        precision: str = "auto",
    ) -> None:
        self.trained, self.model, self.device = trained, trained.model, device_of(trained.model)
        self.split = data.split(split)
        self.background_labels, self.void_label = data.background_labels, data.void_label
        self.chosen = self.split.pick(num)
        self.seed, self.precision, self.advance = seed, precision, advance
        dynamic = self.model.dynamic_slots
        self.slots = None if dynamic else self.model.num_slots
        self.how = "; dynamic slots" * dynamic  # of a measurement's protocol

    def run(
        self, compute: Callable[[Tensor, dict[str, Tensor], NDArray[np.intp]], dict[Any, Tensor]]
    ) -> dict[Any, NDArray[np.float64]]:
        """Values [N] by name, from compute(images [B,3,H,W] in [0,1], noise, indices) [B].

        `finite` [B] is one of them: SriFailure unless it is true for all images.
        """

        def chunk(start: int, count: int) -> dict[Any, Tensor]:
            indices = self.chosen[start : start + count]
            images = to_tensor(self.split.images[indices], self.device)
            noise = evaluation_noise(self.model, self.seed, indices, self.device)
            return compute(images, noise, indices)

        size = chunk_size(self.model.num_slots, self.model.image_size, self.device)
        chunks = []
        for values in in_chunks(chunk, len(self.chosen), size, self.device, self.precision):
            chunks.append({name: value.double().cpu().numpy() for name, value in values.items()})
            self.advance(len(next(iter(chunks[-1].values()))))
        joined = {name: np.concatenate([part[name] for part in chunks]) for name in chunks[0]}
        check_finite(torch.from_numpy(joined.pop("finite")).bool(), "images")
        return joined


def segmentation_scores(
    task: SplitTask, context: Context, metrics: Sequence[str]
) -> list[Measurement]:
    """The metrics that need masks, of decoded and attention masks.

    Images without foreground are left out and counted; counts of slots are of all images. ARI-FG
    is 1 or 0 on an image of one object; the papers' mean includes these, so where there are some,
    the mean over the others stands beside it.
    """
    true_masks, labels = task.split.masks, (task.background_labels, task.void_label)
    assert true_masks is not None  # see `check_run`
    # A file prepared anew from the same images may have other labels, and has the same hash.
    data = (context.data or {}) | {"labels": task.split.labels_digest}
    context = replace(context, data=data)

    def compute(
        images: Tensor, noise: dict[str, Tensor], indices: NDArray[np.intp]
    ) -> dict[str, Tensor]:
        result = task.model.reconstruct(images, noise)
        true = torch.from_numpy(true_masks[indices]).to(task.device)
        scores = {"": count_objects(true, *labels), "finite": is_finite(result.scene.image)}
        for suffix, masks in (("", result.scene.masks), ("_attention", result.attention)):
            predicted = labels_of(masks[:, :, 0])
            if "ari" in metrics:
                scores[f"ari_fg{suffix}"] = ari_fg(true, predicted, *labels)
            if "msc" in metrics:
                covering = msc_fg(true, predicted, *labels)
                scores[f"msc_fg{suffix}"] = covering.mean
                scores[f"msc_fg_scaled{suffix}"] = covering.scaled
            if "mbo" in metrics:
                scores[f"mbo{suffix}"] = msc_fg(true, predicted, *labels).mean
            if "miou" in metrics:
                scores[f"miou{suffix}"] = mean_iou(true, predicted, *labels)
            if "slots" in metrics:
                used, needed = count_slots(predicted, true, task.void_label), scores[""] + 1
                scores[f"slots_used{suffix}"] = used
                scores[f"slots_exact{suffix}"] = used == needed
                scores[f"slots_difference{suffix}"] = (used - needed).abs()
        return scores

    values = task.run(compute)
    objects = values.pop("")
    counts = {
        "images": len(objects),
        "without_foreground": int((objects == 0).sum()),
        "one_object": int((objects == 1).sum()),
    }
    several = {"images": int((objects > 1).sum()), "without_foreground": 0, "one_object": 0}
    how = task.how + ("" if task.void_label is None else f"; void label {task.void_label} left out")
    records = []
    for key, scores in values.items():
        metric, attention, _ = key.partition("_attention")
        protocol = f"strongest {'attention' if attention else 'decoded'} mask{how}"
        of_slots = metric.startswith("slots")
        protocol += f"; {USED}" * of_slots
        if metric in ("slots_exact", "slots_difference"):
            protocol += "; needed: one for each object and one for the background"
        measured = partial(context.measurement, protocol=protocol, slots=task.slots)
        name = SEGMENTATION[metric] + " attention" * bool(attention)
        value = share_estimate(scores) if metric == "slots_exact" else mean_estimate(scores)
        own = {"images": len(objects)} if of_slots else counts
        records.append(measured(key, name, value, counts=own))
        if metric == "slots_exact":
            used = values[f"slots_used{attention}"]
            records[-1]["confusion"] = confusion(objects, used, task.model.num_slots)
        if metric == "ari_fg" and counts["one_object"]:
            value = mean_estimate(scores[objects > 1])
            records.append(measured(f"{key}_several", f"{name}, 2+ objects", value, counts=several))
    return records


def share_estimate(yes: NDArray[np.float64]) -> Estimate:
    """The share of images with a 1, and its Wilson interval."""
    low, high = wilson(yes.sum(), len(yes)) or (None, None)
    return Estimate(float(yes.mean()), low, high, "95 % Wilson")


def confusion(
    objects: NDArray[np.float64], slots: NDArray[np.float64], most: int
) -> list[list[int]]:
    """Numbers of images by their true objects (rows, from 0) and used slots (0 to `most`)."""
    table = np.zeros((int(objects.max()) + 1, most + 1), int)
    np.add.at(table, (objects.astype(int), slots.astype(int)), 1)
    return table.tolist()


def bound_scores(task: SplitTask, context: Context) -> list[Measurement]:
    """-ELBO in nats and bits per dimension, and each loss term on its own (mean over images)."""
    bound: list[str] = []

    def compute(images: Tensor, noise: dict[str, Tensor], _: Any) -> dict[str, Tensor]:
        losses = task.model.losses(images, noise)
        bound[:] = losses.bound
        return bound_terms(losses)

    values = {name: mean_estimate(nats) for name, nats in task.run(compute).items()}
    total = values.pop("")
    model, normalised = task.model, task.trained.recipe.model.normalised
    counts = {"images": len(task.chosen)}
    measured = partial(context.measurement, counts=counts, slots=task.slots)
    how = f"one posterior sample an image, every weight 1{task.how}"
    constant = "" if normalised else "; the likelihood as it was trained, without its constant"
    low, bits, high = (
        None if nats is None else bits_per_dimension(nats, model.image_size, normalised)
        for nats in (total.low, total.value, total.high)
    )
    records = [
        measured("negative_elbo", "-ELBO, nats", total, protocol=how + constant),
        measured(
            "bits_per_dimension",
            "bits/dim",
            Estimate(bits, low, high, total.how),
            protocol=f"{how}; normalised likelihood",
        ),
    ]
    for name, nats in values.items():
        part = f"{how}; {'a' if name in bound else 'no'} part of the bound"
        records.append(measured(f"term_{name}", name.replace("_", " "), nats, protocol=part))
    return records


def bound_terms(losses: Losses) -> dict[str, Tensor]:
    """-ELBO ("") and the loss terms [B], in nats, and whether all of them are `finite`."""
    nats = {"": negative_elbo(losses), **losses.terms}
    return nats | {"finite": torch.stack([*nats.values()]).isfinite().all(dim=0)}


def negative_elbo(losses: Losses) -> Tensor:
    """-ELBO per image [B], in nats: the sum of the terms of the model's bound, each of weight 1.

    SRI: NLL + scene KL + slot KL; the segregation stage and the cross-order KL are no part.
    """
    return sum((losses.terms[name] for name in losses.bound[1:]), losses.terms[losses.bound[0]])


# How much the bound depends on the order o in which SRI's slots are matched to the rollout of the
# prior (section 3.3). Per image, with the terms of `SRI.losses` and the noise of `elbo`:
#
#   gap(o) = -ELBO(o) - -ELBO(o*),   -ELBO(o) = -log p(x | z) + KL(q(s | x) || p(s))
#            + sum_k KL(q(z_k | m_o(<k), s) || p(z_k | z_<k, s)),   z_k = m_o(k) + sigma_k eps_k
#
# o* is the model's own matching; the slots m, their sample, the scene variable s, the rollout and
# eps are the same for all orders. The scene KL does not depend on the order.
def matching_gaps(task: SplitTask) -> dict[tuple[str, str], NDArray[np.float64]]:
    """By (`kl_slot`, `elbo` or `same`, order): gaps in nats [N], and whether the order is o*.

    The orders are those of MATCHINGS and `random`, a random permutation; one of them is o*.
    """
    model, own = task.model, task.trained.recipe.model.order

    def compute(
        images: Tensor, noise: dict[str, Tensor], indices: NDArray[np.intp]
    ) -> dict[Any, Tensor]:
        spec = {"matching": NoiseSpec((model.num_slots,), "uniform")}
        uniform = indexed_noise(spec, task.seed, indices.tolist(), "evaluate")["matching"]

        def random_order(prior: Tensor, slots: Tensor, empty: Tensor | None) -> Tensor:
            late = 0 if empty is None else empty.float()
            return (uniform.to(slots.device) + late).argsort(dim=1)

        matchings = {**MATCHINGS, "random": random_order}
        results = model.losses_matched_by(matchings.values(), images, noise)
        matched = dict(zip(matchings, results, strict=True))
        own_order, own_losses = matched[own]
        values: dict[Any, Tensor] = {}
        for name, (found, losses) in matched.items():
            values["kl_slot", name] = losses.terms["kl_slot"] - own_losses.terms["kl_slot"]
            values["elbo", name] = negative_elbo(losses) - negative_elbo(own_losses)
            values["same", name] = (found == own_order).all(dim=1)
        bounds = torch.stack([negative_elbo(losses) for _, losses in results])
        return values | {"finite": bounds.isfinite().all(dim=0)}

    return task.run(compute)


def matching_scores(task: SplitTask, context: Context) -> list[Measurement]:
    """What the other orders cost: mean gaps, and the share of images whose order is the same."""
    own = task.trained.recipe.model.order
    more = f"nats more than with {own}; one posterior sample an image, the same noise"
    kinds = {
        "kl_slot": ("slot KL", more),
        "elbo": ("-ELBO", more),
        "same": ("same order", f"share of images with the order of {own}"),
    }
    return [
        context.measurement(
            f"matching_{key}_{other}",
            f"{kinds[key][0]} {other}",
            share_estimate(values) if key == "same" else mean_estimate(values),
            counts={"images": len(values)},
            protocol=kinds[key][1] + task.how,
            slots=task.slots,
        )
        for (key, other), values in matching_gaps(task).items()
        if other != own
    ]


def bits_per_dimension(nats: float, image_size: int, normalised: bool) -> float:
    """-ELBO in bits per pixel and channel, as the papers count: with the normalised likelihood.

    A likelihood trained without its constant gets the missing 0.5 log 2 pi back.
    """
    per_dimension = nats / (3 * image_size**2)
    return (per_dimension + (0.0 if normalised else HALF_LOG_2PI)) / math.log(2)


def order_scores(
    trained: TrainedRun, context: Context, num: int, advance: Advance = lambda done: None
) -> list[Measurement]:
    """Order consistency of new scenes at temperature 1 with the number of slots of training."""
    slots = trained.model.num_slots
    scenes = as_arrays(sample_scenes(trained.model, num, slots, seed=context.seed), advance)
    report = order.report(scenes.masks, context.seed)
    return [
        context.measurement(
            key + suffix,
            name + " shuffled" * bool(suffix),
            Estimate(**report[which][long], how="95 % jackknife over scenes"),
            counts={"scenes": num},
            protocol="decoded masks of new scenes" + ", slots in random order" * bool(suffix),
            slots=slots,
            temperature=1.0,
        )
        for which, suffix in (("model", ""), ("shuffled", "_shuffled"))
        for key, (long, name) in ORDER.items()
    ]
