"""Training: open the run, resume it, then step, record, check and save until the last step."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import write_atomic
from sri_cli.checkpoint import Checkpoint
from sri_cli.config.schema import Recipe
from sri_cli.console import Progress, counted, warn
from sri_cli.cores import Threads
from sri_cli.data.dataset import DataFile
from sri_cli.data.loader import Batches, Prefetcher
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.models.build import build_model
from sri_cli.rng import retry_seed
from sri_cli.signals import StopFlag, stop_on_signal
from sri_cli.training.distributed import Ranks, joined, processes_here
from sri_cli.training.divergence import WINDOW_STEPS, DivergenceDetector
from sri_cli.training.execution import ExecutionMode, choose_mode
from sri_cli.training.log import RunLog, one_line, read_log, summary
from sri_cli.training.run_folder import (
    begin_command,
    check_image_size,
    data_sections,
    describe_run,
    end_command,
    find_checkpoint,
    open_run,
    trained_on,
)
from sri_cli.training.schedule import learning_rate
from sri_cli.training.step import TrainStep
from sri_cli.training.trackers import choose_trackers, drop_previews_after, preview_path

MAX_ROLLBACKS = 3  # in a row; the same command again makes the same ones
STORAGE_NOTE = {"device": "", "memory": " in host memory", "file": " streamed from their file"}
# Steps between two exchanges of stop signals among ranks. GPU steps are short and the host runs
# ahead of them; a launcher waits 30 s.
STOP_CHECK_EVERY = {"cpu": 1, "cuda": 10}
# What a run can do at a step: PNG files by name, and scalars for its record.
Preview = Callable[[TrainedRun, DataFile], tuple[dict[str, bytes], dict[str, float]]]


@dataclass
class Outcome:
    """The state of a run at the end of a training; `record` is the last log record of this call."""

    run: Path
    step: int
    resumed_from: int
    checkpoint: Path
    seconds: float
    record: dict[str, Any] = field(default_factory=dict)


def train(
    recipe: Recipe,
    data: DataFile,
    run_dir: Path,
    *,
    device: str = "auto",
    command: str = "sri train",
    threads: Threads | None = None,
    trackers: Sequence[str] | None = None,
    preview: Preview | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    patient: bool = False,
) -> Outcome:
    """Train `recipe` on the training split of `data` in `run_dir`, or resume the run there.

    Under torchrun every process calls this, and all train one model. `command` resumes the run
    and is shown to the user; `on_record` is called with every log record. `threads` are those of
    the CPU, by default as many as PyTorch uses now; the same number gives the same bits.
    `trackers` are names for `choose_trackers`; `preview` draws every `train.preview_every` steps.
    `patient`: the first signal stops the training, and further ones are ignored.

    Raises:
        SriError: the data do not fit, `run_dir` holds a run of another recipe or other data, or a
            tracker is unknown or not installed.
        SriFailure: a file could not be written, or a tracker refuses a new run.
        Interrupted: a signal came; a checkpoint of this step is saved.
        Diverged: the last roll-back did not help.
    """
    check_data(recipe, data)
    tracker_names = choose_trackers(trackers)
    with joined(device) as (ranks, own_device), ExitStack() as stack:
        ranks.check_batch(recipe.train.batch)
        log = ranks.from_first(lambda: stack.enter_context(open_run(run_dir)))
        stop = stack.enter_context(stop_on_signal(patient or ranks.world > 1))
        trainer = Trainer(
            recipe, data, run_dir, log, own_device, ranks, command, threads, preview=preview
        )
        trainer.resume(tracker_names)
        stack.callback(trainer.close)
        stack.callback(trainer.end_command)
        try:
            return trainer.run(stop, on_record)
        except Interrupted:  # a process that ends before the first one counts as lost
            ranks.from_first(trainer.end_command)
            raise


def check_data(recipe: Recipe, data: DataFile) -> None:
    """SriError unless the images have the recipe's size and fill a batch."""
    check_image_size(data, recipe.model.image_size)
    images = len(data.split("train"))
    if images < recipe.train.batch:
        raise SriError(
            f"{data.path} holds {images} training images, fewer than a batch of"
            f" {recipe.train.batch}",
            f"use smaller batches (train.batch={images}), or prepare more scenes",
        )


