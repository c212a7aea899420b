"""The parts of a report that are words, tables and charts: runs, measurements, training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sri_cli.config.load import recipe_to_yaml
from sri_cli.config.schema import flatten, without_effect
from sri_cli.metrics.records import read_records, run_subject
from sri_cli.metrics.table import footnotes, table_rows
from sri_cli.plotting.figure_curves import Logged, curve_blocks
from sri_cli.plotting.report import Section, Table
from sri_cli.plotting.report_chart import SvgChart
from sri_cli.plotting.report_runs import Subject
from sri_cli.plotting.sheet import Chart, Legend

TABLE_RUNS = 4
LIKELIHOODS = {"mog": "mixture of Gaussians", "gaussian": "Gaussian"}
UNTOLD, NO_EFFECT = ("description",), "-"  # a description is no setting

Facts = list[tuple[str, str]]


def overview(found: Sequence[Subject]) -> Section:
    """What each run is."""
    facts = [_facts(one) for one in found]
    if len(found) == 1:
        return Section("The run", facts=facts[0])
    rows = [[name, *(dict(own)[name] for own in facts)] for name, _ in facts[0]]
    return Section("The runs", tables=tables(["", *(one.name for one in found)], rows))


def tables(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> list[Table]:
    """One table, or several one after the other: more columns of runs than fit a sheet of paper."""
    parts = [slice(at, at + TABLE_RUNS) for at in range(1, len(header), TABLE_RUNS)]
    return [
        Table([header[0], *header[part]], [[row[0], *row[part]] for row in rows], caption)
        for part in parts
    ]


def _facts(one: Subject) -> Facts:
    loaded = one.trained
    recipe, last = loaded.recipe, one.log[-1] if one.log else {}
    size = "" if recipe.size == "paper" else f", size {recipe.size}"
    parameters = sum(p.numel() for p in loaded.model.parameters())
    return [
        ("recipe", f"{recipe.name}{size}"),
        ("what it is", recipe.description),
        ("trained on", f"{one.trained.caption}, {one.size} px"),
        ("training steps", f"{loaded.step:,} of {recipe.train.steps:,}"),
        ("images a step", f"{recipe.train.batch:,}"),
        ("slots", str(one.slots)),
        ("likelihood", f"{LIKELIHOODS[recipe.model.likelihood]}, std {recipe.model.std:g}"),
        ("parameters", f"{parameters:,}"),
        ("training seed", str(recipe.train.seed)),
        ("last record of the training", _time(last.get("time"))),
        ("weights (SHA-256)", run_subject(loaded)["model"][:16]),
    ]


def _time(time: object) -> str:
    """2026-11-22 22:02 UTC of 2026-11-22T22:02:31+00:00."""
    if not isinstance(time, str):
        return "none"
    return f"{time[:10]} {time[11:16]} UTC" if time.endswith("+00:00") else time


def differences(found: Sequence[Subject]) -> Section:
    """Where the recipes of several runs differ; a dash where a setting has no effect."""
    flat = [_settings(one.trained.recipe.model_dump(mode="json")) for one in found]
    keys = [key for key in dict.fromkeys(k for own in flat for k in own) if key not in UNTOLD]
    told = [[own.get(key, NO_EFFECT) for own in flat] for key in keys]
    rows = [[key, *cells] for key, cells in zip(keys, told, strict=True) if len(set(cells)) > 1]
    title = "Where the recipes differ"
    if not rows:
        return Section(title, "Nowhere: every setting is the same.")
    words = f"{len(keys) - len(rows)} of {len(keys)} settings are the same."
    return Section(title, words, tables=tables(["", *(one.name for one in found)], rows))


def _settings(recipe: dict[str, Any]) -> dict[str, str]:
    """`section.key` -> value, of those that have an effect."""
    idle = without_effect(recipe["model"])
    return {
        key: "none" if value is None else str(value)
        for key, value in flatten(recipe).items()
        if "." not in key or key.partition(".")[2] not in idle
    }


def measurements(found: Sequence[Subject]) -> Section:
    """What is recorded of these checkpoints, with intervals, and how it was measured."""
    records = [
        {**record, "subject": {**record["subject"], "run": one.name}}
        for one in found
        for record in one.measured
    ]
    words = "Recorded in the run's metrics.jsonl; this page measures nothing."
    bare = [one for one in found if not one.measured]
    missing = " ".join(_unmeasured(one) for one in bare)
    if not records:
        return Section("Measurements", missing)
    header, *rows = table_rows(records)
    warnings = dict.fromkeys(r["warning"] for r in records if r.get("warning"))
    where, protocols = _protocols(footnotes(records))
    notes = [*protocols, *(f"Warning: {warning.rstrip('.')}." for warning in warnings)]
    told = " ".join(filter(None, [words, missing]))
    parts = tables(header, rows, f"{where}Values and their intervals.")
    return Section("Measurements", told, tables=parts, notes=notes)


def _unmeasured(one: Subject) -> str:
    earlier = len(read_records(one.run_dir))
    others = f" ({earlier} of other checkpoints)" if earlier else ""
    return (
        f"Nothing is recorded of this checkpoint of {one.name}{others};"
        f" sri eval --run {one.run_dir} measures it."
    )


def _protocols(lines: Sequence[str]) -> tuple[str, list[str]]:
    """The footnotes of a table: the split that all are about, and a note for each protocol, which
    names its own split where there are several."""
    ways: list[tuple[str, str]] = []
    where = ""
    for line in lines:
        if line.startswith("  "):
            ways.append((where, line.strip()))
        else:
            where = line
    if len({where for where, _ in ways}) > 1:
        return "", [f"{way} ({where})" for where, way in ways]
    return f"{where[:1].upper()}{where[1:]}. ", [way for _, way in ways]


def curves(found: Sequence[Subject]) -> Section:
    """Errors, KLs and their weights over the steps."""
    logged = [one for one in found if one.log]
    bare = [f"{one.name} has no log of its training." for one in found if not one.log]
    if not logged:
        return Section("Training", " ".join(bare))
    logs = [_log(one) for one in logged]
    blocks = curve_blocks(logs)
    keys = next(block.keys for block in blocks if isinstance(block, Legend))
    charts = [SvgChart(block) for block in blocks if isinstance(block, Chart)]
    words = (
        "GECO holds the error at its goal (dashed) while the KL falls; each objective has a weight"
        " of its own."
    )
    legend = keys if len(keys) > 1 else ()
    return Section("Training", " ".join([words, *bare]), legend=legend, charts=charts)


def _log(one: Subject) -> Logged:
    recipe = one.trained.recipe
    goal = recipe.train.geco_target
    return Logged(one.name, one.run_dir, recipe.model.normalised, goal, one.log)


def recipes(found: Sequence[Subject]) -> Section:
    """Every value of every run."""
    yaml = {one.name: recipe_to_yaml(one.trained.recipe) for one in found}
    if len(yaml) == 1:
        return Section("Recipe", "Every value of the run.", code="".join(yaml.values()))
    parts = [Section(name, code=text, folded="Every value") for name, text in yaml.items()]
    return Section("Recipes", parts=parts)
