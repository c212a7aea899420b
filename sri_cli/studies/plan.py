"""`sri study --dry-run`: what would be run, and how long it would take here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sri_cli.config.schema import Recipe
from sri_cli.console import duration
from sri_cli.device import choose_device
from sri_cli.metrics.tabular import aligned
from sri_cli.run import Workspace
from sri_cli.studies.data import data_path
from sri_cli.studies.file import Study, check_chosen, read_study
from sri_cli.studies.jobs import Slots, choose_slots
from sri_cli.studies.kept import check_unchanged
from sri_cli.studies.runs import Stand, stand_of

MEASURED_STEPS = 5


def plan_study(
    workspace: Workspace,
    name_or_file: str,
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    measure: bool = True,
) -> dict[str, Any]:
    """The plan as --json prints it; nothing is written. `measure`: a few steps of each system.

    SriError for whatever would stop the study before its first run, but for missing data.
    """
    study = read_study(workspace, name_or_file)
    check_chosen(study, only, seeds)
    slots = choose_slots(jobs)
    check_unchanged(study)
    stands = [stand_of(cell, None) for cell in study.cells(only, seeds)]
    pace = paces(study.recipes, stands, slots) if measure else {}
    return plan_of(workspace, study, stands, slots, pace)


def plan_of(
    workspace: Workspace,
    study: Study,
    stands: Sequence[Stand],
    slots: Slots,
    pace: Mapping[str, float],
) -> dict[str, Any]:
    """`pace`: seconds a step by system; none: the time is not told."""
    protocol = study.protocol
    systems = {}
    for system in protocol.systems:
        left = [_left(one) for one in stands if one.cell.system == system]
        each = pace.get(system)
        if left:
            systems[system] = {
                "runs": len(left),
                "steps_left": sum(left),
                "seconds_per_step": each,
                "hours": None if each is None else sum(left) * each / 3600,
            }
    hours = [one["hours"] for one in systems.values()]
    known = [value for value in hours if value is not None]
    data = data_path(workspace, protocol.data)
    return {
        "study": protocol.name,
        "folder": str(study.folder),
        "protocol_sha256": study.digest(),
        "data": str(data),
        "prepare": None if data.is_file() else protocol.data.prepared_by,
        "data_missing": not data.is_file(),
        "runs": len(stands),
        "trained": sum(one.trained for one in stands),
        "steps": protocol.steps,
        "batch": protocol.batch,
        "seeds": protocol.seeds,
        "metrics": protocol.metrics,
        "claims": sum(len(c.than) * len(c.by) for c in protocol.claims),
        "jobs": slots.jobs,
        "how": slots.words,
        "systems": systems,
        "hours": sum(known) / slots.jobs if len(known) == len(hours) else None,
        "order": [one.cell.name for one in stands],
    }


def paces(recipes: Mapping[str, Recipe], stands: Sequence[Stand], slots: Slots) -> dict[str, float]:
    """Seconds a step of each system that has steps left, measured with the threads of one job."""
    import torch

    from sri_cli.training.step_timing import StepBench

    torch.set_num_threads(slots.threads)
    found = {}
    for system in dict.fromkeys(one.cell.system for one in stands if _left(one)):
        bench = StepBench(recipes[system], choose_device().type, recipes[system].train.precision)
        try:
            found[system] = statistics.median(bench.seconds(MEASURED_STEPS))
        finally:
            bench.close()
    return found


def plan_words(plan: Mapping[str, Any]) -> str:
    """The plan for people."""
    rows = [["SYSTEM", "RUNS", "STEPS LEFT", "S/STEP", "HOURS"]]
    for system, one in plan["systems"].items():
        pace, hours = one["seconds_per_step"], one["hours"]
        rows.append(
            [
                system,
                str(one["runs"]),
                f"{one['steps_left']:,}",
                "-" if pace is None else f"{pace:.3f}",
                "-" if hours is None else f"{hours:.1f}",
            ]
        )
    missing = (
        ""
        if not plan["data_missing"]
        else f", to be made: sri prepare {plan['prepare']}"
        if plan["prepare"]
        else ", missing"
    )
    measured = ", ".join(f"{name} ({num:,})" for name, num in plan["metrics"].items())
    lines = [
        f"study {plan['study']}: {plan['runs']} runs, {plan['trained']} of them trained;"
        f" {plan['steps']:,} steps of {plan['batch']} images each",
        f"runs      {plan['folder']}, {plan['how']}",
        f"data      {plan['data']}{missing}",
        f"measured  {measured}",
        f"claims    {plan['claims']}",
        "",
        aligned(rows),
    ]
    if plan["hours"] is not None:
        lines += ["", f"about {duration(plan['hours'] * 3600)} of training; measuring comes on top"]
    return "\n".join(lines)


def _left(one: Stand) -> int:
    """Steps that are still to be made."""
    return 0 if one.diverged else one.cell.recipe.train.steps - one.step
