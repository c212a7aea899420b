"""`sri label-sacc --summary`: S-Acc of each model with its interval, raters' agreement, a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from sri_cli.errors import SriError
from sri_cli.labeling import scenes
from sri_cli.labeling.session import DEFINITION, VERDICTS
from sri_cli.labeling.statistics import Judged, Scene, Tally, caught, judged_models
from sri_cli.metrics.sacc import (
    agreement,
    cohen_kappa,
    difference,
    fisher,
    fleiss_kappa,
    wilson,
)

Facts = dict[str, Any]


def summarise(
    labels: Path, weights: Mapping[str, str] | None, folders: Sequence[Path] = ()
) -> tuple[Facts, list[Judged]]:
    """Everything that is known of some models (weights -> name) and folders, None: of all that
    were judged; as --json prints it, and the verdicts behind it. SriError where there are none."""
    sessions = scenes.sessions(labels)
    found = judged_models(sessions)
    if weights is not None:
        found = named(found, weights, folders)
        sessions = [kept for kept in sessions if any(m.weights in found for m in kept.models)]
    if not found:
        which = f"in {labels}" if weights is None else "of what is named"
        raise SriError(f"nobody has judged scenes {which} yet", "sri label-sacc")
    judged = list(found.values())
    of_raters = caught(sessions)
    facts: Facts = {
        "definition": DEFINITION,
        "models": [model_facts(one) for one in judged],
        "agreement": agreement_facts(judged),
        "comparison": comparison_facts(*judged) if len(judged) == 2 else None,
        "catch": [{"rater": rater, **one._asdict()} for rater, one in sorted(of_raters.items())],
    }
    return facts, judged


def named(
    found: dict[str, Judged], weights: Mapping[str, str], folders: Sequence[Path]
) -> dict[str, Judged]:
    """Those of these weights, and whatever was judged of a folder; SriError for one of which
    nothing was."""
    chosen = {}
    for one in weights:
        if one not in found:
            raise SriError(
                f"nobody has judged scenes of the model {one[:12]} yet", "sri label-sacc"
            )
        chosen[one] = found[one]
    for folder in folders:
        path = str(folder.resolve())
        here = {w: one for w, one in found.items() if one.model.subject.get("images") == path}
        if not here:
            raise SriError(
                f"nobody has judged pictures of {folder} yet", "sri label-sacc --images DIR"
            )
        chosen |= here
    return chosen


def model_facts(judged: Judged) -> Facts:
    """One model: each rater's figures, and those of the raters that finished together."""
    raters = [
        {"rater": rater, "finished": rater in judged.finished, **tally_facts(judged.tally(rater))}
        for rater in judged.raters
    ]
    together = together_facts([judged.tally(rater) for rater in judged.finished])
    model = judged.model
    return {
        "name": model.name,
        "weights": model.weights,
        "subject": model.subject,
        "scenes": judged.scenes,
        "raters": raters,
        "together": together,
    }


def tally_facts(tally: Tally) -> Facts:
    """Shares in [0,1]: of the decided scenes with its interval, and the least and the most that it
    could have been, had the rater decided all."""
    interval = wilson(tally.plausible, tally.decided)
    low, high = interval or (None, None)
    return {
        "judged": tally.judged,
        **tally._asdict(),
        "value": _share(tally.plausible, tally.decided),
        "low": low,
        "high": high,
        "least": _share(tally.plausible, tally.judged),
        "most": _share(tally.plausible + tally.unsure, tally.judged),
    }


def together_facts(tallies: Sequence[Tally]) -> Facts | None:
    """The mean of the raters' shares. Its interval is that of as many scenes as one rater decided
    on average: raters that judge the same scenes are no more scenes."""
    known = [tally for tally in tallies if tally.decided]
    if not known:
        return None
    value = mean(tally.plausible / tally.decided for tally in known)
    decided = mean(tally.decided for tally in known)
    low, high = wilson(value * decided, decided) or (None, None)
    how = "95 % Wilson" if len(known) == 1 else "95 % Wilson at the raters' mean"
    return {"raters": len(known), "value": value, "low": low, "high": high, "interval": how}


def agreement_facts(judged: Sequence[Judged]) -> Facts | None:
    """On the scenes that all raters judged; None for a single rater. "Unsure" is a verdict."""
    raters = sorted({rater for one in judged for rater in one.raters})
    if len(raters) < 2:
        return None
    common = [verdicts for one in judged for verdicts in _common(one, raters)]
    by_rater = list(zip(*common, strict=True))
    facts: Facts = {"raters": raters, "scenes": len(common), "alike": None, "kappa": None}
    if len(raters) == 2:
        facts["method"] = "Cohen's kappa"
        if common:
            facts |= {"alike": agreement(*by_rater), "kappa": cohen_kappa(*by_rater)}
        return facts
    facts["method"] = "Fleiss' kappa"
    if common:
        counts = [[verdicts.count(kind) for kind in VERDICTS] for verdicts in common]
        facts["alike"] = mean(len({*verdicts}) == 1 for verdicts in common)
        facts["kappa"] = fleiss_kappa(counts)
    return facts


def _common(judged: Judged, raters: Sequence[str]) -> list[list[str]]:
    """Of each scene that all of them judged, what they said, in their order."""
    said = [judged.verdicts(rater) if rater in judged.raters else {} for rater in raters]
    return [[one[scene] for one in said] for scene in said[0] if all(scene in one for one in said)]


def comparison_facts(one: Judged, other: Judged) -> Facts | None:
    """Each rater that judged scenes of both models, and where there are several what most of them
    said of each scene; None where nobody judged both."""
    both = [rater for rater in one.raters if rater in other.raters]
    rows = [{"rater": rater, **compared(one.tally(rater), other.tally(rater))} for rater in both]
    if len(both) > 1:
        most = [Tally(**Counter(majority(judged, both))) for judged in (one, other)]
        rows.append({"rater": None, **compared(*most)})
    if not rows:
        return None
    return {"models": [one.model.name, other.model.name], "tests": rows}


def majority(judged: Judged, raters: Sequence[str]) -> list[str]:
    """Of each scene that any of them decided, the verdict of most; where there is a tie, none."""
    said: dict[Scene, list[str]] = {}
    for rater in raters:
        for scene, verdict in judged.verdicts(rater).items():
            said.setdefault(scene, []).append(verdict)
    votes = [(v.count("plausible"), v.count("implausible")) for v in said.values()]
    return ["plausible" if yes > no else "implausible" for yes, no in votes if yes != no]


def compared(one: Tally, other: Tally) -> Facts:
    """Fisher's exact test on the decided scenes, and the difference of the shares."""
    found = difference(one.plausible, one.decided, other.plausible, other.decided)
    if found is None:
        return {"difference": None, "low": None, "high": None, "p": None}
    value, (low, high) = found
    p = fisher(one.plausible, one.implausible, other.plausible, other.implausible)
    return {"difference": value, "low": low, "high": high, "p": p}


def _share(count: int, of: int) -> float | None:
    return count / of if of else None
