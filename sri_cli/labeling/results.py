"""What comes of labelling: the summary, and S-Acc in the run's metrics.jsonl."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sri_cli.labeling import scenes
from sri_cli.labeling.statistics import Judged
from sri_cli.labeling.summary import Facts, summarise
from sri_cli.metrics.records import (
    Context,
    Estimate,
    Measurement,
    append_records,
    read_records,
)
from sri_cli.run import Workspace

PROTOCOL_SCENES = 100  # judged by each rater, or the figure does not bear the plain name
PROTOCOL = "judged by eye, blind: do all blocks of the stack touch; unsure left out"
DOUBTFUL = 0.8  # a rater that does worse on pictures whose verdict is known is warned of


def results(
    workspace: Workspace, weights: Mapping[str, str] | None = None, folders: Sequence[Path] = ()
) -> Facts:
    """The summary of some models (weights -> name) and folders of pictures, None: of all that were
    judged; what is finished is recorded."""
    facts, judged = summarise(workspace.runs_root / scenes.FOLDER, weights, folders)
    facts["recorded"] = [
        str(path) for one in judged for path in record(workspace, one, facts) if path
    ]
    return facts


def record(workspace: Workspace, judged: Judged, facts: Facts) -> list[Path]:
    """The figure of the raters that finished goes to the run's metrics.jsonl, once."""
    subject = judged.model.subject
    if subject["kind"] != "run" or not judged.finished:
        return []
    run_dir = where_is(workspace, str(subject["run"]))
    if run_dir is None:
        print(f"{subject['run']} is not there: its S-Acc is not recorded", file=sys.stderr)
        return []
    found = measurement(judged, {**subject, "run": str(run_dir)}, facts)
    if found is None or any(_same(found, known) for known in _recorded_last(run_dir, found)):
        return []
    return [append_records(run_dir, [found])]


def where_is(workspace: Workspace, run: str) -> Path | None:
    """The run's folder: where it lay, or in the runs folder of today."""
    places = [Path(run), workspace.runs_root / Path(run).name]
    return next((place for place in places if (place / "checkpoints").is_dir()), None)


def measurement(judged: Judged, subject: dict[str, Any], facts: Facts) -> Measurement | None:
    """One figure of a run: the mean of the raters' (None where all were unsure of everything)."""
    tallies = [judged.tally(rater) for rater in judged.finished]
    model = judged.model
    (own,) = (one for one in facts["models"] if one["weights"] == model.weights)
    together = own["together"]
    if together is None:
        return None
    least = min(tally.judged for tally in tallies)
    return Context(subject, model.data, model.seed or 0).measurement(
        "sacc",
        "S-Acc" if least >= PROTOCOL_SCENES else f"S-Acc of {least} scenes",
        Estimate(together["value"], together["low"], together["high"], together["interval"]),
        counts={
            "scenes": least,
            "raters": len(tallies),
            "plausible": sum(tally.plausible for tally in tallies),
            "not_plausible": sum(tally.implausible for tally in tallies),
            "unsure": sum(tally.unsure for tally in tallies),
        },
        protocol=PROTOCOL,
        slots=model.slots,
        temperature=model.temperature,
        warning=doubts(judged.finished, facts["catch"]),
    )


def doubts(raters: Sequence[str], caught: Sequence[Facts]) -> str | None:
    """Of raters that are often wrong where the verdict is known."""
    found = []
    for one in caught:
        decided = one["right"] + one["wrong"]
        if one["rater"] in raters and decided and one["right"] / decided < DOUBTFUL:
            found.append(f"{one['rater']} was right on {one['right']} of {decided} catch trials")
    return "; ".join(found) or None


def _recorded_last(run_dir: Path, new: Measurement) -> list[Measurement]:
    """The newest of the same name and weights, if there is one."""
    own = [
        known
        for known in read_records(run_dir)
        if (known["metric"], known["name"]) == (new["metric"], new["name"])
        and known["subject"].get("model") == new["subject"]["model"]
    ]
    return own[-1:]


def _same(one: Measurement, other: Measurement) -> bool:
    keys = ("value", "low", "high", "counts", "data", "warning")
    return all(one[key] == other.get(key) for key in keys)
