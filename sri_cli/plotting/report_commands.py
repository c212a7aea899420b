"""The commands that make again what a report shows, as far as the runs and their data tell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sri_cli.data.dataset import DataFile
from sri_cli.data.mending import number_words, what_words
from sri_cli.errors import SriError
from sri_cli.metrics.evaluate import ALL
from sri_cli.metrics.records import Measurement
from sri_cli.plotting.report_runs import Subject
from sri_cli.run import Workspace

COMMAND = "command.txt"
# How the keys of measurements begin -> the word of `sri eval --metrics` that asks for them.
ASKED = {
    "ari_fg": "ari",
    "msc_fg": "msc",
    "negative_elbo": "elbo",
    "bits_per_dimension": "elbo",
    "term_": "elbo",
    "order_": "order",
    "stack_fd": "stack-fd",
    "sacc_estimate": "sacc-estimate",
    "fid": "fid",
}
COUNTED = ("images", "scenes", "generated")  # counts that --num asked for


def repeat_commands(workspace: Workspace, found: Sequence[Subject]) -> list[str]:
    """Lines for a shell; what is not known is said behind a #."""
    sri = " ".join(_sri(workspace))
    lines = list(dict.fromkeys(_prepare(workspace, one, sri) for one in found))
    for one in found:
        lines += ["", f"# {one.name}", *_train(one)]
        run = f"--run {_run_word(workspace, one)}"
        lines += [f"{sri} {verb} {run}" for verb in ("sample", "order", "reconstruct")]
        lines += [f"{sri} {words}" for words in eval_words(one.measured, run)]
        if any(record["metric"] == "sacc" for record in one.measured):
            lines.append(f"{sri} label-sacc {run}")
    runs = " ".join(f"--run {_run_word(workspace, one)}" for one in found)
    return [*lines, "", f"{sri} report {runs}"]


def eval_words(records: Iterable[Measurement], run: str) -> list[str]:
    """`eval --run RUN --metrics ...` for all that was measured alike."""
    asked: dict[str, set[str]] = {}
    for record in records:
        metric = next((word for key, word in ASKED.items() if record["metric"].startswith(key)), "")
        if metric:
            asked.setdefault(_how(record), set()).add(metric)
    return [
        f"eval {run} --metrics {','.join(metric for metric in ALL if metric in metrics)}{how}"
        for how, metrics in asked.items()
    ]


def _how(record: Measurement) -> str:
    """The flags of one evaluation."""
    counts = [record["counts"][name] for name in COUNTED if name in record["counts"]]
    split = (record.get("data") or {}).get("split", "test")
    return "".join(
        [
            f" --num {counts[0]}" if counts else "",
            "" if split == "test" else f" --split {split}",
            f" --seed {record['seed']}" if record["seed"] else "",
            " --features random" if record["name"].startswith("FD-random") else "",
        ]
    )


def _sri(workspace: Workspace) -> Iterator[str]:
    """The program, and where it works if that is not the usual place."""
    yield "sri"
    usual = {"data": workspace.data_root, "runs": workspace.runs_root}
    for name, folder in usual.items():
        if folder != Path(name):
            yield f"--{name}-root {shlex.quote(str(folder))}"


def _prepare(workspace: Workspace, one: Subject, sri: str) -> str:
    if isinstance(one.data, SriError):
        return f"# {one.data.message}" + (f"; {one.data.hint}" if one.data.hint else "")
    words = prepare_words(workspace, one.data)
    return f"{sri} {words}" if words else f"# {one.data.path}: by a command that is not known"


def prepare_words(workspace: Workspace, data: DataFile) -> str | None:
    """The command that made the file, as far as its header tells; DIR and FILE stand for paths."""
    parameters = data.attrs["parameters"]
    words = what_words(data.name, data.source, parameters)
    if words is None:
        return None
    usual, path = workspace.data_path(data.name, data.size), data.path
    if path.resolve().parent == usual.parent.resolve():
        path = usual.with_name(path.name)  # however it was found: the command is for any machine
    place = [] if path == usual else ["--out", shlex.quote(str(path))]
    return " ".join(["prepare", words, f"--size {data.size}", *number_words(parameters), *place])


def _train(one: Subject) -> list[str]:
    """As it was typed, in the folder where it was."""
    try:
        text = (one.run_dir / COMMAND).read_text("utf-8", "replace")
    except OSError:
        return [f"# {COMMAND} is missing: how it was trained is not known"]
    return text.splitlines() or [f"# {COMMAND} is empty: how it was trained is not known"]


def _run_word(workspace: Workspace, one: Subject) -> str:
    """The run as --run takes it: by its name if that means it."""
    named = workspace.runs_root / one.run_dir.name
    same = one.run_dir.name and named.resolve() == one.run_dir.resolve()
    return shlex.quote(one.run_dir.name if same else str(one.run_dir))
