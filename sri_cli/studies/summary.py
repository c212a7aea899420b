"""The results of a study: verdicts on its claims, a table, a small JSON summary, two figures."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.console import counted, print_line, warn
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.tables import DOUBTFUL, NAMED, estimate, mark, rounded, value_name
from sri_cli.metrics.tabular import Table, format_tables
from sri_cli.plotting.from_runs import Options, figure_of_runs
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json
from sri_cli.studies.protocol import (
    MEASURES,
    SUMMARY_FILE,
    Measure,
    Protocol,
    Study,
    StudyRun,
    data_facts,
    grid_titles,
    value_text,
)
from sri_cli.studies.status import VALUE_KEYS, RunStatus

SUFFIXES = {"text": "txt", "markdown": "md", "latex": "tex"}
FIGURES = {"samples": 12, "order": 2}  # scenes of each system
PROTOCOL_KEYS = ("name", "counts", "protocol", "warning")  # the same for all runs, stored once
CONFIRMED, REFUTED = "confirmed", "refuted"
UNDECIDED, IN_FAVOUR = "undecided", "undecided, in favour"

VERDICTS = {
    "separation": "confirmed: the mean is better, and every seed of the one is better than every"
    " seed of the other; undecided, in favour: only the mean is; refuted: the mean is worse",
    "paired": "confirmed: the 95 % interval of the difference by seed is in favour; undecided, in"
    " favour: only its mean is; refuted: the interval is against",
}

Values = Mapping[tuple[str, int], float | None]  # (system, seed) -> value, if it is measured


@dataclass(frozen=True)
class Paired:
    """The differences of two systems by seed: initial weights, batches and noise are shared.

    differences: the first system minus the second, of each seed (None: not measured); mean: their
    mean, with its 95 % interval by Student's t (None for one seed); in_favour: seeds for which the
    first is better, of `seeds` that are measured.
    """

    differences: list[float | None]
    mean: float
    low: float | None
    high: float | None
    in_favour: int
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """The claim that `better` is better than `than` by `measure`, and both systems' values."""

    better: str
    than: str
    measure: str
    verdict: str
    values: tuple[list[float | None], list[float | None]]
    paired: Paired | None = None


def judge(protocol: Protocol, measured: Mapping[str, Values]) -> list[Verdict]:
    """The verdict on every claim by each of its measures; `measured`: measure -> values."""
    verdicts = []
    for better, than, measure in protocol.comparisons():
        ours, theirs = (
            [measured[measure].get((system, seed)) for seed in protocol.seeds]
            for system in (better, than)
        )
        lower = MEASURES[measure].lower_is_better
        paired = paired_differences(ours, theirs, lower)
        verdict = compare(ours, theirs, lower)
        if protocol.test == "paired" and paired and paired.seeds == len(ours):
            verdict = compare_paired(paired, lower)
        verdicts.append(Verdict(better, than, measure, verdict, (ours, theirs), paired))
    return verdicts


def compare(
    ours: Sequence[float | None], theirs: Sequence[float | None], lower_is_better: bool
) -> str:
    """By VERDICTS["separation"]; equal means are undecided, and a missing value (None) is open."""
    sign = -1 if lower_is_better else 1
    known = [[sign * value for value in side if value is not None] for side in (ours, theirs)]
    if len(known[0]) < len(ours) or len(known[1]) < len(theirs):
        return f"open: {min(map(len, known))} of {len(ours)} seeds"
    if mean(known[0]) < mean(known[1]):
        return REFUTED
    if mean(known[0]) == mean(known[1]):
        return UNDECIDED
    return CONFIRMED if min(known[0]) > max(known[1]) else IN_FAVOUR


def paired_differences(
    ours: Sequence[float | None], theirs: Sequence[float | None], lower_is_better: bool
) -> Paired | None:
    """Ours minus theirs, seed by seed; None if no seed of both is measured."""
    differences = [
        None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)
    ]
    known = [one for one in differences if one is not None]
    if not known:
        return None
    low = high = None
    if len(known) > 1:
        from scipy.special import stdtrit  # quantile of Student's t

        quantile = float(stdtrit(len(known) - 1, 0.975))
        half = quantile * stdev(known) / math.sqrt(len(known))
        low, high = mean(known) - half, mean(known) + half
    in_favour = sum(one < 0 if lower_is_better else one > 0 for one in known)
    return Paired(differences, mean(known), low, high, in_favour, len(known))


def compare_paired(paired: Paired, lower_is_better: bool) -> str:
    """By VERDICTS["paired"]; undecided: it holds 0, and its mean is not in favour."""
    sign = -1 if lower_is_better else 1
    ends = [sign * end for end in (paired.low, paired.high) if end is not None]
    if ends and min(ends) > 0:
        return CONFIRMED
    if ends and max(ends) < 0:
        return REFUTED
    return IN_FAVOUR if sign * paired.mean > 0 else UNDECIDED


