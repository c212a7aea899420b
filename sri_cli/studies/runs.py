"""Where the runs of a study stand: trained, measured, diverged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.records import Measurement, read_records
from sri_cli.run import checkpoints_in
from sri_cli.studies.file import Cell, Study
from sri_cli.training.log import LOG_NAME, read_log

DIVERGED = "diverged.txt"  # in a run's folder: what was said when it gave up
EVALUATION_SEED = 0
# metric -> how the keys that it leaves begin, the one that is always there first; which of their
# counts was asked for
LEAVES = {
    "stack-fd": (("stack_fd",), "generated"),
    "fid": (("fid",), "generated"),
    "sacc-estimate": (("sacc_estimate",), "generated"),
    "order": (("order_iou", "order_information"), "scenes"),
    "ari": (("ari_fg",), "images"),
    "msc": (("msc_fg",), "images"),
    "elbo": (("negative_elbo", "bits_per_dimension", "term_"), "images"),
}


@dataclass(frozen=True)
class Way:
    """How runs are measured: metric -> number of images, on which split of which file."""

    metrics: Mapping[str, int]
    split: str
    images: int  # of the split
    sha256: str

    def missing(self, known: Mapping[str, Measurement]) -> dict[str, int]:
        """What is still to be measured."""
        return {
            metric: num for metric, num in self.metrics.items() if LEAVES[metric][0][0] not in known
        }

    def known(self, records: list[Measurement], step: int) -> dict[str, Measurement]:
        """key -> what was measured so of the checkpoint of a step; the newest counts."""
        alike = [m for m in records if self._fits(m, step)]
        model = alike[-1]["subject"]["model"] if alike else None
        found: dict[str, Measurement] = {}
        for metric, num in self.metrics.items():
            keys, count = LEAVES[metric]
            wanted = min(num, self.images) if count == "images" else num
            for m in alike:
                same = m["subject"]["model"] == model and m["counts"].get(count) == wanted
                if same and m["metric"].startswith(keys):
                    found[m["metric"]] = m
        return found

    def _fits(self, m: Measurement, step: int) -> bool:
        data = m["data"] or {}
        there = (m["subject"].get("step"), data.get("sha256"), data.get("split"), m["seed"])
        return there == (step, self.sha256, self.split, EVALUATION_SEED)


@dataclass(frozen=True)
class Stand:
    """How far a run is. `measured`: key -> the measurement; `seconds` of training."""

    cell: Cell
    step: int
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    diverged: str | None = None
    seconds: float = 0.0

    @property
    def trained(self) -> bool:
        return self.step == self.cell.recipe.train.steps


def way_of(study: Study, data: DataFile) -> Way:
    """As the protocol says, on this file."""
    protocol = study.protocol
    images = data.counts[protocol.split]
    return Way(protocol.metrics, protocol.split, images, str(data.attrs["sha256"]))


def stand_of(cell: Cell, way: Way | None) -> Stand:
    """By what lies in its folder; SriError for a run that was trained on beyond the study's end."""
    step, steps = step_of(cell.run_dir), cell.recipe.train.steps
    if step > steps:
        raise SriError(
            f"{cell.run_dir} stands at step {step:,}, beyond the study's {steps:,}",
            f"move it away, or set checkpoints aside: the study wants step {steps:,}",
        )
    note = cell.run_dir / DIVERGED
    return Stand(
        cell,
        step,
        way.known(read_records(cell.run_dir), step) if way and step == steps else {},
        note.read_text("utf-8").strip() if note.is_file() else None,
        train_seconds(cell),
    )


def is_done(stand: Stand, way: Way) -> bool:
    """Nothing is left to do: trained and measured, or given up."""
    return stand.diverged is not None or (stand.trained and not way.missing(stand.measured))


def step_of(run_dir: Path) -> int:
    """Of the newest checkpoint; 0: none."""
    found = checkpoints_in(run_dir)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    """The run's log; nothing where it has none yet."""
    try:
        return read_log(run_dir / LOG_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return []


def train_seconds(cell: Cell) -> float:
    """How long its steps took, all calls together, by its log."""
    seconds, before = 0.0, 0
    for record in records_of(cell.run_dir):
        rate = record.get("images_per_second")
        seconds += (record["step"] - before) * cell.recipe.train.batch / rate if rate else 0.0
        before = record["step"]
    return seconds
