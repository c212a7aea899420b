"""Train one of the two networks on simulated images, and count its errors on new ones.

    python -m sri_cli.metrics.stack_classifiers.train factors|touching [--out DIR] ...

A step depends on (seed, step) alone. The last weights count; none are selected.

Axis legend: N images, B images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.console import Progress, counting
from sri_cli.cores import available_cores
from sri_cli.data.simulate.flaws import FLAWS
from sri_cli.device import choose_precision, keep_freed_memory
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics.stack_classifiers.classifiers import (
    COARSE,
    HEADS,
    SIDE,
    Rates,
    StackNet,
    kind_of,
    to_bytes,
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

HELD_OUT_SEED = 1_000_000  # added to the seed for the images that errors are counted on
BATCH, LR, WEIGHT_DECAY = 128, 2e-3, 1e-2
COUNTED = 256  # images at once that errors are counted on; their noise depends on it

COUNT = click.IntRange(min=16)


@click.command()
@click.argument("which", type=click.Choice(list(HEADS)))
@click.option("--out", default="stack_classifiers", metavar="DIR", help="Folder of the two files.")
@click.option("--images", type=COUNT, default=48_000, help="Simulated images to train on.")
@click.option("--held-out", type=COUNT, default=8000, help="New images to count errors on.")
@click.option("--steps", type=click.IntRange(min=1), default=6000)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--workers", type=click.IntRange(min=1), default=available_cores)
def main(
    which: str, out: str, images: int, held_out: int, steps: int, seed: int, workers: int
) -> None:
    """Write OUT/WHICH.safetensors, and OUT/WHICH.json with the command and the errors."""
    simulate = factor_images if which == "factors" else touching_images
    with counting("simulating", images + held_out) as advance:
        train_set = simulate(images, seed, workers, advance)
        test_set = simulate(held_out, seed + HELD_OUT_SEED, workers, advance)
    with Progress(steps, 0, which) as progress:

        def report(step: int, loss: float) -> None:
            progress.advance(step)
            progress.show(f"loss {loss:.4f}")

        network = train_network(which, train_set, steps, seed, report=report)
    facts: dict[str, Any] = {
        "command": f"python -m sri_cli.metrics.stack_classifiers.train {which} --images {images}"
        f" --held-out {held_out} --steps {steps} --seed {seed}",
        "sri": __version__,
        "held_out": held_out,
    }
    if which == "factors":
        facts["accuracy"] = factor_accuracy(network, test_set)
    else:
        facts |= error_rates(network, test_set, seed)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{which}.safetensors", to_bytes(network))
    write_atomic(folder / f"{which}.json", (to_json(facts, indent=1) + "\n").encode())
    click.echo(to_json(facts, indent=1))


def train_network(
    which: str,
    train_set: LabelledImages,
    steps: int,
    seed: int = 0,
    batch: int = BATCH,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> StackNet:
    """Train `factors` or `touching`; `report` gets the step and its loss now and then."""
    keep_freed_memory()
    torch.manual_seed(seed)  # of the initial weights
    network = StackNet(HEADS[which]).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), LR, weight_decay=WEIGHT_DECAY, fused=True)
    bf16 = choose_precision("auto", torch.device("cpu")) == "bf16"
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LR * _schedule(step, steps)
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(train_set.images), (batch,), generator=random).numpy()
        images, targets = batch_of(which, train_set, chosen, random)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outputs = network(images)
        loss = losses(outputs, targets).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report(step + 1, float(loss.detach()))
    return network.eval()


def losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of each output, [number of outputs]; unknown targets do not count."""
    means = []
    for name, logits in outputs.items():
        target = targets[name]
        flat = logits.float().reshape(target.numel(), -1)
        total = F.cross_entropy(flat, target.reshape(-1), ignore_index=IGNORED, reduction="sum")
        means.append(total / (target != IGNORED).sum().clamp(min=1))
    return torch.stack(means)


def _schedule(step: int, steps: int) -> float:
    """A short linear warm-up, then half a cosine down to 0."""
    warmup = min(200, steps // 10 + 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def factor_accuracy(network: StackNet, towers: LabelledImages) -> dict[str, float]:
    """Share of right answers of each output; positions without a block do not count."""
    answers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in towers.targets}
    with torch.inference_mode():
        for start in range(0, len(towers.images), COUNTED):
            outputs = network(to_tensor(towers.images[start : start + COUNTED]))
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
    for demo, first in enumerate((0, half)):
        for side in (SIDE, COARSE):
            numbers = np.arange(first, first + half)
            plausible, flaw = _verdicts(network, stacks, numbers, seed, small=side == COARSE)
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
    network: StackNet, stacks: LabelledImages, numbers: NDArray[np.int64], seed: int, small: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The network's verdict and the true flaw (0: none) of images drawn over as in training."""
    plausible, flaws = [], []
    for start in range(0, len(numbers), COUNTED):
        chosen = numbers[start : start + COUNTED]
        random = torch.Generator().manual_seed(seed * 1_000_003 + start)
        images, targets = batch_of("touching", stacks, chosen, random)
        with torch.inference_mode():
            logits = network(coarse(images, COARSE) if small else images)["plausible"]
        plausible.append(logits.argmax(1).bool().numpy())
        flaws.append(targets["flaw"].numpy())
    return np.concatenate(plausible), np.concatenate(flaws)


if __name__ == "__main__":
    main()
