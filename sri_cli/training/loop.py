"""The one training loop: any model, one command to start it and to go on with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.signals import stop_on_signal
from sri_cli.training import folder
from sri_cli.training.distributed import joined, was_restarted
from sri_cli.training.trainer import Outcome, Run


def train(
    recipe: Recipe,
    data: DataFile,
    run_dir: Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    command: str = "sri train",
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Train `recipe` on the training split of `data` in `run_dir`, or go on where it stands.

    Started by torchrun, every process of the job calls this, and they train as one.
    Raises SriError for a changed recipe or unfit data, Interrupted (75) after a signal and a
    checkpoint, Diverged (4) after the last roll-back, SriFailure when the disk will not take it.
    """
    check_data(recipe, data)
    with joined(device) as (ranks, place), ExitStack() as stack:
        ranks.check_batch(recipe.train.batch)
        started_over = fresh and not was_restarted()
        log = ranks.from_first(lambda: stack.enter_context(folder.open_run(run_dir, started_over)))
        stop = stack.enter_context(stop_on_signal(patient=ranks.world > 1))
        run = Run(recipe, data, run_dir, log, place, command, ranks)
        try:
            return run.go(stop, on_record)
        finally:
            run.close()


def check_data(recipe: Recipe, data: DataFile) -> None:
    """SriError unless the images fit the recipe."""
    data.check_size(recipe.model.image_size)
    images = len(data.split("train"))
    if images < recipe.train.batch:
        raise SriError(
            f"{data.path} holds {images} training images, fewer than a batch of"
            f" {recipe.train.batch}",
            f"smaller batches: train.batch={images}; or prepare more scenes",
        )
