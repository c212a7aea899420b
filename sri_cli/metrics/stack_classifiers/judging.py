"""`sri judge`: simulate, train, check; files and words out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.console import Progress, counting
from sri_cli.data.parallel import available_cores
from sri_cli.data.simulate.flaws import FLAWS
from sri_cli.errors import SriError
from sri_cli.metrics.inception import random_inception
from sri_cli.metrics.stack_classifiers.checking import (
    coverage,
    damages,
    factor_accuracy,
    orderings,
    verdicts_by_kind,
)
from sri_cli.metrics.stack_classifiers.features import StackFeatures
from sri_cli.metrics.stack_classifiers.judge import Judge, open_judge
from sri_cli.metrics.stack_classifiers.pictures import factor_pictures, touching_pictures
from sri_cli.metrics.stack_classifiers.training import Pictures, Settings, to_bytes, train_stack_net

HELD_OUT = 1_000_000  # added to a seed: what rates are counted on
CHECKED = 2_000_000  # and what `check` draws


def train_network(
    which: str,
    out: Path,
    pictures: int,
    held_out: int,
    steps: int,
    seed: int = 0,
    workers: int | None = None,
) -> str:
    """Writes OUT/WHICH.safetensors and OUT/WHICH.json (how it was made, how good it is)."""
    if out.exists() and not out.is_dir():
        raise SriError(f"{out} is a file", "--out names a folder")
    workers = workers or available_cores()
    simulate = factor_pictures if which == "factors" else touching_pictures
    with counting("simulating", pictures + held_out) as advance:
        learned = simulate(pictures, seed, workers, advance)
        new = simulate(held_out, seed + HELD_OUT, workers, advance)
    with Progress(steps, 0, which) as progress:

        def tell(step: int, loss: float) -> None:
            progress.advance(step)
            progress.tell(f"loss {loss:.4f}")

        network = train_stack_net(which, learned, Settings(steps, seed=seed), advance=tell)
    facts: dict[str, Any] = {
        "command": f"sri judge train {which} --pictures {pictures} --held-out {held_out}"
        f" --steps {steps} --seed {seed}",
        "sri": __version__,
        "held_out": held_out,
    }
    if which == "factors":
        facts["accuracy"] = factor_accuracy(network, new)
    else:
        found = verdicts_by_kind(network, new, seed)
        facts["rates"] = {kind: one.rates._asdict() for kind, one in found.items()}
        facts["found"] = {kind: one.found for kind, one in found.items()}
    weights = to_bytes(network)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"{which}.safetensors", weights)
    write_atomic(out / f"{which}.json", (json.dumps(facts, indent=1) + "\n").encode())
    return f"{out / which}.safetensors: {len(weights):,} bytes\n{json.dumps(facts, indent=1)}"


def check_networks(num: int, random_features: bool, workers: int | None = None) -> dict[str, Any]:
    """What the shipped networks do on pictures that no shipped number was counted on."""
    workers = workers or available_cores()
    judge, features = open_judge(), StackFeatures()
    with counting("simulating", 4 * num + 8 * num) as advance:
        towers = factor_pictures(4 * num, CHECKED, workers, advance)
        stacks = touching_pictures(8 * num, CHECKED, workers, advance)
    found: dict[str, Any] = {
        "pictures": num,
        "factors": {
            "weights": features.digest,
            "accuracy": factor_accuracy(features.network, towers),
        },
        "touching": {"weights": judge.digest, **_verdicts(judge, stacks)},
    }
    reference, undamaged, damaged = _damaged(stacks, num)
    extractors: dict[str, Any] = {"stack-FD": features}
    if random_features:
        extractors["FD-random-inception"] = random_inception()
    for name, extract in extractors.items():
        total = (
            len(reference) + num + sum(len(level) for kind in damaged.values() for level in kind)
        )
        with counting(name, total) as advance:
            answers = orderings(
                extract, extract.size, reference, undamaged.images, damaged, advance
            )
        found[name] = {kind: answer._asdict() for kind, answer in answers.items()}
    return found


def _verdicts(judge: Judge, stacks: Pictures) -> dict[str, Any]:
    return {
        kind: {
            **one.rates._asdict(),
            "found": one.found,
            "coverage": coverage(one, judge.rates[kind], count=100),
        }
        for kind, one in verdicts_by_kind(judge.network, stacks, CHECKED).items()
    }


def _damaged(
    stacks: Pictures, num: int
) -> tuple[NDArray[np.uint8], Pictures, dict[str, list[NDArray[np.uint8]]]]:
    """Of the original look: a reference and another set of sound stacks, and the latter damaged."""
    half = len(stacks.images) // 2  # the original look comes first
    flaws = stacks.targets["flaw"][:half]
    sound = np.flatnonzero(flaws == 0)
    reference, own = sound[:num], sound[num : 2 * num]
    undamaged = Pictures(stacks.images[own], stacks.masks[own], {})
    flawed = {name: stacks.images[:half][flaws == kind + 1] for kind, name in enumerate(FLAWS)}
    return stacks.images[reference], undamaged, damages(undamaged, flawed)


def check_words(found: dict[str, Any]) -> str:
    """The same as plain tables."""
    lines = [f"factors, weights {found['factors']['weights'][:12]}: right answers, %"]
    lines += [f"  {name:18}{100 * v:6.1f}" for name, v in found["factors"]["accuracy"].items()]
    touching = found["touching"]
    for kind, facts in touching.items():
        if kind == "weights":
            continue
        right = facts["right"] + facts["flawed"] - facts["wrong"]
        share = 100 * right / (facts["plausible"] + facts["flawed"])
        lines += ["", f"touching, weights {touching['weights'][:12]}, {kind}: {share:.1f} % right"]
        lines += [f"  {'called plausible':18}{100 * facts['right'] / facts['plausible']:6.1f}"]
        lines += [f"  found {kind:12}{100 * v:6.1f}" for kind, v in facts["found"].items()]
        held = ", ".join(f"{share}: {100 * v:.0f}" for share, v in facts["coverage"].items())
        lines += [f"  95 % intervals of 100 pictures that hold the true share, %: {held}"]
    for name in ("stack-FD", "FD-random-inception"):
        if name in found:
            lines += [
                "",
                f"{name}, {found['pictures']} pictures: none to most damage; pairs in order",
            ]
            lines += [_ordering_words(kind, answer) for kind, answer in found[name].items()]
    return "\n".join(lines)


def _ordering_words(kind: str, answer: dict[str, Any]) -> str:
    values = " ".join(f"{value:9.4g}" for value in answer["distances"])
    return f"  {kind:18}{100 * answer['concordant']:4.0f} %  {values}"
