"""`sri bench quality`: minutes of training until the samples of a run are good.

The time is that of training alone, from the rates in the run's log; measuring comes afterwards, on
the checkpoints that were kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sri_cli.checkpoint import BrokenCheckpoint, checkpoints_in, verify
from sri_cli.console import format_table, warn
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import evaluate_run
from sri_cli.metrics.image_metrics import ImageMetrics
from sri_cli.metrics.records import (
    COUNTS,
    WITHOUT_SPLIT,
    Measurement,
    recorded,
    sample_size,
    split_of,
)
from sri_cli.run import Workspace
from sri_cli.training.log import read_log, train_seconds

MEASURES = {"sacc_estimate": "sacc-estimate", "stack_fd": "stack-fd"}


def bench_quality(
    workspace: Workspace, run: str | None, sacc: float, stack_fd: float
) -> dict[str, Any]:
    """Measure every checkpoint of a run that was not measured yet.

    Args:
        workspace: Where runs and data are.
        run: A run on towers; None: the latest.
        sacc: The S-Acc estimate to reach, a share in [0,1].
        stack_fd: The stack-FD to fall below.

    Returns:
        A JSON object: the `checkpoints`, and in `reached` for each measure the first of them that
        passes, or null; `minutes` is the training time up to a checkpoint.

    Raises:
        SriError: no such run, it has no log, or its data are other images now.
    """
    ref = workspace.find_run(run)
    networks = ImageMetrics(workspace)
    log = [record for record in read_log(ref.run_dir) if record.get("images_per_second")]
    if not log:
        raise SriError(f"{ref.run_dir} has no log, which has the times", "name a run of sri train")
    rows: list[dict[str, Any]] = []
    trained: TrainedRun | None = None
    for path in checkpoints_in(ref.run_dir):
        try:
            verify(path)
        except BrokenCheckpoint as error:
            warn(f"Note: {error.message}; left out")
            continue
        trained = open_run(workspace, str(path))
        images = trained.extra.get("data", {}).get("content", "")
        known = recorded(trained)
        missing = [name for key, name in MEASURES.items() if value_of(known, key, images) is None]
        if missing:
            file = trained.open_data()
            if not str(file.attrs["sha256"]).startswith(images):
                raise SriError(
                    f"{file.path} has other images than {ref.run_dir} was trained on",
                    "prepare the data of the run again",
                )
            known += evaluate_run(trained, missing, networks=networks)
        minutes = train_seconds(log, trained.recipe.train.batch, trained.step) / 60
        values = {key: value_of(known, key, images) for key in MEASURES}
        rows.append({"step": trained.step, "minutes": minutes, **values})
    if trained is None:
        raise SriError(f"{ref.run_dir} has no intact checkpoint", "name another run")
    reached = {
        "sacc_estimate": next((row for row in rows if row["sacc_estimate"] >= sacc), None),
        "stack_fd": next((row for row in rows if row["stack_fd"] < stack_fd), None),
    }
    goals = {"sacc_estimate": sacc, "stack_fd": stack_fd}
    return {
        "run": str(ref.run_dir),
        "started_from": trained.extra.get("started_from"),  # whose training time is not known
        "goals": goals,
        "reached": reached,
        "checkpoints": rows,
    }


def value_of(measurements: Iterable[Measurement], metric: str, images: str) -> float | None:
    """The value of the largest sample that `sri eval` takes by default, or of a larger one.

    Of fewer images, of another split or drawn otherwise it would not compare with the others, nor
    if it were of other images than those whose hash begins with `images`.
    """
    usual = [
        m
        for m in measurements
        if m["metric"] == metric
        and m["counts"].get("generated", 0) >= COUNTS[MEASURES[metric]]
        and (
            metric in WITHOUT_SPLIT
            or (split_of(m) == "test" and str((m["data"] or {}).get("sha256")).startswith(images))
        )
        and (m["seed"], m.get("temperature")) == (0, 1.0)
    ]
    # Of equal samples the last counts.
    return max(reversed(usual), key=sample_size)["value"] if usual else None


def quality_text(result: dict[str, Any]) -> str:
    """The result of `bench_quality` for people."""
    rows = [
        [
            f"{row['step']:,}",
            f"{row['minutes']:.0f}",
            f"{row['sacc_estimate']:.1%}",
            f"{row['stack_fd']:.0f}",
        ]
        for row in result["checkpoints"]
    ]
    lines = [format_table(["step", "minutes", "S-Acc estimate", "stack-FD"], rows, left=0)]
    goals = {
        "sacc_estimate": f"S-Acc estimate of {result['goals']['sacc_estimate']:.0%}",
        "stack_fd": f"stack-FD below {result['goals']['stack_fd']:g}",
    }
    for key, goal in goals.items():
        row = result["reached"][key]
        when = f"after {row['minutes']:.0f} minutes, at step {row['step']:,}" if row else "not yet"
        lines.append(f"{goal}: {when}")
    if result["started_from"]:
        lines.append("The run started from other weights, whose training is not counted.")
    return "\n".join(lines)
