"""A study's table: mean and spread over seeds for each system, and a verdict for each claim."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from statistics import mean

from sri_cli.metrics.measured import BEAR_NAMES, estimate, number, rounded
from sri_cli.metrics.paper_text import WIDTH
from sri_cli.metrics.records import Measurement
from sri_cli.metrics.tabular import (
    aligned,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
)
from sri_cli.studies.claims import Values, Verdict, judge
from sri_cli.studies.file import Study
from sri_cli.studies.protocol import MEASURES, Measure
from sri_cli.studies.runs import Stand

ENDINGS = {"text": "txt", "markdown": "md", "latex": "tex"}


def values_of(study: Study, stands: Sequence[Stand]) -> dict[str, Values]:
    """Each measure's value for every run that has one."""
    return {
        name: {
            (one.cell.system, one.cell.seed): number(one.measured[measure.key])
            for one in stands
            if measure.key in one.measured
        }
        for name, measure in study.protocol.measures().items()
    }


def verdicts_of(study: Study, stands: Sequence[Stand]) -> list[Verdict]:
    """Of every claim."""
    return judge(study.protocol, values_of(study, stands))


def format_study(study: Study, stands: Sequence[Stand], data: str, style: str = "text") -> str:
    """Title, table, verdicts and notes; `data`: what the runs were trained on, in words."""
    tables = [result_rows(study, stands), *verdict_rows(study, stands)]
    words, notes = (1, 5), notes_of(study, stands)
    title = f"{study.protocol.name}: {title_of(study, data)}"
    if style == "latex":
        parts = [latex_table(rows, words[i]) for i, rows in enumerate(tables)]
        lines = [latex_text(line) + r"\par" for line in (title, *notes)]
        return "\n\n".join([lines[0], *parts, "\n".join(lines[1:])])
    if style == "markdown":
        parts = [markdown_table(rows, words[i]) for i, rows in enumerate(tables)]
        listed = "\n".join(f"- {markdown_text(note)}" for note in notes)
        return "\n\n".join([f"**{markdown_text(title)}**", *parts, listed])
    parts = [aligned(rows, words[i]) for i, rows in enumerate(tables)]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes]
    return "\n\n".join([title, *parts, "\n".join(wrapped)])


def title_of(study: Study, data: str) -> str:
    """What was compared on what."""
    protocol = study.protocol
    seeds = ", ".join(map(str, protocol.seeds))
    return (
        f"{data}, {protocol.data.size} px; {protocol.steps:,} steps of {protocol.batch} images,"
        f" seed{'s' * (len(protocol.seeds) > 1)} {seeds}"
    )


def result_rows(study: Study, stands: Sequence[Stand]) -> list[list[str]]:
    """The header, and a row for each system; a dash for what is not measured."""
    measures = study.protocol.measures()
    rows = [["system", "runs", *(_heading(m, stands) for m in measures.values())]]
    for system in study.protocol.systems:
        own = [one for one in stands if one.cell.system == system]
        done = sum(one.trained for one in own)
        cells = [_cell(own, measure.key, done) for measure in measures.values()]
        rows.append([system, f"{done}/{len(study.protocol.seeds)}", *cells])
    return rows


def verdict_rows(study: Study, stands: Sequence[Stand]) -> list[list[list[str]]]:
    """A table of the claims; none without claims."""
    verdicts = verdicts_of(study, stands)
    if not verdicts:
        return []
    measures = study.protocol.measures()
    rows = [["claim", "by", "verdict", "means", "values by seed"]]
    for one in verdicts:
        key = measures[one.measure].key
        rows.append(
            [
                f"{one.better} better than {one.than}",
                _heading(measures[one.measure], stands),
                one.verdict,
                " against ".join(_mean(some, key) for some in one.values),
                " against ".join(_by_seed(some, key) for some in one.values),
            ]
        )
    return [rows]


def notes_of(study: Study, stands: Sequence[Stand]) -> list[str]:
    """How to read the numbers, and which runs are missing for good."""
    measures = study.protocol.measures()
    lower = [_heading(m, stands) for m in measures.values() if m.lower_is_better]
    notes = ["mean ± standard deviation over seeds; of one seed the value [its 95 % interval]"]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}; of all others higher is")
    if study.protocol.claims:
        notes.append(
            "confirmed: the mean is better, and every seed of the one is better than every seed of"
            " the other; undecided, in favour: only the mean; refuted: the mean is worse"
        )
    told: dict[str, str] = {}
    for one in stands:
        told |= {m["warning"]: m["name"] for m in one.measured.values() if m.get("warning")}
    notes += [f"{name}: {warning}" for warning, name in told.items()]
    notes += [f"{one.cell.words}: {one.diverged}" for one in stands if one.diverged]
    return notes


def _measurements(stands: Sequence[Stand], key: str) -> list[Measurement]:
    return [one.measured[key] for one in stands if key in one.measured]


def _heading(measure: Measure, stands: Sequence[Stand]) -> str:
    """Some names tell how a value was measured."""
    known = _measurements(stands, measure.key)
    return known[0]["name"] if known and measure.key in BEAR_NAMES else measure.heading


def _cell(stands: Sequence[Stand], key: str, done: int) -> str:
    known = [m for m in _measurements(stands, key) if number(m) is not None]
    if not known:
        return "-"
    return estimate(known, key) + f" (n={len(known)})" * (len(known) < done)


def _mean(values: Sequence[float | None], key: str) -> str:
    known = [value for value in values if value is not None]
    return rounded(mean(known), key) if known else "-"


def _by_seed(values: Sequence[float | None], key: str) -> str:
    return ", ".join(_number(v, key) for v in values) if set(values) != {None} else "-"


def _number(value: float | None, key: str) -> str:
    return "-" if value is None else rounded(value, key)


def in_words(measured: Mapping[str, Measurement]) -> str:
    """The values of a run in a line."""
    known = [(m, measured[m.key]) for m in MEASURES.values() if m.key in measured]
    return ", ".join(f"{one.heading} {_number(number(m), one.key)}" for one, m in known)
