"""Measurements: one JSON object per value, one line each in a run's metrics.jsonl.

Every value comes with its interval, the counts, split and data file, the seed, the checkpoint with
the hash of its weights, and how it was measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sri_cli import __version__
from sri_cli.atomic import cannot_write
from sri_cli.checkpoint import checkpoint_path
from sri_cli.errors import SriFailure
from sri_cli.run import MEASUREMENTS
from sri_cli.strict_json import Record, parse_lines, to_json

if TYPE_CHECKING:  # `sri runs ls` reads records without torch
    import numpy as np
    from numpy.typing import NDArray

    from sri_cli.data.dataset import DataFile
    from sri_cli.generation.trained_run import TrainedRun

SCHEMA = 1
HALF = "half"  # key of a subject that is not the run's own weights but these in half precision
# Metrics of `sri eval`: those of a run by default, all that need the model, and the default number
# of generated images of the others (the papers' for FID, enough for the rest), FID last because it
# takes longest.
METRICS = ("ari", "msc", "elbo", "order")
SEGMENTATION = ("ari", "msc", "mbo", "miou", "slots")  # need masks
OF_MODEL = (*SEGMENTATION, "elbo", "order", "matching")
COUNTS = {"stack-fd": 2_000, "sacc-estimate": 1_000, "shapes": 2_000, "kid": 2_000, "fid": 10_000}
COMPARED = {"stack-fd", "kid", "fid", "shapes"}  # with real images, of which they need two
ALL = (*OF_MODEL, *COUNTS)
# How the keys of measurements begin -> the metric that they are of; None: judged by people. In the
# order of tables for reading.
METRIC_OF: dict[str, str | None] = {
    "ari_fg": "ari",
    "msc_fg": "msc",
    "mbo": "mbo",
    "miou": "miou",
    "slots_": "slots",
    "negative_elbo": "elbo",
    "bits_per_dimension": "elbo",
    "term_": "elbo",
    "order_": "order",
    "matching_": "matching",
    "sacc_estimate": "sacc-estimate",
    "sacc": None,
    "plausible": None,
    "stack_fd": "stack-fd",
    "shapes_": "shapes",
    "kid": "kid",
    "fid": "fid",
}
NORMAL_95 = 1.959964
SHUFFLED = {f"{key}_shuffled": key for key in ("order_iou", "order_information")}
BY_EYE = {"sacc", "plausible_by_eye"}  # what people judged
# Metrics of generated scenes alone: the split that the data were opened with plays no part.
WITHOUT_SPLIT = {*BY_EYE, "sacc_estimate", *SHUFFLED, *SHUFFLED.values()}
# Keys of a record and of its `data` without which it is none.
NEEDED = {"metric", "name", "value", "counts", "subject", "data", "seed", "protocol", "warning"}
SAMPLE = ("images", "scenes", "real", "generated")  # counts that make up the size of a sample
DATA_FACTS = {"name", "image_size", "source", "split"}

NUMBER_OR_NONE = (int, float, type(None))  # not bool

Measurement = Record


class Estimate(NamedTuple):
    """A value and its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    how: str | None = None  # the interval


