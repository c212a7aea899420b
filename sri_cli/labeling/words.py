"""The summary of `sri label-sacc` for reading."""

from __future__ import annotations

from collections.abc import Sequence

from sri_cli.labeling.summary import Facts
from sri_cli.metrics.table import estimate_words
from sri_cli.metrics.tabular import aligned


def words(facts: Facts) -> str:
    """The summary for reading; shares in percent."""
    rows = [["", "rater", "judged", "unsure", "S-Acc, %", "with the unsure, %"]]
    for model in facts["models"]:
        rows += [_rater_row(model, rater) for rater in model["raters"]]
        together = model["together"]
        if together and together["raters"] > 1:
            rows.append(
                [model["name"], f"mean of {together['raters']}", "", "", _percent(together)]
            )
    rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    lines = [facts["definition"], "", aligned(rows, words=2), ""]
    lines += ["[low, high]: 95 % Wilson interval over decided scenes."]
    lines += _agreement_words(facts["agreement"])
    lines += _comparison_words(facts["comparison"])
    lines += [_catch_words(one) for one in facts["catch"]]
    lines += _unfinished(facts["models"])
    return "\n".join(lines)


def _rater_row(model: Facts, rater: Facts) -> list[str]:
    judged = str(rater["judged"])
    if not rater["finished"]:
        judged += f" of {model['scenes']}"
    bounds = [f"{100 * rater[end]:.1f}" for end in ("least", "most")]
    spread = " to ".join(bounds) if rater["unsure"] else "-"
    return [model["name"], rater["rater"], judged, str(rater["unsure"]), _percent(rater), spread]


def _percent(facts: Facts) -> str:
    value, low, high = (
        None if facts[key] is None else 100 * facts[key] for key in ("value", "low", "high")
    )
    return estimate_words(value, low, high, 1)


def _agreement_words(facts: Facts | None) -> list[str]:
    if facts is None:
        return []
    who = f"Agreement of {', '.join(facts['raters'])}"
    if not facts["scenes"]:
        return [f"{who}: no scene was judged by all of them."]
    kappa = facts["kappa"]
    told = "is not defined: all verdicts are the same" if kappa is None else f"{kappa:.2f}"
    return [
        f"{who} on {facts['scenes']} scenes: {100 * facts['alike']:.1f} % alike,"
        f" {facts['method']} {told}."
    ]


def _comparison_words(facts: Facts | None) -> list[str]:
    if facts is None:
        return []
    lines = [f"{facts['models'][0]} minus {facts['models'][1]}, in points (Newcombe's interval):"]
    for test in facts["tests"]:
        who = "majority" if test["rater"] is None else test["rater"]
        if test["difference"] is None:
            lines.append(f"  {who}: nothing decided")
            continue
        ends = [100 * test[key] for key in ("difference", "low", "high")]
        lines.append(
            f"  {who}: {ends[0]:+.1f} [{ends[1]:+.1f}, {ends[2]:+.1f}],"
            f" Fisher's exact test {p_words(test['p'])}"
        )
    return lines


def p_words(p: float) -> str:
    """p = 0.012, p < 0.001."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _catch_words(one: Facts) -> str:
    decided = one["right"] + one["wrong"]
    unsure = f", unsure of {one['unsure']}" if one["unsure"] else ""
    return f"Catch trials: {one['rater']} was right on {one['right']} of {decided}{unsure}."


def _unfinished(models: Sequence[Facts]) -> list[str]:
    names = [model["name"] for model in models if not any(r["finished"] for r in model["raters"])]
    if not names:
        return []
    return [f"Not recorded, for nobody has judged all scenes: {', '.join(names)}."]