def values_of(study: Study, statuses: Sequence[RunStatus]) -> dict[str, Values]:
    """Each measure's value for every run that has one."""
    return {
        name: {
            (one.run.system, one.run.seed): one.measured[measure.key]["value"]
            for one in statuses
            if measure.key in one.measured
        }
        for name, measure in study.protocol.measures().items()
    }


def write_results(
    workspace: Workspace,
    study: Study,
    statuses: Sequence[RunStatus],
    data: DataFile,
    folder: Path,
    style: str,
) -> tuple[str, dict[str, Any]]:
    """Write table, summary and figures to `folder`; text for people and the summary.

    A table in markdown or LaTeX is alone in the text, so that it can be piped into a document.
    """
    tables = [result_table(study, statuses, data.caption)]
    if study.protocol.claims:
        tables.append(claim_table(study, statuses))
    text = format_tables(tables, style)
    write_atomic(folder / f"table.{SUFFIXES[style]}", f"{text}\n".encode())
    path, summary = write_summary(study, statuses, data, folder)
    figures = draw_figures(workspace, study, statuses, folder)
    files = "\n".join([*(f"figure: {figure}" for figure in figures), f"summary: {path}"])
    if style != "text":
        print_line(files)
        return text, summary
    return f"{text}\n\n{files}", summary