@dataclass(frozen=True)
class Context:
    """What the values of an evaluation share: subject (run or folder), real data, and seed."""

    subject: dict[str, Any]
    data: dict[str, Any] | None
    seed: int

    @property
    def split(self) -> str:
        """The split of the real images."""
        return str((self.data or {})["split"])

    def measurement(
        self,
        metric: str,
        name: str,
        estimate: Estimate,
        *,
        counts: dict[str, int],
        protocol: str,
        slots: int | None = None,
        temperature: float | None = None,
        warning: str | None = None,
    ) -> Measurement:
        """A record; `metric` is its key, `name` what the value may be called in print.

        Lossy images that enter the value are added to `warning`.
        """
        data = {} if metric in WITHOUT_SPLIT else self.data or {}
        warnings = [
            warning,
            lossy_warning("images measured", self.subject.get("lossy")),
            lossy_warning("real images of the split", data.get("lossy")),
        ]
        return {
            "schema": SCHEMA,
            "metric": metric,
            "name": name,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "interval": estimate.how,
            "counts": counts,
            "subject": self.subject,
            "data": self.data,
            "seed": self.seed,
            "slots": slots,
            "temperature": temperature,
            "protocol": protocol,
            "warning": "; ".join(filter(None, warnings)) or None,
            "sri": __version__,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def lossy_warning(what: str, count: int | None) -> str | None:
    """A warning if so many images come from JPEG or other files that lose detail."""
    if not count:
        return None
    return (
        f"{count:,} of the {what} come from JPEG or other lossy files, which can change the value"
        " more than models differ; use PNG"
    )


def run_subject(trained: TrainedRun) -> dict[str, Any]:
    """The checkpoint that is measured."""
    recipe = trained.recipe
    origin = trained.extra.get("opened_from")
    half = {HALF: True} if HALF in trained.extra else {}
    start = trained.extra.get("started_from") or trained.extra.get("imported") or {}
    begun = [start[key] for key in ("data", "step", "file") if key in start]  # alike for all seeds
    return {
        "kind": "run",
        "run": str(trained.run_dir),
        **({"opened_from": origin} if origin else {}),
        "recipe": recipe.name,
        "size": None if recipe.size == "paper" else recipe.size,
        "settings": _settings(trained),
        "training_seed": recipe.train.seed,
        "step": trained.step,
        "checkpoint": checkpoint_path(trained.run_dir, trained.step).name,
        "model": model_digest(trained),
        **({"started_from": begun} if begun else {}),
        **half,
    }


def _settings(trained: TrainedRun) -> str:
    """A hash that runs of one recipe share if they differ in the training seed alone."""
    from sri_cli.config.load import with_old_keys
    from sri_cli.config.schema import NOT_LEARNED

    recipe = with_old_keys(trained.recipe)
    learned = {k: v for k, v in recipe["train"].items() if k not in {*NOT_LEARNED, "seed"}}
    text = json.dumps([recipe["model"], learned], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def model_digest(trained: TrainedRun) -> str:
    """SHA-256 of the recipe's model section and every weight: all that a scene depends on."""
    import torch

    from sri_cli.config.load import with_old_keys

    section = json.dumps(with_old_keys(trained.recipe)["model"], sort_keys=True)
    digest = hashlib.sha256(section.encode())
    for name, value in trained.model.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(-1).view(dtype=torch.uint8).numpy())
    return digest.hexdigest()


def data_facts(data: DataFile, split: str) -> dict[str, Any]:
    """The real images of a comparison."""
    facts = {
        "name": data.name,
        "image_size": data.size,
        "source": data.source,
        "sha256": str(data.attrs["sha256"]),
        "split": split,
    }
    return facts | ({"lossy": lossy} if (lossy := data.num_lossy(split)) else {})


def mean_estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean of the finite values of images, with its normal interval if there are at least two."""
    import numpy as np

    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Estimate(None)
    mean = float(known.mean())
    if len(known) < 2:
        return Estimate(mean)
    reach = NORMAL_95 * float(known.std(ddof=1)) / len(known) ** 0.5
    return Estimate(mean, mean - reach, mean + reach, "95 % normal over images")


def append_records(run_dir: Path, records: Sequence[Measurement]) -> Path:
    """Append lines to the run's metrics.jsonl in one write.

    Raises:
        SriFailure: if that fails, or a value is not finite.
    """
    path = run_dir / MEASUREMENTS
    for record in records:
        if not all(math.isfinite(record[key] or 0.0) for key in ("value", "low", "high")):
            raise SriFailure(f"{record['name']} is not finite and was not recorded")
    lines = "".join(to_json(record) + "\n" for record in records).encode()
    try:
        with open(path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    lines = b"\n" + lines  # a truncated write spoils its own line alone
            file.write(lines)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def read_records(run_dir: Path) -> list[Measurement]:
    """The measurements in a run's metrics.jsonl, oldest first; see `parse_lines`."""
    path = run_dir / MEASUREMENTS
    try:
        return parse_lines(path.read_bytes(), path, is_measurement)
    except FileNotFoundError:
        return []


def is_measurement(record: Measurement) -> bool:
    """Whether it has all that tables and figures rely on, and the schema of this version."""
    if record.get("schema") != SCHEMA or not record.keys() >= NEEDED:
        return False
    subject, data, counts = (record[key] for key in ("subject", "data", "counts"))
    return (
        all(isinstance(record[key], str) for key in ("metric", "name", "protocol"))
        and all(type(record.get(key)) in NUMBER_OR_NONE for key in ("value", "low", "high"))
        and isinstance(subject, dict)
        and all(isinstance(subject.get(key), str) for key in ("kind", "run", "model"))
        and (data is None or (isinstance(data, dict) and data.keys() >= DATA_FACTS))
        and isinstance(counts, dict)
        and all(type(count) is int for count in counts.values())
    )


def recorded(trained: TrainedRun) -> list[Measurement]:
    """The measurements of the checkpoint that is open, oldest first."""
    subject = run_subject(trained)
    own = [m for m in read_records(trained.run_dir) if m["subject"]["model"] == subject["model"]]
    return [{**m, "subject": subject} for m in own]  # the run may have been moved since


def largest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Of each subject, metric, protocol, data file and split what has the largest sample.

    Of equal samples the last counts. It also does where the labels of the same images were changed
    since, and of what people judged: a share is of all answers so far, and more raters may have
    fewer scenes each. `measurements` and the result are in order of measurement.
    """
    best: dict[tuple[Any, ...], Measurement] = {}
    for m in measurements:
        split = None if m["metric"] in WITHOUT_SPLIT else split_of(m)
        how = [m.get(key) for key in ("protocol", "slots", "temperature")]
        key = (identity(m), m["metric"], *how, file_of(m), split)
        before = best.get(key)
        if (
            before is None
            or m["metric"] in BY_EYE
            or len({labels_of(m), labels_of(before)} - {None}) == 2  # known to be others
            or sample_size(m) >= sample_size(before)
        ):
            best.pop(key, None)
            best[key] = m
    return list(best.values())


def labels_of(m: Measurement) -> str | None:
    """The hash of the labels that a segmentation was compared with; None where it is unknown."""
    labels = (m.get("data") or {}).get("labels")
    return labels if isinstance(labels, str) else None


def sample_size(m: Measurement) -> tuple[bool, int]:
    """Whether there is a value, and the number of images that it is of."""
    return m["value"] is not None, sum(m["counts"].get(key, 0) for key in SAMPLE)


def identity(m: Measurement) -> str:
    """What was measured: the weights of a run, whatever its folder; the folder of images."""
    subject = m["subject"]
    return str(subject.get("model") or [subject.get(k) for k in ("run", "checkpoint", "images")])


def metric_of(m: Measurement) -> str | None:
    """The name of ALL by which a value was measured; None for what people judged."""
    return next((name for key, name in METRIC_OF.items() if m["metric"].startswith(key)), None)


def other_features(m: Measurement) -> bool:
    """Whether it is a distance in other features than FID's and KID's."""
    key = m["metric"]
    return key in ("fid", "kid") and not m["name"].startswith(key.upper())


def split_of(m: Measurement) -> str | None:
    """The split of the real images; None without any."""
    return (m.get("data") or {}).get("split")


def file_of(m: Measurement) -> tuple[Any, ...]:
    """What identifies the data file."""
    return tuple((m.get("data") or {}).get(k) for k in ("name", "image_size", "source", "sha256"))
