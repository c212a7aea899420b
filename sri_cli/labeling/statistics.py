"""Statistics of the answers in all sessions of a workspace, and S-Acc of the runs.

Shares and intervals lie in [0,1]. The tests and intervals themselves are in metrics/sacc.py.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, mean
from types import MappingProxyType
from typing import Any

from sri_cli.console import format_table, warn
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import open_run
from sri_cli.labeling.ratings import CATCH, Ratings, Tally, collect_ratings
from sri_cli.labeling.session import (
    FOLDER,
    QUESTIONS,
    STACKS,
    VERDICTS,
    Deck,
    read_sessions,
)
from sri_cli.metrics.image_metrics import no_towers_warning
from sri_cli.metrics.records import (
    Context,
    Estimate,
    Measurement,
    append_records,
    model_digest,
    read_records,
)
from sri_cli.metrics.sacc import cohen_kappa, difference, fleiss_kappa, wilson
from sri_cli.metrics.tables import DOUBTFUL, mark
from sri_cli.metrics.tabular import estimate_words
from sri_cli.run import Workspace, run_argument, runs_in

PROTOCOL_SCENES = 100  # with fewer, the figure's name has their number
PROTOCOL = "judged by eye, blind: do all blocks of the stack touch; unsure left out"
PROTOCOL_OF_SCENES = "judged by eye, blind: one floor, walls meet, objects stand; unsure left out"
RELIABLE = 0.75  # a rater with a lower share of correct catch trials is named in a warning

Facts = dict[str, Any]


def summarise(
    workspace: Workspace,
    models: Mapping[str, str] = MappingProxyType({}),
    folders: Sequence[Path] = (),
) -> Facts:
    """The summary of models (weights -> name) and of image folders (neither: of all that were
    judged), as --json prints it. S-Acc of finished models is added to the metrics.jsonl of their
    runs.

    Raises SriError where nothing was judged.
    """
    labels = workspace.runs_root / FOLDER
    decks = read_sessions(labels)
    selected = {*models, *(str(folder.resolve()) for folder in folders)}
    if selected:
        names = {m.weights: m.subject.get("images", m.weights) for d in decks for m in d.models}
        for own in selected - {*names, *names.values()}:
            name = models.get(own, own)
            words = ["sri", "label-sacc", "--run" if own in models else "--images", name]
            raise SriError(f"no scenes of {name} were judged yet", shlex.join(words))
        selected = {own for own, name in names.items() if own in selected or name in selected}
        decks = [deck for deck in decks if any(m.weights in selected for m in deck.models)]
    collected = collect_ratings(decks)
    catch = catch_facts(collected.pop(CATCH.weights, Ratings(CATCH)), decks)
    ratings = [collected[own] for own in collected if not selected or own in selected]
    if not ratings:
        raise SriError(f"no scenes were judged in {labels} yet", "sri label-sacc")
    doubts = {one["rater"]: one["warning"] for one in catch if one["warning"]}
    facts = [model_facts(one, doubts) for one in ratings]
    paths = [
        record(workspace, one, model["together"]) for one, model in zip(ratings, facts, strict=True)
    ]
    comparison = None
    if len(ratings) == 2 and ratings[0].question == ratings[1].question:
        comparison = comparison_facts(ratings[0], ratings[1], doubts)
    return {
        "definition": " ".join(
            QUESTIONS[name].definition for name in dict.fromkeys(one.question for one in ratings)
        ),
        "share": "S-Acc, %" if {one.question for one in ratings} == {STACKS} else "plausible, %",
        "models": facts,
        "agreement": agreement_facts(ratings, doubts),
        "comparison": comparison,
        "catch": catch,
        "recorded": [str(path) for path in paths if path is not None],
    }


def run_weights(workspace: Workspace, runs: Sequence[str]) -> dict[str, str]:
    """The weights by which the newest checkpoints of runs are known in sessions -> the run."""
    return {model_digest(open_run(workspace, run)): run for run in runs}


def catch_facts(ratings: Ratings, decks: Sequence[Deck]) -> list[Facts]:
    """How each rater did on catch trials, with a warning below RELIABLE of those judged.

    `sound` and `broken` have of the trials of each kind how many were judged, and how many of them
    plausible.
    """
    is_sound = {
        item.sha256: item.plausible for deck in decks for item in deck.items if item.model is None
    }
    facts = []
    for rater in sorted(ratings.answers):
        sound, broken = Tally(), Tally()
        for (_, _, sha256), verdict in ratings.verdicts(rater).items():
            (sound if is_sound[sha256] else broken)[verdict] += 1
        right, judged = sound["plausible"] + broken["implausible"], sound.total() + broken.total()
        unsure = sound["unsure"] + broken["unsure"]
        warning = f"{rater} was right on {right} of {judged} catch trials, below 3 of 4"
        numbers = {"right": right, "wrong": judged - right - unsure, "unsure": unsure}
        by_kind = {
            kind: {"judged": of.total(), "plausible": of["plausible"]}
            for kind, of in (("sound", sound), ("broken", broken))
        }
        warned = {"warning": warning if right < RELIABLE * judged else None}
        facts.append({"rater": rater, **numbers, **by_kind, **warned})
    return facts


def model_facts(ratings: Ratings, doubts: Mapping[str, str]) -> Facts:
    """Each rater's figures, also by mode of the page, and the mean over the raters that finished.

    `doubts`: rater -> warning about the catch trials.
    """
    raters = [
        {
            "rater": rater,
            "finished": ratings.has_finished(rater),
            **tally_facts(ratings.tally(rater)),
            "modes": {
                mode: tally_facts(ratings.tally(rater, mode)) for mode in ratings.modes(rater)
            },
            "warning": doubts.get(rater),
        }
        for rater in sorted(ratings.answers)
    ]
    together = mean_facts([ratings.final_tally(rater) for rater in ratings.finished])
    if together is not None:
        together["warning"] = _doubt(ratings.finished, doubts)
    return {
        "name": ratings.model.name,
        "weights": ratings.model.weights,
        "subject": ratings.model.subject,
        "scenes": ratings.scenes,
        "raters": raters,
        "together": together,
    }


def _doubt(raters: Iterable[str], doubts: Mapping[str, str]) -> str | None:
    """The warnings about these raters, as one."""
    return "; ".join(doubts[rater] for rater in raters if rater in doubts) or None


def tally_facts(tally: Tally) -> Facts:
    """Counts, and the share of plausible among decided scenes with its 95 % Wilson interval."""
    decided = count_decided(tally)
    low, high = wilson(tally["plausible"], decided) or (None, None)
    return {
        "judged": tally.total(),
        **{verdict: tally[verdict] for verdict in VERDICTS},
        "value": tally["plausible"] / decided if decided else None,
        "low": low,
        "high": high,
    }


def count_decided(tally: Tally) -> int:
    """Scenes judged plausible or not."""
    return tally["plausible"] + tally["implausible"]


def mean_facts(tallies: Sequence[Tally]) -> Facts | None:
    """The mean of the raters' shares.

    The interval is that of the number of scenes that one rater decided on average: several raters
    who judge the same scenes are not more scenes.
    """
    known = [tally for tally in tallies if count_decided(tally)]
    if not known:
        return None
    value = mean(tally["plausible"] / count_decided(tally) for tally in known)
    decided = mean(count_decided(tally) for tally in known)
    low, high = wilson(value * decided, decided) or (None, None)
    how = "95 % Wilson" if len(known) == 1 else "95 % Wilson at the raters' mean"
    return {"raters": len(known), "value": value, "low": low, "high": high, "interval": how}


def agreement_facts(models: Sequence[Ratings], doubts: Mapping[str, str]) -> Facts | None:
    """Cohen's kappa of two raters or Fleiss' of more, over the scenes that all of them judged.

    "Unsure" is a category of its own. Where several raters finished, others who tried a few scenes
    are left out. None for a single rater.
    """
    raters = sorted({rater for ratings in models for rater in ratings.answers})
    if len(raters) < 2:
        return None
    finished = [one for one in raters if all(one in ratings.finished for ratings in models)]
    raters = finished if len(finished) > 1 else raters
    common = []  # one list of verdicts per scene, in the order of the raters
    for ratings in models:
        given = [ratings.verdicts(rater) for rater in raters]
        scenes = [scene for scene in given[0] if all(scene in verdicts for verdicts in given)]
        common += [[verdicts[scene] for verdicts in given] for scene in scenes]
    alike = kappa = None
    if common:
        alike = fmean(len({*verdicts}) == 1 for verdicts in common)
        counts = [[verdicts.count(kind) for kind in VERDICTS] for verdicts in common]
        two = len(raters) == 2
        kappa = cohen_kappa(*zip(*common, strict=True)) if two else fleiss_kappa(counts)
    method = "Cohen's kappa" if len(raters) == 2 else "Fleiss' kappa"
    facts: Facts = {"raters": raters, "scenes": len(common), "method": method}
    return facts | {"alike": alike, "kappa": kappa, "warning": _doubt(raters, doubts)}


def comparison_facts(one: Ratings, other: Ratings, doubts: Mapping[str, str]) -> Facts | None:
    """Two models compared by each rater who judged both; None where nobody did."""
    both = sorted(one.answers.keys() & other.answers.keys())
    tests = [
        {"rater": r, **compare_tallies(one.tally(r), other.tally(r)), "warning": doubts.get(r)}
        for r in both
    ]
    return {"models": [one.model.name, other.model.name], "tests": tests} if tests else None


def compare_tallies(one: Tally, other: Tally) -> Facts:
    """Difference of the shares with Newcombe's interval, and p of Fisher's exact test."""
    counts = [tally[verdict] for tally in (one, other) for verdict in VERDICTS[:2]]
    result = difference(counts[0], sum(counts[:2]), counts[2], sum(counts[2:]))
    if result is None:
        return {"difference": None, "low": None, "high": None, "p": None}
    from scipy.stats import fisher_exact  # a second to import

    value, (low, high) = result
    p = float(fisher_exact([counts[:2], counts[2:]]).pvalue)
    return {"difference": value, "low": low, "high": high, "p": p}


def record(workspace: Workspace, ratings: Ratings, together: Facts | None) -> Path | None:
    """Add a finished model's share to the run's metrics.jsonl unless it is there already."""
    subject = ratings.model.subject
    if subject["kind"] != "run" or together is None:
        return None
    run_dir = find_run_dir(workspace, subject)
    if run_dir is None:
        warn(f"Note: no run {subject['run']} with the judged weights, so the share is not recorded")
        return None
    new = measurement(ratings, {**subject, "run": str(run_dir)}, together)
    keys = ("metric", "name", "value", "low", "high", "counts", "data", "warning")
    own = [one for one in read_records(run_dir) if one["subject"].get("model") == subject["model"]]
    same_kind = [one for one in own if one["name"] == new["name"]]
    if same_kind and all(same_kind[-1].get(key) == new[key] for key in keys):
        return None
    return append_records(run_dir, [new])


def find_run_dir(workspace: Workspace, subject: Facts) -> Path | None:
    """The folder of the run that was judged, which may have been moved since; None where there is
    none, or where it was trained anew."""
    run, root = Path(subject["run"]), workspace.runs_root
    moved = [path for path in runs_in(root) if path.name == run.name]
    without = []  # the checkpoint, which may be removed since
    for path in dict.fromkeys([run, *moved]):
        checkpoint = path / "checkpoints" / subject.get("checkpoint", "-")
        if not checkpoint.is_dir():
            without.append(path)
            continue
        with suppress(SriError):  # damaged
            if subject["model"] in run_weights(workspace, [run_argument(checkpoint)]):
                return path
    usual = [path for path in (run, root / run.name) if path in without]  # not another of a study
    return next((path for path in usual if (path / "checkpoints").is_dir()), None)


def measurement(ratings: Ratings, subject: Facts, together: Facts) -> Measurement:
    """The share (S-Acc of stacks) as a line of metrics.jsonl: the mean of raters that finished."""
    model, tallies = ratings.model, [ratings.final_tally(rater) for rater in ratings.finished]
    scenes, total = min(tally.total() for tally in tallies), sum(tallies, Counter())
    is_stack = ratings.question == STACKS
    name = "S-Acc" if is_stack else "plausible by eye"
    data = model.trained_on or (model.data or {}).get("name")
    doubts = [together["warning"], no_towers_warning("S-Acc", data) if is_stack and data else None]
    return Context(subject, model.data, model.seed or 0).measurement(
        "sacc" if is_stack else "plausible_by_eye",
        name if scenes >= PROTOCOL_SCENES else f"{name} of {scenes} scenes",
        Estimate(together["value"], together["low"], together["high"], together["interval"]),
        counts={
            "scenes": scenes,
            "raters": len(tallies),
            "plausible": total["plausible"],
            "not_plausible": total["implausible"],
            "unsure": total["unsure"],
        },
        protocol=PROTOCOL if is_stack else PROTOCOL_OF_SCENES,
        slots=model.slots,
        temperature=model.temperature,
        warning="; ".join(filter(None, doubts)) or None,
    )


def summary_text(facts: Facts) -> str:
    """The summary for reading; shares in percent. A mark beside a value points to its warning."""
    header = ["", "rater", "judged", "unsure", facts["share"]]
    rows = []
    for model in facts["models"]:
        for rater in model["raters"]:
            name, sign = model["name"], mark([rater])
            of = "" if rater["finished"] else f" of {model['scenes']}"
            rows.append([name, rater["rater"], *_tally_cells(rater, of), _percent(rater) + sign])
            for mode, own in rater["modes"].items():
                if len(rater["modes"]) > 1:
                    who = f"{rater['rater']}, {mode}"
                    rows.append([name, who, *_tally_cells(own), _percent(own) + sign])
        mean_row = model["together"]
        if mean_row and mean_row["raters"] > 1:
            who = f"mean of {mean_row['raters']}"
            rows.append([model["name"], who, "", "", _percent(mean_row) + mark([mean_row])])
    lines = [facts["definition"], "", format_table(header, rows, left=2), ""]
    lines.append("[low, high]: 95 % Wilson interval over decided scenes.")
    lines += [*_agreement_lines(facts["agreement"]), *_comparison_lines(facts["comparison"])]
    for one in facts["catch"]:
        judged = one["right"] + one["wrong"] + one["unsure"]
        called = ", ".join(
            f"{one[kind]['plausible']} of {one[kind]['judged']} {kind} ones"
            for kind in ("sound", "broken")
        )
        lines.append(
            f"Catch trials: {one['rater']} was right on {one['right']} of {judged}, and called"
            f" {called} plausible."
        )
    lines += [f"{DOUBTFUL} {one['warning']}." for one in facts["catch"] if one["warning"]]
    names = [m["name"] for m in facts["models"] if m["together"] is None]
    if names:
        lines.append(f"Not recorded, because no rater has judged all scenes: {', '.join(names)}.")
    return "\n".join(lines)


def _tally_cells(facts: Facts, of: str = "") -> list[str]:
    return [f"{facts['judged']}{of}", str(facts["unsure"])]


def _percent(facts: Facts) -> str:
    value, low, high = (
        None if facts[key] is None else 100 * facts[key] for key in ("value", "low", "high")
    )
    return estimate_words(value, low, high, 1)


def _agreement_lines(facts: Facts | None) -> list[str]:
    if facts is None:
        return []
    who = f"Agreement of {', '.join(facts['raters'])}"
    if not facts["scenes"]:
        return [f"{who}: no scene was judged by all of them."]
    kappa = facts["kappa"]
    value = "is undefined (all verdicts are the same)" if kappa is None else f"{kappa:.2f}"
    share = f"{100 * facts['alike']:.1f} % the same"
    doubt = mark([facts])
    return [f"{who} on {facts['scenes']} scenes: {share}, {facts['method']} {value}{doubt}."]


def _comparison_lines(facts: Facts | None) -> list[str]:
    if facts is None:
        return []
    first, second = facts["models"]
    lines = [f"{first} minus {second}, in percentage points with Newcombe's 95 % interval:"]
    for test in facts["tests"]:
        who = test["rater"] + mark([test])
        if test["difference"] is None:
            lines.append(f"  {who}: no decided scenes")
            continue
        value, low, high = (100 * test[key] for key in ("difference", "low", "high"))
        p = f"p = {test['p']:.3f}" if test["p"] >= 0.001 else "p < 0.001"
        lines.append(f"  {who}: {value:+.1f} [{low:+.1f}, {high:+.1f}], Fisher's exact test {p}")
    return lines