class Trainer:
    """One run in training.

    `done` steps are finished, `saved` is the step of the newest checkpoint (0: none), `attempt`
    counts the roll-backs of the whole run and selects the noise, `rollbacks` those of this call
    since one has helped; the last one began at step `diverged_at`.
    """

    step: TrainStep
    feed: Prefetcher
    detector: DivergenceDetector
    timed: float  # when the last record was made, in seconds, and after which step
    timed_at: int
    done = saved = attempt = rollbacks = diverged_at = resumed_from = 0

    def __init__(
        self,
        recipe: Recipe,
        data: DataFile,
        run_dir: Path,
        log: RunLog,
        device: torch.device,
        ranks: Ranks,
        command: str,
        threads: Threads | None = None,
        preview: Preview | None = None,
    ) -> None:
        # Whatever data set the recipe is for: its name here is that of the images.
        self.recipe = recipe.model_copy(update={"data": data.name})
        self.settings, self.run_dir, self.threads = recipe.train, run_dir, threads
        self.data_file, self.preview = data, preview
        self.log, self.device, self.ranks, self.command = log, device, ranks, command
        self.mode = choose_mode(self.settings, device)
        self.images = data.split("train").images
        self.num_elements = 3 * recipe.model.image_size**2
        sections = data_sections(data)
        self.data, self.source = sections["data"], sections["source"]

    def resume(self, trackers: Sequence[str] = ()) -> None:
        """Continue from the newest intact checkpoint, or start from step 0."""
        self._check_same_data()
        saved = self.ranks.from_first(lambda: find_checkpoint(self.run_dir, self.recipe, self.data))
        # What the weights came from is recorded as long as the run is trained.
        extra = saved.extra if saved else {}
        self.origin = {key: extra[key] for key in ("imported", "started_from") if key in extra}
        if "imported" in self.origin or "file" in self.origin.get("started_from", {}):
            self.source["caption"] += ", from imported weights"
        self.rows = self.ranks.rows(self.settings.batch)
        self.batches = Batches(
            self.images,
            self.settings.batch,
            self.settings.seed,
            self.device,
            self.rows,
            sharers=processes_here(),
        )
        self._load(saved)
        self.resumed_from = self.done
        self.ranks.from_first(lambda: self.log.follow(trackers, self.recipe, self.done))
        self.ranks.from_first(self._describe)

    def _describe(self) -> None:
        """Write recipe.yaml, and begin this command's line in command.txt, if it trains."""
        if self.done >= self.settings.steps:
            return
        recorded: dict[str, Any] = {"trained_on": trained_on(self.data_file)}
        if self.origin:
            (recorded["started_from"],) = self.origin.values()
        describe_run(self.run_dir, self.recipe, recorded)
        begin_command(self.run_dir, self.command, self.done)

    def end_command(self) -> None:
        """Record the last saved step of this command, also in the trackers."""
        if not self.ranks.first:
            return
        newest = checkpoints.checkpoint_path(self.run_dir, self.saved) if self.saved else None
        self.log.close(self.saved >= self.settings.steps, newest)
        if self.done > self.resumed_from:
            with suppress(SriFailure):  # of a full disk, which the training reports
                end_command(self.run_dir, self.saved)

    def run(
        self, stop: StopFlag, on_record: Callable[[dict[str, Any]], None] | None = None
    ) -> Outcome:
        """Train to the recipe's last step."""
        began, steps = time.monotonic(), self.settings.steps
        preview_every = self.settings.preview_every if self.preview else 0
        record: dict[str, Any] = {}
        with Progress(steps, self.done, self.recipe.name, quiet=not self.ranks.first) as progress:
            if self.threads is not None:
                self.threads.sharers *= processes_here()
                self._use_threads(self.threads.choose(), progress)
            progress.note(self._opening_line())
            while self.done < steps:
                self.step(*self.feed.at(self.done), self.done)
                self.done += 1
                progress.advance(self.done)
                self._follow_free_cores(progress)
                while self.step.notes:
                    progress.note(self.step.notes.pop(0))
                save_due = self._due(self.settings.checkpoint_every, self.settings.keep_every)
                preview_due = preview_every > 0 and self.done % preview_every == 0
                # Checked before it is saved, so that a checkpoint never holds a diverging state.
                if save_due or preview_due or self._due(self.settings.log_every):
                    record, problem = self._record()
                    if problem is not None:
                        self._roll_back(problem, progress)
                        continue
                    if preview_due:
                        record |= self.ranks.from_first(self._draw_preview)
                        self.timed = time.monotonic()  # it does not count for the rate
                    self.ranks.from_first(lambda: self.log.append(record))  # noqa: B023
                    progress.show(summary(record))
                    if on_record is not None:
                        on_record(record)
                elif progress.is_due():
                    progress.show(summary(self._values(self.step.peek_metrics())))
                stopping = self._must_stop(stop)
                if stopping and self.step.metrics.steps:  # since the last record, which was checked
                    problem = self._problem(self.step.metrics.steps, self.step.peek_metrics())
                    if problem is not None:
                        raise self._stopped_diverging(problem)
                if save_due or stopping:
                    self._save()
                if stopping and self.done < steps:
                    raise Interrupted(
                        f"Stopped at step {self.done}; checkpoint saved.",
                        f"Resume with: {self.command}",
                    )
        path = checkpoints.checkpoint_path(self.run_dir, self.saved)
        seconds = time.monotonic() - began
        return Outcome(self.run_dir, self.done, self.resumed_from, path, seconds, record)

    def close(self) -> None:
        """Stop the thread that prepares batches, and free compiled code and recorded graphs."""
        self.feed.close()
        self.step.close()

    def _due(self, *intervals: int) -> bool:
        return self.done == self.settings.steps or any(self.done % n == 0 for n in intervals)

    def _draw_preview(self) -> dict[str, float]:
        """Write the previews of this step; returns scalars. What fails is a note, or a full disk.

        They are of a copy of the model, so that nothing in them can change the training.
        """
        assert self.preview is not None
        extra = {"data": self.data, "source": self.source}
        try:
            model = copy.deepcopy(self.step.model).eval()
            run = TrainedRun(model, self.recipe, self.done, self.run_dir, extra)
            files, terms = self.preview(run, self.data_file)
        except Exception as error:
            warn(f"Note: no preview of step {self.done}: {one_line(error)}")
            return {}
        for name, content in files.items():
            write_atomic(preview_path(self.run_dir, name, self.done), content)
        return terms

    def _record(self) -> tuple[dict[str, Any], str | None]:
        """The log record of the steps since the last one, and the sign of divergence, if any."""
        steps = self.step.metrics.steps
        metrics = self.step.read_metrics()
        record = {
            "step": self.done,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **self._values(metrics),
            "lr": learning_rate(self.settings, self.done - 1),
            "memory_mb": peak_memory_mb(self.device),
        }
        if self.device.type == "cpu":
            record["threads"] = torch.get_num_threads()
        self.timed, self.timed_at = time.monotonic(), self.done
        return record, self._problem(steps, metrics, self.done == self.settings.steps)

    def _problem(self, steps: int, metrics: dict[str, float], last: bool = False) -> str | None:
        """The sign of divergence in the last `steps` steps, if any."""
        return self.ranks.from_first(lambda: self.detector.check(steps, metrics, last))

    def _stopped_diverging(self, problem: str) -> Interrupted:
        if self.ranks.first:  # a launcher does not fetch the result of a job that it stopped
            warn(f"Note: diverged at step {self.done}, which is not saved: {problem}")
        return Interrupted(
            f"Stopped at step {self.done}, which is not saved: it diverged; {self._saved_text()}.",
            f"Go on from there with: {self.command}",
        )

    def _saved_text(self) -> str:
        """What a diverged training leaves; the weights that it began with are a checkpoint, too."""
        there = self.saved or self.origin
        return f"the checkpoint of step {self.saved} remains" if there else "nothing is saved"

    def _values(self, metrics: dict[str, float]) -> dict[str, Any]:
        """Metrics since the last record, with errors per element and the rate."""
        images = (self.done - self.timed_at) * self.settings.batch
        rate = {"images_per_second": images / (time.monotonic() - self.timed)}
        return metrics | per_element(metrics, self.num_elements) | rate

    def _follow_free_cores(self, progress: Progress) -> None:
        """Adapt the number of threads to other processes, if that is wanted and due."""
        if self.threads is None or self.device.type != "cpu":
            return
        due = self.threads.is_due()
        # Ranks agree on a number, so all must do so at the same step, whatever their clocks say.
        if due if self.ranks.world == 1 else self._due(self.settings.log_every):
            self._use_threads(self.threads.look() if due else self.threads.number, progress)

    def _use_threads(self, number: int, progress: Progress) -> None:
        """Use `number` threads, or the fewest of all ranks.

        Rounding depends on them, and the weights of the ranks must stay equal.
        """
        assert self.threads is not None
        note = self.threads.use(-self.ranks.highest(-number))
        if note is not None:
            progress.note(note)

    def _must_stop(self, stop: StopFlag) -> bool:
        """Whether any rank received a signal; all of them stop after the same step."""
        if self.ranks.world > 1 and self.done % STOP_CHECK_EVERY[self.device.type]:
            return False
        return bool(self.ranks.highest(int(stop.received)))

    def _save(self) -> None:
        """Write a checkpoint of this step, unless there is one, and delete old ones."""
        if self.saved != self.done:
            self.ranks.from_first(self._write_checkpoint)
            self.saved = self.done
        # Beyond where it diverged, by as many steps as may show that it does so again.
        if self.done >= self.diverged_at + max(self.settings.checkpoint_every, WINDOW_STEPS):
            self.rollbacks = 0

    def _write_checkpoint(self) -> None:
        checkpoints.save(
            self.run_dir,
            self.done,
            self.step.model.state_dict(),
            self.recipe.model_dump(mode="json"),
            {"step": self.step.state(), "attempt": self.attempt},
            {"data": self.data, "source": self.source, "precision": self.mode.precision}
            | self.origin,
        )
        checkpoints.prune(self.run_dir, self.settings.keep_checkpoints, self.settings.keep_every)

    def _roll_back(self, problem: str, progress: Progress) -> None:
        """Return to the last checkpoint with new noise, or raise Diverged."""
        self.diverged_at = self.done
        if self.rollbacks == MAX_ROLLBACKS:
            fit = "" if self.settings.geco_target is None else " with a train.geco_target for it"
            raise Diverged(
                f"training diverged at step {self.diverged_at}: {problem}; {MAX_ROLLBACKS}"
                " roll-backs with new noise did not help",
                f"{self._saved_text()}; try another run, --run DIR"
                f" train.lr={self.settings.lr / 2:g}, or a larger model.std{fit}",
            )
        self.rollbacks += 1
        self.close()
        self._load(
            self.ranks.from_first(lambda: checkpoints.newest_good(self.run_dir)), self.attempt + 1
        )
        if self.ranks.first:
            warn(
                f"Note: diverged at step {self.diverged_at}: {problem}; back to step {self.done}"
                f" with new noise ({self.rollbacks} of {MAX_ROLLBACKS})"
            )
        progress.advance(self.done)

    def _load(self, saved: Checkpoint | None, attempt: int | None = None) -> None:
        """Load the state of a checkpoint (None: step 0); `attempt` overrides the stored one."""
        self.step = new_step(self.recipe, self.device, self.mode, self.ranks)
        self.done = self.saved = 0
        state: dict[str, Any] = {"attempt": 0}
        if saved is not None:
            # Read on the first rank alone: others need not see the run folder.
            weights, state = self.ranks.from_first(lambda: (saved.weights(), saved.state()))
            self.step.model.load_state_dict(weights)
            self.step.load_state(state["step"])
            self.done = self.saved = saved.step
        self.attempt = state["attempt"] if attempt is None else attempt
        self.ranks.from_first(self._drop_later_steps)
        self.detector = DivergenceDetector(self.num_elements)
        if attempt is None:  # after a roll-back a new level of the error may be the right one
            self.ranks.from_first(lambda: self.detector.catch_up(read_log(self.run_dir)))
        self.timed, self.timed_at = time.monotonic(), self.done
        self.feed = Prefetcher(
            self.batches.at,
            self.step.model.training_noise(),
            self.settings.batch,
            retry_seed(self.settings.seed, self.attempt),
            self.device,
            self.rows,
        )

    def _drop_later_steps(self) -> None:
        """Remove records and previews after the loaded checkpoint; set aside later checkpoints."""
        self.log.drop_after(self.saved)
        drop_previews_after(self.run_dir, self.saved)
        checkpoints.set_aside_after(self.run_dir, self.saved)

    def _check_same_data(self) -> None:
        """SriError where a rank reads other images than the first one."""
        differs = self.ranks.from_first(lambda: self.data) != self.data
        if self.ranks.highest(int(differs)):  # all raise, or the others would wait for this one
            raise SriError(
                "not all machines have the same data of this name",
                "copy one file to every machine: --data FILE",
            )

    def _opening_line(self) -> str:
        steps, kind = self.settings.steps, self.device.type
        if self.done >= steps:
            words = "--steps N"
            if self.recipe.size == "small":  # whose decay would end with the new last step
                words += f" train.lr_decay_steps={self.settings.lr_decay_steps}"
            return f"{self.run_dir} is already at step {self.done}; use {words} to train further"
        start = f"resuming {self.run_dir} at step {self.done}" if self.done else f"{self.run_dir}:"
        processes = kind if self.ranks.world == 1 else f"{self.ranks.world} processes on {kind}"
        if kind == "cpu":
            processes += f" with {counted(torch.get_num_threads(), 'thread')}"
            processes += " each" * (self.ranks.world > 1)
        return (
            f"{start} to step {steps} on {processes}, {self.step.mode},"
            f" {self.data['images']} images{STORAGE_NOTE[self.batches.storage]},"
            f" batch {self.settings.batch}"
        )


def new_step(
    recipe: Recipe,
    device: torch.device,
    mode: ExecutionMode | None = None,
    ranks: Ranks | None = None,
) -> TrainStep:
    """A freshly initialised model and optimiser; the weights depend on the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        model = build_model(**recipe.model.model_dump())
    step = TrainStep(model, recipe.train, device, mode, ranks)
    step.ranks.align(step.model)
    return step


def per_element(metrics: dict[str, float], num_elements: int) -> dict[str, float]:
    """The errors in nats per pixel and channel, the unit of the recipe's target."""
    return {
        name.replace("nll", "nll_per_element").replace("error/", "error_per_element/"): value
        / num_elements
        for name, value in metrics.items()
        if name == "nll" or name.startswith("error/")
    }


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far, in MB: the GPU's, or that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
