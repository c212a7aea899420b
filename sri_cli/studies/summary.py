"""The results of a study: verdicts on its claims, a table, a small JSON summary, two figures."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from sri_cli import __version__
from sri_cli.atomic import write_atomic
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.tables import DOUBTFUL, NAMED, estimate, mark, number, rounded
from sri_cli.metrics.tabular import Table, format_tables
from sri_cli.plotting.from_runs import Options, figure_of_runs
from sri_cli.run import Workspace
from sri_cli.strict_json import from_json, to_json
from sri_cli.studies.protocol import MEASURES, Measure, Protocol, Study, data_facts
from sri_cli.studies.status import MACHINE, RunStatus

SUFFIXES = {"text": "txt", "markdown": "md", "latex": "tex"}
FIGURES = {"samples": 12, "order": 2}  # scenes of each system
VALUE_KEYS = ("value", "low", "high")  # of a measurement, different for every run
PROTOCOL_KEYS = ("name", "counts", "protocol", "warning")  # the same for all runs, stored once
CONFIRMED, REFUTED = "confirmed", "refuted"
UNDECIDED, IN_FAVOUR = "undecided", "undecided, in favour"

Values = Mapping[tuple[str, int], float | None]  # (system, seed) -> value, if it is measured


@dataclass(frozen=True)
class Verdict:
    """The claim that `better` is better than `than` by `measure`, and both systems' values."""

    better: str
    than: str
    measure: str
    verdict: str
    values: tuple[list[float | None], list[float | None]]


def judge(protocol: Protocol, measured: Mapping[str, Values]) -> list[Verdict]:
    """The verdict on every claim by each of its measures; `measured`: measure -> values."""
    verdicts = []
    for claim in protocol.claims:
        for than in claim.than:
            for measure in claim.by:
                ours, theirs = (
                    [measured[measure].get((system, seed)) for seed in protocol.seeds]
                    for system in (claim.better, than)
                )
                verdict = compare(ours, theirs, MEASURES[measure].lower_is_better)
                verdicts.append(Verdict(claim.better, than, measure, verdict, (ours, theirs)))
    return verdicts


def compare(
    ours: Sequence[float | None], theirs: Sequence[float | None], lower_is_better: bool
) -> str:
    """Confirmed: the mean is better, and each of ours is better than each of theirs.

    Undecided, in favour: only the mean is. Refuted: the mean is worse. Undecided: equal means.
    Open: a value is missing (None).
    """
    sign = -1 if lower_is_better else 1
    known = [[sign * value for value in side if value is not None] for side in (ours, theirs)]
    if len(known[0]) < len(ours) or len(known[1]) < len(theirs):
        return f"open: {min(map(len, known))} of {len(ours)} seeds"
    if mean(known[0]) < mean(known[1]):
        return REFUTED
    if mean(known[0]) == mean(known[1]):
        return UNDECIDED
    return CONFIRMED if min(known[0]) > max(known[1]) else IN_FAVOUR


def values_of(study: Study, statuses: Sequence[RunStatus]) -> dict[str, Values]:
    """Each measure's value for every run that has one."""
    return {
        name: {
            (one.run.system, one.run.seed): number(one.measured[measure.key])
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
    """Write table, summary and figures to `folder`; text for people and the summary."""
    tables = [result_table(study, statuses, data.caption)]
    if study.protocol.claims:
        tables.append(claim_table(study, statuses))
    text = format_tables(tables, style)
    write_atomic(folder / f"table.{SUFFIXES[style]}", f"{text}\n".encode())
    path, summary = write_summary(study, statuses, data, folder)
    figures = draw_figures(workspace, study, statuses, folder)
    lines = [text, "", *(f"figure: {figure}" for figure in figures), f"summary: {path}"]
    return "\n".join(lines), summary


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
        "systems": {
            system: {"recipe": study.sources[system], "recipe_sha256": study.recipe_digest(system)}
            for system in protocol.systems
        },
        "runs": [_run_summary(one, how) for one in statuses],
        "how": how,
        "values": {
            measure: {
                system: [by_run.get((system, seed)) for seed in protocol.seeds]
                for system in protocol.systems
            }
            for measure, by_run in values.items()
        },
        "claims": [asdict(one) for one in judge(protocol, values)],
    }
    path = folder / "summary.json"
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
        "machine": _machine(status.run.run_dir / MACHINE),
        "model": next((m["subject"]["model"] for m in status.measured.values()), None),
        "metrics": metrics,
    }


