"""`sri bench order`: greedy against Hungarian matching, on made-up means or those of a run.

Axis legend: N images, B images of a batch, K places and slots, D slot size.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sri_cli.console import counting
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import Task, fitting_split
from sri_cli.metrics.matching import compare_orders, synthetic_means
from sri_cli.models.matching import MATCHINGS, Matching, distances
from sri_cli.models.sri import SRI
from sri_cli.run import Workspace
from sri_cli.training.step_timing import machine, wait_for

SLOTS = (5, 7, 9, 12, 16, 24, 32)
SLOT_SIZE = 64
NOISES = (0.25, 0.5, 1.0, 2.0, None)  # of the places' own deviation; None: unrelated
BATCHES = 20  # per row: as many are timed


class Means(NamedTuple):
    """What is matched: places and slots [N,K,D], which slots are empty [N,K], if any may be."""

    places: Tensor
    slots: Tensor
    empty: Tensor | None = None

    def batches(self, size: int) -> list[Means]:
        """Whole batches; all that there is where that is less than one."""
        count = max(1, len(self.places) // size)
        rows = [slice(i * size, (i + 1) * size) for i in range(count)]
        empty = self.empty
        return [
            Means(self.places[r], self.slots[r], None if empty is None else empty[r]) for r in rows
        ]

    def to(self, device: torch.device) -> Means:
        """The same elsewhere."""
        return Means(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def bench_order(
    workspace: Workspace, run: str | None, batch: int = 32, seed: int = 0, device: str = "auto"
) -> dict[str, Any]:
    """Time and cost of both matchings: a row for each kind of means, ready for JSON."""
    place = choose_device(device)
    record = {**machine(place), "batch": batch, "seed": seed}
    if run is not None:
        trained = open_run(workspace, run)
        rows = [
            {"means": trained.run_dir.name} | row_of_run(workspace, trained, batch, seed, place)
        ]
        return record | {
            "run": str(trained.run_dir),
            "step": trained.step,
            "trained_with": trained.recipe.model.order,
            "rows": rows,
        }
    rows = []
    for slots in SLOTS:
        for noise in NOISES:
            means = Means(*synthetic_means(BATCHES * batch, slots, SLOT_SIZE, noise, seed))
            kind = "unrelated" if noise is None else f"places + {noise:g} noise"
            rows.append({"means": kind, "noise": noise} | row(means.to(place), batch))
    return record | {"run": None, "rows": rows}


def row_of_run(
    workspace: Workspace, trained: TrainedRun, batch: int, seed: int, device: torch.device
) -> dict[str, Any]:
    """The same for the means that a trained SRI matches on test images."""
    model = trained.model
    check_matches(trained)
    data = trained.open_data()
    part = fitting_split(trained, data, (), "test")
    chosen = part.pick(BATCHES * batch)
    with counting("inferring", len(chosen)) as advance:
        task = Task(trained, part, chosen, seed, "auto", advance)
        found = task.run(lambda images, noise, _: means_of(model.infer(images, noise)))
    places, slots, empty = zip(*found, strict=True)
    whole = Means(
        torch.cat(places), torch.cat(slots), None if empty[0] is None else torch.cat(empty)
    )
    return row(whole.to(device), batch)


def means_of(found: Any) -> Means:
    """What the matching was given in an `sri.Inference`."""
    return Means(
        found.rollout_prior.mean.float(),
        found.segregated.posterior.mean.float(),
        found.segregated.empty,
    )


def check_matches(trained: TrainedRun) -> None:
    """SriError for a model that finds no order of its slots."""
    model = trained.model
    if not isinstance(model, SRI) or model.posterior is None or model.segregate.ordered:
        raise SriError(
            f"{trained.run_dir} matches no slots: recipe {trained.recipe.name} learns no order",
            "name a run of SRI with --run, or leave --run out for made-up means",
        )


def row(means: Means, batch: int) -> dict[str, Any]:
    """Milliseconds per batch of both matchings, and how far they are apart."""
    batches = means.batches(batch)
    result: dict[str, Any] = {"slots": means.places.shape[1], "timed_batch": len(batches[0].places)}
    for name, match in MATCHINGS.items():
        times = [1000 * seconds(match, each) for each in (batches[0], *batches)][1:]
        result[f"{name}_ms"] = statistics.median(times)
        result[f"{name}_ms_min"], result[f"{name}_ms_max"] = min(times), max(times)
    greedy, best = (MATCHINGS[name](*means) for name in ("greedy", "hungarian"))
    return result | compare_orders(distances(*means), greedy, best)


def seconds(match: Matching, means: Means) -> float:
    """The duration of matching one batch."""
    wait_for(means.places.device)
    began = time.perf_counter()
    match(*means)
    wait_for(means.places.device)
    return time.perf_counter() - began


def words(record: dict[str, Any], machine_line: str) -> str:
    """The table for people."""
    rows = record["rows"]
    wide = max(len(row["means"]) for row in rows)
    lines = [
        machine_line,
        f"milliseconds for {rows[0]['timed_batch']} images: median (fastest to slowest);"
        f" {rows[0]['images']} images a row, seed {record['seed']}",
        f" K  {'means':<{wide}}  {'greedy ms':>20}  {'Hungarian ms':>20}"
        "  images differ  places differ  excess",
    ]
    for row in rows:
        times = "  ".join(f"{_spread(row, name):>20}" for name in MATCHINGS)
        lines.append(
            f"{row['slots']:>2}  {row['means']:<{wide}}  {times}  {row['images_differ']:>13.1%}"
            f"  {row['places_differ']:>13.1%}  {row['excess_percent']:>5.2f}%"
        )
    return "\n".join(lines)


def _spread(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_ms_min"], row[f"{name}_ms_max"]
    return f"{row[f'{name}_ms']:.2f} ({low:.2f} to {high:.2f})"
