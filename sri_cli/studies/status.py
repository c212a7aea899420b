"""The status of a study's runs: trained, measured, diverged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.records import Measurement, labels_of, other_features, read_records
from sri_cli.run import LOG_NAME, checkpoints_in
from sri_cli.strict_json import from_json
from sri_cli.studies.protocol import Study, StudyRun
from sri_cli.training.log import read_log

# Files in a run folder
DIVERGED = "diverged.txt"  # why the training gave up
MACHINE = "machine.json"  # what it was trained on
EVALUATION_SEED = 0
VALUE_KEYS = ("value", "low", "high")  # of a measurement, different for every run
# metric -> prefixes of the keys that it writes, the one that is always there first; the count that
# the protocol sets
KEYS = {
    "stack-fd": (("stack_fd",), "generated"),
    "fid": (("fid",), "generated"),
    "kid": (("kid",), "generated"),
    "sacc-estimate": (("sacc_estimate",), "generated"),
    "shapes": (("shapes_difference", "shapes_"), "generated"),
    "order": (("order_iou", "order_information"), "scenes"),
    "ari": (("ari_fg",), "images"),
    "msc": (("msc_fg",), "images"),
    "mbo": (("mbo",), "images"),
    "miou": (("miou",), "images"),
    "slots": (("slots_exact", "slots_used", "slots_difference"), "images"),
    "matching": (("matching_kl_slot_random", "matching_"), "images"),
    "elbo": (("negative_elbo", "bits_per_dimension", "term_"), "images"),
}


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
    missing = {
        metric: num
        for metric, num in study.protocol.metrics.items()
        if KEYS[metric][0][0] not in measured
    }
    note = run.run_dir / DIVERGED
    diverged = note.read_text("utf-8").strip() if note.is_file() else None
    try:
        machine = from_json((run.run_dir / MACHINE).read_bytes())
    except (OSError, ValueError):
        machine = None
    return RunStatus(run, step, measured, missing, diverged, train_seconds(run), machine)


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

    What was measured by hand in other features, or with dynamic slots, is of another protocol.
    """
    split, recipe = study.protocol.split, run.recipe
    of = (recipe.train.steps, recipe.model.slots, str(data.attrs["sha256"]), split)

    def fits(m: Measurement) -> bool:
        source = m["data"] or {}
        own = (m["subject"].get("step"), m["slots"], source.get("sha256"), source.get("split"))
        if own != of or m["seed"] != EVALUATION_SEED or other_features(m):
            return False
        labels = labels_of(m)  # compared only where known: the digest reads all masks
        return labels is None or labels == data.split(split).labels_digest

    fitting = [m for m in records if fits(m)]
    model = fitting[-1]["subject"]["model"] if fitting else None
    measured: dict[str, Measurement] = {}
    for metric, num in study.protocol.metrics.items():
        prefixes, count = KEYS[metric]
        expected = min(num, data.counts[split]) if count == "images" else num
        for m in fitting:
            same = m["subject"]["model"] == model and m["counts"].get(count) == expected
            if same and m["metric"].startswith(prefixes):
                measured[m["metric"]] = m
    return measured


def step_of(run: StudyRun) -> int:
    """The step of the newest checkpoint, 0 for none."""
    checkpoints = checkpoints_in(run.run_dir)
    return int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0


def last_step(run: StudyRun) -> int:
    """The last step in the log of a run in progress."""
    records = _log(run)
    return records[-1]["step"] if records else 0


def train_seconds(run: StudyRun) -> float:
    """How long its steps took, all calls together, by its log."""
    seconds, before = 0.0, 0
    for record in _log(run):
        rate = record.get("images_per_second")
        seconds += (record["step"] - before) * run.recipe.train.batch / rate if rate else 0.0
        before = record["step"]
    return seconds


def _log(run: StudyRun) -> list[dict[str, Any]]:
    try:
        return read_log(run.run_dir / LOG_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return []  # not begun yet