def _machine(path: Path) -> Any:
    """What a run was trained on; None where that is not known."""
    try:
        return from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def draw_figures(
    workspace: Workspace, study: Study, statuses: Sequence[RunStatus], folder: Path
) -> list[Path]:
    """Samples and orders of all systems side by side, with the same noise; the files.

    Of the first seed for which most systems are trained. A figure that cannot be drawn is noted.
    """
    by_seed: dict[int, list[str]] = {seed: [] for seed in study.protocol.seeds}
    for one in statuses:
        if one.trained:
            by_seed[one.run.seed].append(str(one.run.run_dir))
    runs = max(by_seed.values(), key=len)
    paths = []
    for name, num in FIGURES.items() if runs else ():
        try:
            out = folder / f"{name}.png"
            paths.append(figure_of_runs(workspace, name, runs, Options(num, seed=0), out)[0])
        except SriError as error:
            print(f"Note: no figure of {name}: {error.message}", file=sys.stderr)
    return paths


def result_table(study: Study, statuses: Sequence[RunStatus], data: str) -> Table:
    """A row for each system with mean and standard deviation over its seeds.

    The notes explain the numbers, and list warnings of the metrics and runs that diverged.
    """
    protocol, measures = study.protocol, study.protocol.measures().values()
    headings = [_heading(measure, statuses) for measure in measures]
    rows = [["system", "runs", *headings]]
    for system in protocol.systems:
        own = [one for one in statuses if one.run.system == system]
        trained = sum(one.trained for one in own)
        cells = [_cell(own, measure.key, trained) for measure in measures]
        rows.append([system, f"{trained}/{len(protocol.seeds)}", *cells])
    notes = ["mean ± standard deviation over seeds; for one seed the value [95 % interval]"]
    lower = [h for h, measure in zip(headings, measures, strict=True) if measure.lower_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}; for all others higher is")
    warnings: dict[str, str] = {}
    for one in statuses:
        warnings |= {m["warning"]: m["name"] for m in one.measured.values() if m.get("warning")}
    notes += [f"{DOUBTFUL} {name}: {warning}" for warning, name in warnings.items()]
    notes += [f"{one.run.title}: {one.diverged}" for one in statuses if one.diverged]
    caption = (
        f"{protocol.name}: {data}, {protocol.data.size} px; {protocol.steps:,} steps of"
        f" {protocol.batch} images, seed{'s' * (len(protocol.seeds) > 1)}"
        f" {', '.join(map(str, protocol.seeds))}"
    )
    return Table(caption, rows, notes)


def claim_table(study: Study, statuses: Sequence[RunStatus]) -> Table:
    """A row for each claim and measure."""
    rows = [["claim", "by", "verdict", "means", "values by seed"]]
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
            ]
        )
    note = (
        "confirmed: the mean is better, and every seed of the one is better than every seed of the"
        " other; undecided, in favour: only the mean is; refuted: the mean is worse"
    )
    return Table("Claims", rows, [note], left=5)


def in_words(status: RunStatus) -> str:
    """The values of a run in a line."""
    known = [(m, status.measured[m.key]) for m in MEASURES.values() if m.key in status.measured]
    return ", ".join(f"{one.heading} {_text(number(m), one.key)}" for one, m in known)


def _heading(measure: Measure, statuses: Sequence[RunStatus]) -> str:
    """The measure's name; some measurements carry a name that states how they were made."""
    names = [one.measured[measure.key]["name"] for one in statuses if measure.key in one.measured]
    return names[0] if names and measure.key in NAMED else measure.heading


def _cell(statuses: Sequence[RunStatus], key: str, trained: int) -> str:
    known = [one.measured[key] for one in statuses if key in one.measured]
    known = [m for m in known if number(m) is not None]
    return estimate(known, key) + mark(known) + f" (n={len(known)})" * (0 < len(known) < trained)


def _text(value: float | None, key: str) -> str:
    return "-" if value is None else rounded(value, key)
