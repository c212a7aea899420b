"""What a run in training can do: samples, their order, and validation terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sri_cli.data.dataset import DataFile
from sri_cli.generation.sample import as_arrays, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.model_metrics import SplitTask, bits_per_dimension, bound_terms
from sri_cli.metrics.records import mean_estimate
from sri_cli.metrics.segmentation import ari_fg, labels_of

SCENES, ORDERED = 18, 6  # drawn, and shown with their slots
VALIDATION_IMAGES = 64
SEED = 0  # the same noise and images at every step: what changes is the model


def draw_preview(run: TrainedRun, data: DataFile) -> tuple[dict[str, bytes], dict[str, float]]:
    """PNG files by name (samples, order), and the terms of `validation_terms`.

    Raises:
        SriFailure: for scenes or terms that are not finite.
    """
    # A training starts without matplotlib, and begins with its first preview.
    from sri_cli.plotting.blocks import grid_panel, order_panel
    from sri_cli.plotting.figures import draw, figure_bytes

    scenes = as_arrays(sample_scenes(run.model, SCENES, run.model.num_slots, seed=SEED))
    panels = {"samples": grid_panel(scenes.images), "order": order_panel(scenes, most=ORDERED)}
    files = {
        name: figure_bytes(draw([[panel]], run.title, scale=1)) for name, panel in panels.items()
    }
    return files, validation_terms(run, data)


def validation_terms(run: TrainedRun, data: DataFile) -> dict[str, float]:
    """Means over the first draw of validation images, as `sri eval` measures them.

    "val/nll", "val/kl_slot" and so on are the model's loss terms in nats, with "val/negative_elbo"
    the sum of those in its bound; where there are true masks, "val/ari_fg" is of the decoded ones.
    Without a validation split: nothing.
    """
    if "val" not in data.splits:
        return {}
    task = SplitTask(run, data, "val", VALIDATION_IMAGES, SEED)
    true = task.split.masks_of(task.chosen)
    labels = task.background_labels, task.void_label

    def compute(images: Tensor, noise: dict[str, Tensor], indices: Any) -> dict[str, Tensor]:
        scores = bound_terms(run.model.losses(images, noise))
        scores["negative_elbo"] = scores.pop("")
        if true is not None:
            shown = run.model.reconstruct(images, noise).scene.masks[:, :, 0]
            own = torch.from_numpy(true[task.chosen.searchsorted(indices)]).to(task.device)
            scores["ari_fg"] = ari_fg(own, labels_of(shown), *labels)
        return scores

    means = {name: mean_estimate(values).value for name, values in task.run(compute).items()}
    size, normalised = run.model.image_size, run.recipe.model.normalised
    terms = {f"val/{name}": mean for name, mean in means.items() if mean is not None}
    terms["val/nll_per_element"] = terms["val/nll"] / (3 * size**2)
    terms["val/bits_per_dimension"] = bits_per_dimension(
        terms["val/negative_elbo"], size, normalised
    )
    return terms
