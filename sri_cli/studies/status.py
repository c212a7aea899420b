"""The status of a study's runs: trained, measured, diverged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.records import (
    COUNTS,
    HALF,
    Measurement,
    labels_of,
    metric_of,
    other_features,
    read_records,
)
from sri_cli.run import LOG_NAME, checkpoints_in
from sri_cli.strict_json import from_json
from sri_cli.studies.protocol import Study, StudyRun
from sri_cli.training.log import read_log, train_seconds

# Files in a run folder
DIVERGED = "diverged.txt"  # why the training gave up
MACHINE = "machine.json"  # what it was trained on
EVALUATION_SEED = 0
VALUE_KEYS = ("value", "low", "high")  # of a measurement, different for every run


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    step: of its newest checkpoint; measured: measurements by key; diverged: why it gave up;
    missing: metric -> number of images, what is still to be measured; seconds: of training;
    machine: what it was trained on, None where that is not known.
    """

    run: StudyRun
    step: int
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    diverged: str | None = None
    seconds: float = 0.0
    machine: Mapping[str, Any] | None = None

    @property
    def trained(self) -> bool:
        return self.step == self.run.recipe.train.steps

    @property
    def done(self) -> bool:
        """Nothing is left to do: trained and measured, or diverged."""
        return self.diverged is not None or (self.trained and not self.missing)

    @property
    def steps_left(self) -> int:
        return 0 if self.diverged else self.run.recipe.train.steps - self.step


def status_of(study: Study, run: StudyRun, data: DataFile | None = None) -> RunStatus:
    """The status by what is in the run folder; without `data` nothing counts as measured.

    Raises:
        SriError: for a run that was trained beyond the study's steps.
    """
    if run.name in study.recorded:
        return _recorded_status(run, study.recorded[run.name])
    step, steps = step_of(run), run.recipe.train.steps
    if step > steps:
        raise SriError(
            f"{run.run_dir} is at step {step:,}, beyond the study's {steps:,}",
            "move the run folder away",
        )
    measured = {}
    if data is not None and step == steps:
        measured = _measured(study, run, data, read_records(run.run_dir))
    have = {metric_of(m) for m in measured.values()}
    missing = {name: num for name, num in study.protocol.metrics.items() if name not in have}
    note = run.run_dir / DIVERGED
    diverged = note.read_text("utf-8").strip() if note.is_file() else None
    try:
        machine = from_json((run.run_dir / MACHINE).read_bytes())
    except (OSError, ValueError):
        machine = None
    seconds = train_seconds(read_log(run.run_dir / LOG_NAME), run.recipe.train.batch)
    return RunStatus(run, step, measured, missing, diverged, seconds, machine)


def _recorded_status(run: StudyRun, entry: Mapping[str, Any]) -> RunStatus:
    """The status of a run that is an entry in the summary of another study."""
    measured = {
        key: dict.fromkeys(VALUE_KEYS) | m | {"metric": key, "subject": {"model": entry["model"]}}
        for key, m in entry["metrics"].items()
    }
    diverged, machine = entry["diverged"], entry["machine"]
    return RunStatus(run, entry["step"], measured, {}, diverged, entry["train_seconds"], machine)


def _measured(
    study: Study, run: StudyRun, data: DataFile, records: list[Measurement]
) -> dict[str, Measurement]:
    """key -> the newest measurement by the protocol, of the weights of the last step.

    What was measured by hand in other features, or with dynamic slots, is of another protocol, and
    half precision (`sri export --half`) of other weights.
    """
    split, recipe = study.protocol.split, run.recipe
    of = (recipe.train.steps, recipe.model.slots, str(data.attrs["sha256"]), split)

    def fits(m: Measurement) -> bool:
        source = m["data"] or {}
        own = (m["subject"].get("step"), m["slots"], source.get("sha256"), source.get("split"))
        if own != of or m["seed"] != EVALUATION_SEED or other_features(m) or HALF in m["subject"]:
            return False
        labels = labels_of(m)  # compared only where known: the digest reads all masks
        return labels is None or labels == data.split(split).labels_digest

    fitting = [m for m in records if fits(m)]
    model = fitting[-1]["subject"]["model"] if fitting else None
    return {
        m["metric"]: m
        for metric, num in study.protocol.metrics.items()
        for m in fitting
        if m["subject"]["model"] == model and fulfils(m, metric, num, data.counts[split])
    }


def fulfils(m: Measurement, metric: str, num: int, images: int) -> bool:
    """Whether a value is of `metric` and of as many images or scenes as the protocol sets; the
    split has `images`."""
    count = "scenes" if metric == "order" else "generated" if metric in COUNTS else "images"
    expected = min(num, images) if count == "images" else num
    return metric_of(m) == metric and m["counts"].get(count) == expected


def step_of(run: StudyRun) -> int:
    """The step of the newest checkpoint, 0 for none."""
    checkpoints = checkpoints_in(run.run_dir)
    return int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
