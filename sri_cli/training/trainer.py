"""One training in progress: its steps, records, checkpoints and roll-backs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.checkpoint import Checkpoint
from sri_cli.config.load import recipe_from_dict
from sri_cli.config.schema import Recipe
from sri_cli.data.dataset import DataFile
from sri_cli.data.loader import Batches
from sri_cli.errors import Diverged, Interrupted, SriError
from sri_cli.models.build import build_model
from sri_cli.rng import retry_seed
from sri_cli.signals import StopFlag
from sri_cli.training import folder
from sri_cli.training.distributed import Ranks, processes_here
from sri_cli.training.divergence import Watch
from sri_cli.training.execution import Way, choose_way
from sri_cli.training.feed import Feed
from sri_cli.training.log import RunLog
from sri_cli.training.progress import TrainingProgress
from sri_cli.training.schedule import learning_rate
from sri_cli.training.step import TrainStep

MAX_ROLLBACKS = 3  # in one call; the same command again has as many anew
WHERE = {"device": "", "memory": " in the host's memory", "file": " streamed from their file"}
# How often several processes ask each other whether one was told to stop, in steps. A GPU's steps
# are short and the host runs ahead of them; a launcher waits 30 s.
ASK_EVERY = {"cpu": 1, "cuda": 10}


@dataclass
class Outcome:
    """What a training came to; `record` is the last log record of this call."""

    run_dir: Path
    step: int
    resumed_from: int
    checkpoint: Path
    seconds: float
    record: dict[str, Any] = field(default_factory=dict)


class Run:
    """The state of one training.

    `done` steps are finished, `saved` is the step of the newest checkpoint (0: none), `attempt`
    picks the noise seed, `rollbacks` counts the returns to a checkpoint.
    """

    step: TrainStep
    feed: Feed
    watch: Watch
    done: int
    saved: int
    attempt: int
    timed: float
    timed_at: int

    def __init__(
        self,
        recipe: Recipe,
        data: DataFile,
        run_dir: Path,
        log: RunLog,
        device: torch.device,
        command: str,
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        self.recipe, self.settings, self.run_dir, self.log = recipe, recipe.train, run_dir, log
        self.device, self.command = device, command
        self.num_elements = 3 * recipe.model.image_size**2
        images = data.split("train").images
        content = str(data.attrs["sha256"])[:16]
        self.data = {"name": data.name, "images": len(images), "content": content}
        # For those that look at the run later: where its data lay and what figures call it.
        self.source = {"file": str(data.path.resolve()), "caption": data.caption}
        self._check_same_data()
        found = ranks.from_first(lambda: checkpoints.newest_good(run_dir))
        ranks.from_first(lambda: self._check_resumable(found))
        # Where imported weights came from stays known as long as the run is trained on.
        self.origin = {} if found is None else imported_from(found)
        if self.origin:
            self.source["caption"] += ", from imported weights"
        self.way = choose_way(self.settings, device)
        self.rows = ranks.rows(self.settings.batch)
        self.batches = Batches(
            images,
            self.settings.batch,
            self.settings.seed,
            device,
            self.rows,
            sharers=processes_here(),
        )
        self.rollbacks = 0
        self._take_up(found)
        # Not of a run that cannot go on.
        ranks.from_first(lambda: folder.describe(run_dir, recipe, command))
        self.resumed_from = self.done

    def go(
        self, stop: StopFlag, on_record: Callable[[dict[str, Any]], None] | None = None
    ) -> Outcome:
        """Run to the recipe's last step."""
        began = time.monotonic()
        record: dict[str, Any] = {}
        quiet = not self.ranks.first
        with TrainingProgress(
            self.settings.steps, self.done, self.recipe.name, quiet=quiet
        ) as progress:
            progress.note(self._opening())
            while self.done < self.settings.steps:
                self._one_step()
                progress.advance(self.done)
                while self.step.notes:
                    progress.note(self.step.notes.pop(0))
                # Judged before it is saved: a diverging state must not pass for the last good one.
                if self._due(self.settings.log_every) or self._due(self.settings.checkpoint_every):
                    record, reason = self._record()
                    if reason is not None:
                        self._roll_back(reason, progress)
                        continue
                    self._tell(record, progress, on_record)
                stopped_by = self._stopped_by(stop)
                if self._due(self.settings.checkpoint_every) or stopped_by:
                    self._save()
                if stopped_by and self.done < self.settings.steps:
                    raise self._interrupted(stopped_by)
        path = checkpoints.checkpoint_path(self.run_dir, self.saved)
        seconds = time.monotonic() - began
        return Outcome(self.run_dir, self.done, self.resumed_from, path, seconds, record)

    def close(self) -> None:
        """Stop the thread that prepares batches, and let go of what was recorded."""
        self.feed.close()
        self.step.close()

    def _one_step(self) -> None:
        images, noise = self.feed.at(self.done)
        self.step(images, noise, self.done)
        self.done += 1

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def _stopped_by(self, stop: StopFlag) -> str | None:
        """The signal that any of the processes got; all of them stop after the same step."""
        if self.ranks.world > 1 and self.done % ASK_EVERY[self.device.type]:
            return None
        number = self.ranks.highest(stop.number)
        return signal.Signals(number).name if number else None

    def _tell(
        self,
        record: dict[str, Any],
        progress: TrainingProgress,
        on_record: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.ranks.from_first(lambda: self.log.append(record))
        progress.record(record)
        if on_record is not None:
            on_record(record)

    def _record(self) -> tuple[dict[str, Any], str | None]:
        """The log record of the steps since the last one, and why they mean divergence, if so."""
        steps = self.step.metrics.steps
        metrics = self.step.read_metrics()
        now = time.monotonic()
        images_per_second = (self.done - self.timed_at) * self.settings.batch / (now - self.timed)
        self.timed, self.timed_at = now, self.done
        record: dict[str, Any] = {"step": self.done}
        record["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        record |= metrics | per_element(metrics, self.num_elements)
        record |= {
            "lr": learning_rate(self.settings, self.done - 1),
            "images_per_second": images_per_second,
            "memory_mb": memory_mb(self.device),
        }
        last = self.done == self.settings.steps
        verdict = self.ranks.from_first(lambda: self.watch.verdict(steps, metrics, last))
        return record, verdict

    def _save(self) -> None:
        """Write a checkpoint of this step, unless it is there, and delete old ones."""
        if self.saved != self.done:
            self.ranks.from_first(self._write)
            self.saved = self.done

    def _write(self) -> None:
        checkpoints.save(
            self.run_dir,
            self.done,
            self.step.model.state_dict(),
            self.recipe.model_dump(mode="json"),
            {"step": self.step.state(), "attempt": self.attempt},
            {"data": self.data, "source": self.source, "precision": self.way.precision}
            | self.origin,
        )
        checkpoints.prune(self.run_dir, self.settings.keep_checkpoints, self.settings.keep_every)

    def _roll_back(self, reason: str, progress: TrainingProgress) -> None:
        """Back to the last good checkpoint with another noise seed, or Diverged."""
        at, attempt = self.done, self.attempt + 1
        if self.rollbacks == MAX_ROLLBACKS:
            raise self._diverged(reason)
        self.rollbacks += 1
        self.close()
        found = self.ranks.from_first(lambda: checkpoints.newest_good(self.run_dir, progress.note))
        self._take_up(found, attempt)
        progress.note(
            f"Note: diverged at step {at}: {reason}; back to step {self.done} with new noise"
            f" ({self.rollbacks} of {MAX_ROLLBACKS})"
        )
        progress.advance(self.done)

    def _take_up(self, found: Checkpoint | None, attempt: int | None = None) -> None:
        """Stand where `found` stands (None: at the start); `attempt` picks the noise seed."""
        self.step = new_step(self.recipe, self.device, self.way, self.ranks)
        self.done = self.saved = 0
        state: dict[str, Any] = {"attempt": 0}
        if found is not None:
            # Read once: only the first rank need see the run's folder.
            weights, state = self.ranks.from_first(lambda: (found.weights(), found.state()))
            self.step.model.load_state_dict(weights)
            self.step.load_state(state["step"])
            self.done = self.saved = found.step
        self.attempt = state["attempt"] if attempt is None else attempt
        done = self.done
        self.ranks.from_first(lambda: folder.forget_after(self.run_dir, self.log, done))
        self.watch = Watch(self.num_elements)
        self.timed, self.timed_at = time.monotonic(), self.done
        self.feed = Feed(
            self.batches,
            self.step.model.training_noise(),
            self.settings.batch,
            retry_seed(self.settings.seed, self.attempt),
            self.device,
            self.rows,
        )

    def _check_same_data(self) -> None:
        """SriError where a rank reads other images than the first."""
        differs = self.ranks.from_first(lambda: self.data) != self.data
        if self.ranks.highest(int(differs)):  # all raise, or the others would wait for this one
            raise SriError(
                "not all machines have the same data of this name",
                "copy one file to every machine: --data FILE",
            )

    def _check_resumable(self, found: Checkpoint | None) -> None:
        if found is None:
            if checkpoints.checkpoints_in(self.run_dir):
                raise checkpoints.no_intact(self.run_dir)
            return
        # On what imported weights were trained is not known: they go on with any data.
        known = found.extra.get("data", self.data)
        changed = folder.differences(
            {"data file": known} | recipe_from_dict(found.recipe).model_dump(),
            {"data file": self.data} | self.recipe.model_dump(),
        )
        if changed:
            raise SriError(
                f"{self.run_dir} was trained otherwise: {'; '.join(changed)}",
                "undo the change to go on with it, or start another run: --run DIR",
            )

    def _interrupted(self, signal_name: str) -> Interrupted:
        return Interrupted(
            f"stopped by {signal_name} at step {self.done}, saved in"
            f" {checkpoints.checkpoint_path(self.run_dir, self.done)}",
            f"go on: {self.command}",
        )

    def _diverged(self, reason: str) -> Diverged:
        kept = f"the checkpoint of step {self.saved} stays" if self.saved else "nothing was saved"
        return Diverged(
            f"training diverged at step {self.done}: {reason}; {MAX_ROLLBACKS} roll-backs with"
            " new noise did not help",
            f"{kept}; try another run: train.lr={self.settings.lr / 2:g} --run DIR",
        )

    def _opening(self) -> str:
        steps = self.settings.steps
        if self.done >= steps:
            return f"{self.run_dir} stands at step {self.done} already; --steps N trains it on"
        start = f"resuming {self.run_dir} at step {self.done}" if self.done else f"{self.run_dir}:"
        return (
            f"{start} to step {steps} on {self._machines()} in {self.way},"
            f" {self.data['images']} images{WHERE[self.batches.place]},"
            f" batch {self.settings.batch}"
        )

    def _machines(self) -> str:
        kind = self.device.type
        return kind if self.ranks.world == 1 else f"{self.ranks.world} processes of {kind}"


def new_step(
    recipe: Recipe, device: torch.device, way: Way | None = None, ranks: Ranks | None = None
) -> TrainStep:
    """A freshly initialised model and optimiser; the weights depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        model = build_model(**recipe.model.model_dump())
    step = TrainStep(model, recipe.train, device, way, ranks)
    step.ranks.align(step.model)
    return step


def imported_from(found: Checkpoint) -> dict[str, Any]:
    """What an imported checkpoint tells of the file that it came from; nothing of others."""
    return {key: value for key, value in found.extra.items() if key == "imported"}


def per_element(metrics: dict[str, float], num_elements: int) -> dict[str, float]:
    """The errors in nats per pixel and channel, as the recipe's target counts them."""
    names = [name for name in metrics if name == "nll" or name.startswith("error/")]
    return {
        name.replace("nll", "nll_per_element").replace("error/", "error_per_element/"): metrics[
            name
        ]
        / num_elements
        for name in names
    }


def memory_mb(device: torch.device) -> float:
    """The most memory used so far: the GPU's, or the process's on a CPU; in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
