"""Count the errors of the two shipped networks on new simulated images.

    python -m sri_cli.metrics.stack_classifiers.check [--num N]

Prints one JSON object: the accuracy of `factors`, and for each look and resolution the error rates
of `touching` with the share of each flaw that it finds. tests/metrics/test_stack_classifiers.py
checks that stack-FD grows with damage to images.

Axis legend: N images.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from sri_cli.console import counting
from sri_cli.cores import available_cores
from sri_cli.data.simulate.flaws import FLAWS
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.stack_classifiers.classifiers import (
    COARSE,
    SHIPPED,
    SIDE,
    Rates,
    StackNet,
    kind_of,
    open_shipped,
)
from sri_cli.metrics.stack_classifiers.training_images import (
    IGNORED,
    LabelledImages,
    batch_of,
    coarse,
    factor_images,
    touching_images,
)
from sri_cli.strict_json import to_json

SEED = 2_000_000  # of images that no shipped number was counted on
BATCH = 256


@click.command()
@click.option("--num", type=click.IntRange(min=16), default=8000, help="Images of each network.")
@click.option("--workers", type=click.IntRange(min=1), default=available_cores)
def main(num: int, workers: int) -> None:
    """Count the errors of the shipped networks on new simulated images."""
    with counting("simulating", 2 * num) as advance:
        towers = factor_images(num, SEED, workers, advance)
        stacks = touching_images(num, SEED, workers, advance)
    accuracy = factor_accuracy(open_shipped("factors"), towers)
    rates = error_rates(open_shipped("touching"), stacks, SEED)
    click.echo(to_json({"weights": SHIPPED, "images": num, "accuracy": accuracy, **rates}))


def factor_accuracy(network: StackNet, towers: LabelledImages) -> dict[str, float]:
    """Share of right answers of each output; positions without a block do not count."""
    answers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in towers.targets}
    with torch.inference_mode():
        for start in range(0, len(towers.images), BATCH):
            outputs = network(to_tensor(towers.images[start : start + BATCH]))
            for name, logits in outputs.items():
                flat = logits.reshape(len(logits), *towers.targets[name].shape[1:], -1)
                answers[name].append(flat.argmax(-1).numpy())
    blocks = np.arange(6) <= towers.targets["height"][:, None]
    accuracy = {}
    for name, parts in answers.items():
        right = np.concatenate(parts) == towers.targets[name]
        counted = blocks if right.ndim == 2 else towers.targets[name] != IGNORED
        accuracy[name] = float(right[counted].mean())
    return accuracy


def error_rates(network: StackNet, stacks: LabelledImages, seed: int) -> dict[str, Any]:
    """Of `touching`, by look and resolution (`kind_of`); the first half is of the original look.

    `rates` are the counts that an estimate is corrected by, `found` the share of the images of each
    flaw that were called flawed.
    """
    half = len(stacks.images) // 2
    rates, found = {}, {}
    for demo, part in enumerate((slice(None, half), slice(half, None))):
        targets = {name: values[part] for name, values in stacks.targets.items()}
        own = LabelledImages(stacks.images[part], stacks.masks[part], targets)
        for side in (SIDE, COARSE):
            plausible, flaw = _verdicts(network, own, seed, small=side == COARSE)
            right, wrong = plausible[flaw == 0], plausible[flaw != 0]
            counts = Rates(int(right.sum()), len(right), int(wrong.sum()), len(wrong))
            kind = kind_of(bool(demo), side)
            rates[kind] = counts._asdict()
            found[kind] = {
                name: float(1 - plausible[flaw == i].mean())
                for i, name in enumerate((*FLAWS, "mush"), start=1)
                if (flaw == i).any()
            }
    return {"rates": rates, "found": found}


def _verdicts(
    network: StackNet, stacks: LabelledImages, seed: int, small: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The network's verdict and the true flaw (0: none) of images drawn over as in training."""
    plausible, flaws = [], []
    for start in range(0, len(stacks.images), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(stacks.images)))
        random = torch.Generator().manual_seed(seed * 1_000_003 + start)
        images, targets = batch_of("touching", stacks, chosen, random)
        with torch.inference_mode():
            logits = network(coarse(images, COARSE) if small else images)["plausible"]
        plausible.append(logits.argmax(1).bool().numpy())
        flaws.append(targets["flaw"].numpy())
    return np.concatenate(plausible), np.concatenate(flaws)


if __name__ == "__main__":
    main()