def write_summary(
    study: Study, statuses: Sequence[RunStatus], data: DataFile, folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Write all that is worth keeping without the weights as JSON; the file and its content."""
    protocol, values = study.protocol, values_of(study, statuses)
    how = {
        key: {k: m[k] for k in PROTOCOL_KEYS} for one in statuses for key, m in one.measured.items()
    }
    summary = {
        "study": protocol.name,
        "protocol_sha256": study.digest(),
        "sri": __version__,
        "python": platform.python_version(),
        "data": data_facts(study, data),
        "steps": protocol.steps,
        "batch": protocol.batch,
        "seeds": protocol.seeds,
        "split": protocol.split,
        "systems": {
            name: {"recipe": study.sources[point.system]}
            | ({"point": point.values} if protocol.grid else {})
            | {"recipe_sha256": study.recipe_digest(name)}
            for name, point in protocol.points().items()
        },
        "test": protocol.test,
        "runs": [_run_summary(one, how) | _origin(study, one.run) for one in statuses],
        "how": how,
        "values": {
            measure: {
                system: [by_run.get((system, seed)) for seed in protocol.seeds]
                for system in protocol.points()
            }
            for measure, by_run in values.items()
        },
        "claims": [asdict(one) for one in judge(protocol, values)],
    }
    path = folder / SUMMARY_FILE
    write_atomic(path, f"{to_json(summary, indent=1)}\n".encode())
    return path, summary


def _run_summary(status: RunStatus, how: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One run; of its measurements only what differs from `how`, the protocol of all."""
    metrics = {}
    for key, m in status.measured.items():
        others = {k: m[k] for k in PROTOCOL_KEYS if m[k] != how[key][k]}
        metrics[key] = {k: m[k] for k in VALUE_KEYS if m[k] is not None} | others
    return {
        "system": status.run.system,
        "seed": status.run.seed,
        "step": status.step,
        "train_seconds": round(status.seconds, 1),
        "diverged": status.diverged,
        "machine": status.machine,
        "model": next((m["subject"]["model"] for m in status.measured.values()), None),
        "metrics": metrics,
    }


def _origin(study: Study, run: StudyRun) -> dict[str, Any]:
    """The study that trained a run, if it was another one, and whether its folder is gone."""
    if run.name in study.recorded:
        return {"run_of": study.recorded[run.name]["run_of"], "recorded": True}
    path = study.reused.get(run.name)
    return {} if path is None else {"run_of": path.parent.name.removeprefix("study-")}


def draw_figures(
    workspace: Workspace, study: Study, statuses: Sequence[RunStatus], folder: Path
) -> list[Path]:
    """Samples and orders of all systems side by side, with the same noise; the files.

    Of the first seed for which most systems are trained. A figure that cannot be drawn is noted.
    """
    by_seed: dict[int, list[str]] = {seed: [] for seed in study.protocol.seeds}
    for one in statuses:
        if one.trained and one.run.name not in study.recorded:
            by_seed[one.run.seed].append(str(one.run.run_dir))
    runs = max(by_seed.values(), key=len)
    paths = []
    for name, num in FIGURES.items() if runs else ():
        try:
            out = folder / f"{name}.png"
            paths.append(figure_of_runs(workspace, name, runs, Options(num, seed=0), out)[0])
        except SriError as error:
            warn(f"Note: no figure of {name}: {error.message}")
    return paths


def result_table(study: Study, statuses: Sequence[RunStatus], data: str) -> Table:
    """A row for each system with mean and standard deviation over its seeds.

    The notes explain the numbers, and list warnings of the metrics and runs that diverged.
    """
    protocol, measures = study.protocol, study.protocol.measures().values()
    headings = [_heading(measure, statuses) for measure in measures]
    rows = [["system", *grid_titles(protocol.grid), "runs", "minutes", *headings]]
    for name, point in protocol.points().items():
        own = [one for one in statuses if one.run.system == name]
        trained = sum(one.trained for one in own)
        cells = [_cell(own, measure.key, trained) for measure in measures]
        values = map(value_text, point.values.values())
        seconds = [one.seconds for one in own if one.trained]
        minutes = f"{mean(seconds) / 60:.1f}" if seconds else "-"
        rows.append([point.system, *values, f"{trained}/{len(protocol.seeds)}", minutes, *cells])
    notes = ["minutes: of training, mean over runs; steps, batches and images are the same for all"]
    notes += ["mean ± standard deviation over seeds; for one seed the value [95 % interval]"]
    lower = [h for h, measure in zip(headings, measures, strict=True) if measure.lower_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}; for all others higher is")
    warnings: dict[str, str] = {}
    for one in statuses:
        warnings |= {m["warning"]: m["name"] for m in one.measured.values() if m.get("warning")}
    notes += [f"{DOUBTFUL} {name}: {warning}" for warning, name in warnings.items()]
    notes += [f"{one.run.title}: {one.diverged}" for one in statuses if one.diverged]
    origins = Counter(_origin_text(study, one) for one in statuses if one.trained)
    if len(origins) > 1:
        notes += [f"{counted(count, 'run')}{origin}" for origin, count in origins.items()]
    caption = (
        f"{protocol.name}: {data}, {protocol.data.size} px; {protocol.steps:,} steps of"
        f" {protocol.batch} images, seed{'s' * (len(protocol.seeds) > 1)}"
        f" {', '.join(map(str, protocol.seeds))}"
    )
    return Table(caption, rows, notes)


def _origin_text(study: Study, status: RunStatus) -> str:
    """` of the study sweep, as recorded: sri 0.1.0, torch 2.15.0`: what may differ between runs."""
    origin, machine = _origin(study, status.run), status.machine or {}
    text = f" of the study {origin['run_of']}" if origin else ""
    text += ", as recorded" * ("recorded" in origin)
    versions = [f"{name} {machine[name]}" for name in ("sri", "torch") if name in machine]
    return f"{text}: {', '.join(versions)}" if versions else text


def claim_table(study: Study, statuses: Sequence[RunStatus]) -> Table:
    """A row for each claim and measure."""
    rows = [["claim", "by", "verdict", "means", "values by seed", "difference by seed"]]
    for one in judge(study.protocol, values_of(study, statuses)):
        measure = MEASURES[one.measure]
        means, values = [], []
        for side in one.values:
            known = [value for value in side if value is not None]
            means.append(rounded(mean(known), measure.key) if known else "-")
            values.append(", ".join(_text(v, measure.key) for v in side) if known else "-")
        rows.append(
            [
                f"{one.better} better than {one.than}",
                _heading(measure, statuses),
                one.verdict,
                " against ".join(means),
                " against ".join(values),
                _difference(one.paired, measure.key),
            ]
        )
    notes = [
        VERDICTS[study.protocol.test],
        "difference by seed: the first system minus the second, mean [95 % interval, paired t]"
        " and seeds in favour of the claim",
    ]
    return Table("Claims", rows, notes, left=6)


def _difference(paired: Paired | None, key: str) -> str:
    """`-45.20 [-80.10, -10.30], 5/6`."""
    if paired is None:
        return "-"
    ends = [rounded(end, key) for end in (paired.low, paired.high) if end is not None]
    interval = f" [{', '.join(ends)}]" if ends else ""
    return f"{rounded(paired.mean, key)}{interval}, {paired.in_favour}/{paired.seeds}"


def in_words(status: RunStatus) -> str:
    """The values of a run in a line."""
    known = [(m, status.measured[m.key]) for m in MEASURES.values() if m.key in status.measured]
    return ", ".join(f"{one.heading} {_text(m['value'], one.key)}" for one, m in known)


def _heading(measure: Measure, statuses: Sequence[RunStatus]) -> str:
    """The measure's name; some measurements carry a name that states how they were made."""
    names = [
        value_name(one.measured[measure.key]) for one in statuses if measure.key in one.measured
    ]
    return names[0] if names and measure.key in NAMED else measure.heading


def _cell(statuses: Sequence[RunStatus], key: str, trained: int) -> str:
    known = [one.measured[key] for one in statuses if key in one.measured]
    known = [m for m in known if m["value"] is not None]
    return estimate(known, key) + mark(known) + f" (n={len(known)})" * (0 < len(known) < trained)


def _text(value: float | None, key: str) -> str:
    return "-" if value is None else rounded(value, key)
