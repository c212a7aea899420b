"""`sri eval`: measure runs and folders of pictures, keep what was measured of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sri_cli.console import counting
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import (
    DEFAULT_NUM,
    METRICS,
    OF_PICTURES,
    evaluate,
    fitting_split,
    planned,
)
from sri_cli.metrics.generated import Given, Scenes, count_of
from sri_cli.metrics.measured import newest
from sri_cli.metrics.picture_folder import PictureFolder, open_folder
from sri_cli.metrics.picture_metrics import PictureMetrics, Wanted, of_pictures
from sri_cli.metrics.records import (
    Context,
    Measurement,
    append_records,
    data_facts,
    read_records,
    run_subject,
)
from sri_cli.run import Workspace

CACHE = "fid"  # folder of a data root or a run

Plan = Callable[[], list[Measurement]]


class Found(NamedTuple):
    """What was measured now, and with it all that is known of the same checkpoints."""

    measured: list[Measurement]
    known: list[Measurement]


def evaluate_all(
    workspace: Workspace,
    runs: Sequence[str],
    folders: Sequence[Path],
    wanted: Wanted,
    dynamic_slots: bool = False,
) -> Found:
    """Of every run and folder (none named: the latest run).

    Whatever is missing for any of them is told before the first is measured.
    """
    trained = open_runs(workspace, runs, folders, dynamic_slots)
    check_flags(wanted, bool(folders))
    pictures = PictureMetrics(wanted, workspace.data_root / CACHE)
    of_runs = [plan_run(workspace, one, wanted, pictures) for one in trained]
    of_folders = [plan_folder(workspace, folder, wanted, pictures) for folder in folders]
    measured = [record for plan in of_runs for record in plan()]
    given = [record for plan in of_folders for record in plan()]
    known = [record for one in trained for record in recorded(one)]
    return Found(measured + given, known + given)


def show_recorded(
    workspace: Workspace, runs: Sequence[str], folders: Sequence[Path], wanted: Wanted
) -> Found:
    """Nothing is measured. SriError when nothing was, or for a flag that says how to measure."""
    if folders:
        raise SriError("--recorded: of --images nothing is kept", "leave one of the two out")
    if wanted != Wanted():
        raise SriError(
            "--recorded shows all that was measured, however it was",
            "beside it goes nothing but --run, --table and --json",
        )
    trained = open_runs(workspace, runs)
    known = [record for one in trained for record in recorded(one)]
    if not known:
        named = " ".join(f"--run {one.run_dir}" for one in trained)
        raise SriError("nothing has been measured of the newest checkpoint", f"sri eval {named}")
    return Found(newest(known), known)


def evaluate_one(workspace: Workspace, trained: TrainedRun, wanted: Wanted) -> list[Measurement]:
    """Of one run. What is finished is in its metrics.jsonl before the next part begins."""
    pictures = PictureMetrics(wanted, workspace.data_root / CACHE)
    return plan_run(workspace, trained, wanted, pictures)()


def open_runs(
    workspace: Workspace,
    runs: Sequence[str],
    folders: Sequence[Path] = (),
    dynamic_slots: bool = False,
) -> list[TrainedRun]:
    """The latest when nothing is named."""
    named: Sequence[str | None] = runs or [None] * (not folders)
    return [open_run(workspace, run, dynamic_slots) for run in named]


def plan_run(
    workspace: Workspace, trained: TrainedRun, wanted: Wanted, pictures: PictureMetrics
) -> Plan:
    """SriError for data or weights that are missing or do not fit."""
    loaded, num = trained, DEFAULT_NUM if wanted.num is None else wanted.num
    data = loaded.open_data(wanted.data)
    metrics = METRICS if wanted.metrics is None else wanted.metrics
    own = [name for name in metrics if name in METRICS]
    fitting_split(loaded, data, own, wanted.split)
    cache = loaded.run_dir / CACHE
    todo = [
        pictures.plan(name, Scenes(loaded, count_of(name, wanted.num), wanted.seed, cache), data)
        for name in of_pictures(metrics)
    ]

    def measure() -> list[Measurement]:
        records: list[Measurement] = []

        def keep(part: list[Measurement]) -> None:
            append_records(loaded.run_dir, part)
            records.extend(part)

        if own:
            with counting("measuring", planned(own, num, data.counts[wanted.split])) as advance:
                for part in evaluate(
                    loaded, data, own, wanted.split, num, wanted.seed, advance=advance
                ):
                    keep(part)
        context = Context(run_subject(loaded), data_facts(data, wanted.split), wanted.seed)
        for metric in todo:
            keep([metric(context)])
        return records

    return measure


def plan_folder(
    workspace: Workspace, folder: Path, wanted: Wanted, pictures: PictureMetrics
) -> Plan:
    """Of pictures that any tool has generated; nothing is written beside them.

    SriError for pictures that cannot be read or do not fit the data: all are looked at.
    """
    metrics = ("fid",) if wanted.metrics is None else wanted.metrics
    other = [name for name in metrics if name in METRICS]
    if other:
        raise SriError(
            f"--images {folder}: {', '.join(other)} cannot be told from pictures alone",
            f"--metrics {','.join(OF_PICTURES)}",
        )
    found = open_folder(folder)
    data = fitting_data(workspace, found, wanted.data)
    data.split(wanted.split)
    given = Given(found, wanted.num)
    todo = [pictures.plan(name, given, data) for name in of_pictures(metrics)]
    context = Context(found.subject(given.count), data_facts(data, wanted.split), wanted.seed)
    return lambda: [measure(context) for measure in todo]


def fitting_data(workspace: Workspace, pictures: PictureFolder, named: str | None) -> DataFile:
    """The data file that pictures are compared with; SriError unless it is of their size."""
    folder, size = pictures.folder, pictures.size
    if named is None:
        raise SriError(
            f"--images {folder}: which real images are they to be compared with?",
            "name a data file: --data shapestacks, or --data FILE",
        )
    data = DataFile(workspace.find_data(named, size))
    if data.size != size:
        raise SriError(
            f"the pictures of {folder} are of {size} px, the images of {data.path} of {data.size}",
            f"prepare the data with --size {size}",
        )
    return data


def recorded(trained: TrainedRun) -> list[Measurement]:
    """All that its metrics.jsonl holds of the checkpoint that is open."""
    loaded = trained
    subject = run_subject(loaded)
    own = [m for m in read_records(loaded.run_dir) if m["subject"]["model"] == subject["model"]]
    return [{**m, "subject": subject} for m in own]  # the run may have been moved since


def check_flags(wanted: Wanted, folders: bool) -> None:
    """SriError for a count that means nothing, or flags that would be passed over."""
    if wanted.num is not None and wanted.num < 1:
        raise SriError(f"--num {wanted.num}: the number of images must be at least 1", "--num 320")
    of_fid = {
        "--features": wanted.features != "pool3",
        "--inception-weights": wanted.inception_weights is not None,
        "--offline": wanted.offline,
    }
    given = [flag for flag, is_given in of_fid.items() if is_given]
    fid = folders if wanted.metrics is None else "fid" in wanted.metrics
    if given and not fid:
        raise SriError(f"{given[0]} is of FID, which is not measured", "add fid to --metrics")
