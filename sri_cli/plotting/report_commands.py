"""The commands that make again what a report shows, as far as the runs and their data tell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from sri_cli.checkpoint import checkpoints_in
from sri_cli.data.dataset import DataFile, prepare_arguments
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.records import ALL, SEGMENTATION, Measurement, metric_of
from sri_cli.run import COMMANDS, Workspace, run_argument
from sri_cli.training.run_folder import read_commands

NUM_COUNTS = ("images", "scenes", "generated")  # counts that --num sets


def repeat_commands(
    workspace: Workspace, runs: Sequence[tuple[TrainedRun, Sequence[Measurement]]]
) -> list[str]:
    """Lines for a shell that make the runs, their figures and measurements, and the report.

    What is unknown is a comment.
    """
    sri = "sri"
    for option, root in (("data", workspace.data_root), ("runs", workspace.runs_root)):
        if root != Path(option):
            sri += f" --{option}-root {shlex.quote(str(root))}"
    lines = list(dict.fromkeys(_prepare(workspace, trained, sri) for trained, _ in runs))
    for trained, measured in runs:
        run = _run_option(workspace, trained)
        unknown = [f"# no {COMMANDS}: the command that trained it is unknown"]
        lines += ["", f"# {trained.run_dir.name}", *(read_commands(trained.run_dir) or unknown)]
        verbs = ("sample", "order", "figure reconstructions")
        lines += [f"{sri} {verb} {run}" for verb in verbs]
        content = trained.extra.get("data", {}).get("content", "")
        own = eval_words(measured, run, trained.data_name, content)
        lines += [f"{sri} {words}" for words in own]
        if any(record["metric"] in ("sacc", "plausible_by_eye") for record in measured):
            lines.append(f"{sri} label-sacc {run}")
    options = " ".join(_run_option(workspace, trained) for trained, _ in runs)
    return [*lines, "", f"{sri} report {options}"]


def eval_words(
    records: Iterable[Measurement], run: str, own_data: str, content: str = ""
) -> list[str]:
    """`eval --run RUN --metrics ...` for all values that were measured with the same options.

    `own_data`: the name of the data set that is measured without --data; `content`: what its
    SHA-256 begins with. Another file of that name needs --data, too.
    """
    metrics: dict[str, set[str]] = {}
    for record in records:
        several = record["metric"].endswith("_several")  # measured with the others, of fewer images
        if (metric := metric_of(record)) and not several:
            counts = [record["counts"][key] for key in NUM_COUNTS if key in record["counts"]]
            data = record.get("data") or {}
            split, name = data.get("split", "test"), data.get("name", own_data)
            options = f" --num {counts[0]}" if counts else ""
            same = name == own_data and (data.get("sha256") or content).startswith(content)
            options += "" if same else f" --data {shlex.quote(name)}"
            options += "" if split == "test" else f" --split {split}"
            by_model = metric in (*SEGMENTATION, "elbo", "matching")
            options += " --dynamic-slots" * (by_model and record["slots"] is None)
            options += f" --seed {record['seed']}" if record["seed"] else ""
            options += (
                " --features random"
                if record["name"].startswith(("FD-random", "KD-random"))
                else ""
            )
            metrics.setdefault(options, set()).add(metric)
    return [
        f"eval {run} --metrics {','.join(name for name in ALL if name in names)}{options}"
        for options, names in metrics.items()
    ]


def prepare_words(workspace: Workspace, data: DataFile) -> str | None:
    """The command that made the file, as far as its header tells; DIR and FILE stand for paths."""
    arguments = prepare_arguments(data.attrs)
    if arguments is None:
        return None
    usual, path = workspace.data_path(data.name, data.size), data.path
    if path.resolve().parent == usual.parent.resolve():
        path = usual.with_name(path.name)  # however it was found: the command is for any machine
    out = [] if path == usual else ["--out", shlex.quote(str(path))]
    return " ".join(["prepare", arguments, *out])


def _prepare(workspace: Workspace, trained: TrainedRun, sri: str) -> str:
    try:
        data = trained.open_data()
    except SriError as error:
        return "; ".join(filter(None, [f"# {error.message}", error.hint]))
    words = prepare_words(workspace, data)
    return f"{sri} {words}" if words else f"# {data.path}: the command that made it is unknown"


def is_newest(trained: TrainedRun) -> bool:
    """Whether the checkpoint is the last one of its run."""
    return checkpoints_in(trained.run_dir)[-1:] == [trained.checkpoint]


def _run_option(workspace: Workspace, trained: TrainedRun) -> str:
    """--run with the name of the run, or with its path where the name means another.

    With that of the checkpoint if it is not the newest, which the name stands for.
    """
    path = trained.run_dir
    if not is_newest(trained):
        return f"--run {shlex.quote(str(trained.checkpoint))}"
    same = path.name and (workspace.runs_root / path.name).resolve() == path.resolve()
    return f"--run {shlex.quote(path.name if same else run_argument(path))}"
