"""`sri eval`: measure trained runs, and folders of generated images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sri_cli.atomic import check_writable
from sri_cli.console import counting
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, did_you_mean
from sri_cli.generation.sample import check_request
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.image_metrics import ImageMetrics
from sri_cli.metrics.images import CACHE, ImageSource, images_of_run, open_folder
from sri_cli.metrics.model_metrics import (
    SplitTask,
    bound_scores,
    matching_scores,
    order_scores,
    segmentation_scores,
)
from sri_cli.metrics.order import MIN_SCENES
from sri_cli.metrics.records import (
    ALL,
    COMPARED,
    COUNTS,
    METRICS,
    OF_MODEL,
    SEGMENTATION,
    Context,
    Measurement,
    append_records,
    data_facts,
    recorded,
    run_subject,
)
from sri_cli.run import Workspace

DEFAULT_NUM = 320
MAX_ORDER_SCENES = 256  # every pair of them is compared


def parse_metrics(text: str) -> tuple[str, ...]:
    """'ari,elbo' -> names; SriError for unknown ones."""
    return check_metrics([name.strip() for name in text.split(",") if name.strip()])


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once; SriError for unknown ones, or none."""
    names = tuple(dict.fromkeys(names))
    hint = f"--metrics {','.join(ALL)}"
    for name in names:
        if name not in ALL:
            raise SriError(f"unknown metric {name}{did_you_mean(name, ALL)}", hint)
    if not names:
        raise SriError("no metric named", hint)
    return names


def open_runs(
    workspace: Workspace,
    runs: Sequence[str] = (),
    folders: Sequence[Path] = (),
    dynamic_slots: bool = False,
) -> list[TrainedRun]:
    """The named runs; the latest if neither runs nor folders are named."""
    named: Sequence[str | None] = runs or [None] * (not folders)
    return [open_run(workspace, run, dynamic_slots) for run in named]


def evaluate_all(
    workspace: Workspace,
    runs: Sequence[str] = (),
    folders: Sequence[Path] = (),
    metrics: Sequence[str] | None = None,
    *,
    data: str | None = None,
    split: str = "test",
    num: int | None = None,
    seed: int = 0,
    networks: ImageMetrics | None = None,
    dynamic_slots: bool = False,
) -> tuple[list[Measurement], list[Measurement]]:
    """Measure runs (by default the latest) and folders; runs record it in their metrics.jsonl.

    Everything that is missing for any of them is reported before the first is measured.

    Args:
        workspace: Where runs and data are.
        runs: Names of runs.
        folders: Folders of images.
        metrics: Names of ALL, by default METRICS for runs and `fid` for folders.
        data: Name or file of the real images, by default what each run was trained on.
        split: Of the real images.
        num: Number of images, by default DEFAULT_NUM or COUNTS, and all of a folder.
        seed: Seed of posterior samples and new scenes.
        networks: Of the metrics of generated images.
        dynamic_slots: As of `open_run`.

    Returns:
        The new measurements, and all known of the same checkpoints and folders.

    Raises:
        SriError: for runs, data, weights or numbers that are missing or do not fit.
    """
    check_request(1 if num is None else num, 1, 1.0, seed)
    networks = networks or ImageMetrics(workspace)
    of_runs, of_folders = metrics or METRICS, metrics or ("fid",)
    trained = open_runs(workspace, runs, folders, dynamic_slots)
    for one in trained:
        check_run(one, one.open_data(data), of_runs, split, num)
    opened = [
        open_images(workspace, folder, of_folders, data, split, num, seed) for folder in folders
    ]
    open_networks(networks, of_folders if folders else of_runs)
    measured = [
        record
        for one in trained
        for record in evaluate_run(one, of_runs, data, split, num, seed, networks)
    ]
    images = [
        record
        for source, file, context in opened
        for name in COUNTS
        if name in of_folders
        for record in networks.measure(name, source, file, context, num)
    ]
    known = [record for one in trained for record in recorded(one)]
    return measured + images, known + images


def evaluate_run(
    trained: TrainedRun,
    metrics: Sequence[str] = METRICS,
    data: str | None = None,
    split: str = "test",
    num: int | None = None,
    seed: int = 0,
    networks: ImageMetrics | None = None,
) -> list[Measurement]:
    """Measure a run; each part is in its metrics.jsonl before the next begins.

    Arguments and errors as of `evaluate_all`.
    """
    check_request(1 if num is None else num, 1, 1.0, seed)
    file = trained.open_data(data)
    check_run(trained, file, metrics, split, num)
    networks = networks or ImageMetrics(trained.workspace)
    open_networks(networks, metrics)
    context = Context(run_subject(trained), data_facts(file, split), seed)
    count = DEFAULT_NUM if num is None else num
    scenes = min(max(count, MIN_SCENES), MAX_ORDER_SCENES)
    segmentation = not set(SEGMENTATION).isdisjoint(metrics)
    elbo, order, matching = (name in metrics for name in ("elbo", "order", "matching"))
    images = (segmentation + elbo + matching) * min(count, file.counts[split]) + order * scenes
    records: list[Measurement] = []

    def record(part: list[Measurement]) -> None:
        append_records(trained.run_dir, part)
        records.extend(part)

    with counting("measuring", images) as advance:
        task = SplitTask(trained, file, split, count, seed, advance)
        if segmentation:
            record(segmentation_scores(task, context, metrics))
        if elbo:
            record(bound_scores(task, context))
        if matching:
            record(matching_scores(task, context))
        if order:
            record(order_scores(trained, context, scenes, advance))
    counts = {name: num or number for name, number in COUNTS.items() if name in metrics}
    if counts:
        generated = images_of_run(trained, max(counts.values()), seed)
    for name, number in counts.items():
        record(networks.measure(name, replace(generated, count=number), file, context, num))
    return records


