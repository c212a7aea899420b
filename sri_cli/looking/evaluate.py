"""`sri eval`: measure runs and folders of pictures, keep what was measured, word the tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sri_cli.checkpoints import LoadedModel
from sri_cli.data.store import DataFile
from sri_cli.errors import SriError
from sri_cli.looking.progress import counting
from sri_cli.looking.trained import Trained, open_data, open_run
from sri_cli.metrics.evaluate import (
    DEFAULT_NUM,
    METRICS,
    OF_PICTURES,
    evaluate,
    fitting_split,
    planned,
)
from sri_cli.metrics.extractor import Advance, FeatureExtractor
from sri_cli.metrics.generated import (
    Generated,
    Given,
    Scenes,
    check_count,
    count_of,
    distance_measurement,
    sacc_measurement,
)
from sri_cli.metrics.measured import newest
from sri_cli.metrics.paper_tables import format_paper_tables, paper_tables
from sri_cli.metrics.picture_folder import open_folder
from sri_cli.metrics.record import (
    Context,
    Measurement,
    append_records,
    data_facts,
    read_records,
    run_subject,
)
from sri_cli.metrics.stacks.features import StackFeatures
from sri_cli.metrics.stacks.judge import open_judge
from sri_cli.metrics.table import footnotes, table_rows
from sri_cli.metrics.tabular import aligned
from sri_cli.precision import choose_device
from sri_cli.workspace import Workspace


@dataclass(frozen=True)
class Wanted:
    """What to measure, of how many images (None: what each metric wants), against which."""

    metrics: tuple[str, ...] | None = None  # None: METRICS of runs, fid of pictures
    data: str | None = None
    split: str = "test"
    num: int | None = None
    seed: int = 0
    features: str = "pool3"
    inception_weights: Path | None = None
    offline: bool = False

    def extractor(self, metric: str) -> FeatureExtractor:
        """The features that a distance is taken in; SriError without their weights."""
        device = choose_device()
        if metric == "stack-fd":
            return StackFeatures(device)
        from sri_cli.metrics import inception  # torchvision takes seconds

        if self.features == "random":
            return inception.random_inception(device)
        return inception.open_inception(self.inception_weights, self.offline, device)


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
    only_recorded: bool = False,
) -> Found:
    """Of every run and folder (none named: the latest run).

    `only_recorded`: nothing is measured.
    """
    check_plan(wanted)
    if only_recorded and folders:
        raise SriError("--recorded: of --images nothing is kept", "leave one of the two out")
    named: Sequence[str | None] = runs or [None] * (not folders)
    trained = [open_run(workspace, run, dynamic_slots) for run in named]
    measured: list[Measurement] = []
    if not only_recorded:
        measured = [record for one in trained for record in evaluate_one(workspace, one, wanted)]
    known = [record for one in trained for record in recorded(one)]
    for folder in folders:
        measured += (pictures := evaluate_folder(workspace, folder, wanted))
        known += pictures
    if not known:
        runs_named = " ".join(f"--run {one.loaded.run_dir}" for one in trained)
        raise SriError(
            "nothing has been measured of the newest checkpoint", f"sri eval {runs_named}"
        )
    return Found(newest(known) if only_recorded else measured, known)


def evaluate_one(workspace: Workspace, trained: Trained, wanted: Wanted) -> list[Measurement]:
    """Of one run. What is finished is in its metrics.jsonl before the next part begins."""
    loaded, num = trained.loaded, DEFAULT_NUM if wanted.num is None else wanted.num
    data = open_data(workspace, loaded, wanted.data)
    metrics = METRICS if wanted.metrics is None else wanted.metrics
    own = [name for name in metrics if name in METRICS]
    fitting_split(loaded, data, own, wanted.split)
    # Weights are looked for first: to miss them after an hour of measuring would be a pity.
    todo = [
        _of_pictures(workspace, wanted, data, name, scenes_of(loaded, name, wanted))
        for name in of_pictures(metrics)
    ]
    records: list[Measurement] = []
    if own:
        total = planned(own, num, data.counts[wanted.split])
        with counting("measuring", total) as advance:
            found = evaluate(loaded, data, own, wanted.split, num, wanted.seed, advance=advance)
            for part in found:
                append_records(loaded.run_dir, part)
                records += part
    context = Context(run_subject(loaded), data_facts(data, wanted.split), wanted.seed)
    for measure in todo:
        record = measure(context)
        append_records(loaded.run_dir, [record])
        records.append(record)
    return records


def scenes_of(loaded: LoadedModel, metric: str, wanted: Wanted) -> Scenes:
    """The new scenes that a metric wants of a run."""
    return Scenes(loaded, count_of(metric, wanted.num), wanted.seed, loaded.run_dir / "fid")


def evaluate_folder(workspace: Workspace, folder: Path, wanted: Wanted) -> list[Measurement]:
    """Of pictures that any tool has generated; nothing is written beside them."""
    metrics = ("fid",) if wanted.metrics is None else wanted.metrics
    if wanted.data is None:
        raise SriError(
            f"--images {folder}: which real images are they to be compared with?",
            "name a data file: --data shapestacks, or --data FILE",
        )
    other = [name for name in metrics if name in METRICS]
    if other:
        raise SriError(
            f"--images {folder}: {', '.join(other)} cannot be told from pictures alone",
            f"--metrics {','.join(OF_PICTURES)}",
        )
    pictures = open_folder(folder)
    data = DataFile(workspace.find_data(wanted.data, pictures.size))
    if data.size != pictures.size:
        raise SriError(
            f"the pictures of {folder} are of {pictures.size} px, the images of {data.path} of"
            f" {data.size}",
            f"prepare the data with --size {pictures.size}",
        )
    data.split(wanted.split)
    given = Given(pictures, wanted.num)
    todo = [_of_pictures(workspace, wanted, data, name, given) for name in of_pictures(metrics)]
    facts = data_facts(data, wanted.split)
    context = Context(pictures.subject(given.count), facts, wanted.seed)
    return [measure(context) for measure in todo]


def recorded(trained: Trained) -> list[Measurement]:
    """All that its metrics.jsonl holds of the checkpoint that is open."""
    loaded = trained.loaded
    subject = run_subject(loaded)
    own = [m for m in read_records(loaded.run_dir) if m["subject"]["model"] == subject["model"]]
    return [{**m, "subject": subject} for m in own]  # the run may have been moved since


def check_plan(wanted: Wanted) -> None:
    """SriError for a count that means nothing, or flags that would be passed over."""
    if wanted.num is not None and wanted.num < 1:
        raise SriError(f"--num {wanted.num}: the number of images must be at least 1", "--num 320")
    of_fid = {
        "--features": wanted.features != "pool3",
        "--inception-weights": wanted.inception_weights is not None,
        "--offline": wanted.offline,
    }
    given = [flag for flag, is_given in of_fid.items() if is_given]
    if given and "fid" not in (wanted.metrics or ("fid",)):
        raise SriError(f"{given[0]} is of FID, which is not measured", "add fid to --metrics")


def of_pictures(metrics: Sequence[str]) -> list[str]:
    """The metrics of generated pictures, the longest last."""
    return [name for name in OF_PICTURES if name in metrics]


def _of_pictures(
    workspace: Workspace, wanted: Wanted, data: DataFile, metric: str, generated: Generated
) -> Callable[[Context], Measurement]:
    """What measures `metric`; whatever it needs has been found when this returns."""
    if metric == "sacc-estimate":
        judge = open_judge(choose_device())

        def judged(context: Context) -> Measurement:
            with counting(metric, generated.count) as advance:
                return warned(sacc_measurement(generated, context, data, judge, advance))

        return judged
    check_count(generated.count)
    extractor, real = wanted.extractor(metric), count_of(metric, wanted.num)

    def distance(context: Context) -> Measurement:
        def measure(advance: Advance) -> Measurement:
            return distance_measurement(
                metric.replace("-", "_"),
                generated,
                real,
                context,
                data,
                extractor,
                workspace.data_root / "fid",
                advance,
            )

        total = generated.count + min(real, data.counts[wanted.split])
        with counting(metric, total) as advance:
            return warned(measure(advance))

    return distance


def warned(record: Measurement) -> Measurement:
    """Its warning goes to stderr, too."""
    if record["warning"]:
        print(f"{record['name']}: {record['warning']}", file=sys.stderr)
    return record


def words(records: Sequence[Measurement]) -> str:
    """A table for reading, and under it how it was measured."""
    rows = table_rows(records)
    return "\n".join(
        [_coloured(rows) if sys.stdout.isatty() else aligned(rows), "", *footnotes(records)]
    )


def _coloured(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    console = Console()
    table = Table(box=box.SIMPLE)
    for i, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def tables(records: Sequence[Measurement], style: str) -> str:
    """The paper's tables with these measurements beside the published ones."""
    return format_paper_tables(paper_tables(records), style)