def check_run(
    trained: TrainedRun, data: DataFile, metrics: Sequence[str], split: str, num: int | None
) -> None:
    """SriError unless the split fits the model, and has the masks and counts that metrics need.

    SriFailure unless the run's folder takes what is measured.
    """
    check_writable(trained.run_dir, "copy the run to a folder of yours, and name it with --run")
    if "matching" in metrics:
        check_matches(trained)
    data.check_size(trained.recipe.model.image_size)
    if not data.split(split).has_masks and not set(SEGMENTATION).isdisjoint(metrics):
        other = f"; or --split {data.masked[-1]}, which has some" if data.masked else ""
        raise SriError(
            f"{data.name}: the {split} split has no masks to compare with",
            f"--metrics elbo,order{other}",
        )
    if COMPARED & set(metrics):
        check_counts(data, split, 2 if num is None else num)


def check_counts(data: DataFile, split: str, generated: int, hint: str = "--num 10000") -> None:
    """SriError for fewer real or generated images than have a distance."""
    if data.counts[split] < 2:
        raise SriError(
            f"{data.name}: {data.counts[split]} {split} image, but a distance needs 2 or more",
            "name another --split, or other data with --data",
        )
    if generated < 2:
        raise SriError(f"{generated} generated image: a distance needs 2 or more", hint)


def open_networks(networks: ImageMetrics, metrics: Sequence[str]) -> None:
    """Open those that metrics need: SriError for missing weights, before anything is measured."""
    for name in COUNTS:
        if name in metrics:
            networks.network(name)


def check_matches(trained: TrainedRun) -> None:
    """SriError unless the model matches its slots to the slot prior."""
    if not trained.model.matches:
        raise SriError(
            f"{trained.run_dir.name}: {trained.recipe.name} matches no slots",
            "name a run of SRI whose slots are aligned to the slot prior",
        )


def open_images(
    workspace: Workspace,
    folder: Path,
    metrics: Sequence[str],
    data: str | None,
    split: str,
    num: int | None,
    seed: int,
) -> tuple[ImageSource, DataFile, Context]:
    """The images of a folder with the real ones to compare them with.

    Raises:
        SriError: for metrics that need a model, and images that are unusable, too few or not of
            the real ones' size; every image is read.
    """
    of_model = [metric for metric in metrics if metric in OF_MODEL]
    if of_model:
        raise SriError(
            f"--images {folder}: {', '.join(of_model)} cannot be measured on images alone",
            f"--metrics {','.join(COUNTS)}",
        )
    images = open_folder(folder)
    if data is None:
        raise SriError(
            f"--images {folder} needs real images to compare with",
            "name a data file: --data shapestacks, or --data FILE",
        )
    file = DataFile(workspace.find_data(data, images.size))
    if file.size != images.size:
        raise SriError(
            f"the images of {folder} are of {images.size} px, those of {file.path} of {file.size}",
            f"prepare the data with --size {images.size}",
        )
    file.split(split)
    there = images.count
    images = replace(images, count=min(num or there, there))
    if COMPARED & set(metrics):
        hint = "leave out --num" if there > 1 else "name a folder of more images"
        check_counts(file, split, images.count, hint)
    digest, count = images.sha256(), images.count
    subject = {"kind": "images", "images": str(folder), "count": count, "sha256": digest}
    cache = workspace.data_root / CACHE / f"images_{digest[:16]}"
    images = replace(images, cache=(cache, {"images": digest, "count": count}))
    if images.num_lossy:
        subject["lossy"] = images.num_lossy
    return images, file, Context(subject, data_facts(file, split), seed)


def show_recorded(workspace: Workspace, runs: Sequence[str] = ()) -> list[Measurement]:
    """What is recorded of the newest checkpoints of runs (by default the latest), oldest first.

    Nothing is measured or written. SriError if nothing is recorded.
    """
    trained = open_runs(workspace, runs)
    known = [record for one in trained for record in recorded(one)]
    if not known:
        of = "; ".join(f"{one.run_dir}, step {one.step:,}" for one in trained)
        raise SriError(f"nothing has been measured of {of}", f"--metrics {','.join(METRICS)}")
    return known
