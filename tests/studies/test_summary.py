"""A study's verdicts: what was claimed before, held against numbers."""

from __future__ import annotations

import pytest

from sri_cli.studies.protocol import Protocol
from sri_cli.studies.summary import compare, judge


@pytest.mark.parametrize(
    ("ours", "theirs", "lower", "verdict"),
    [
        ([3, 4, 5], [0, 1, 2], False, "confirmed"),
        ([0, 1, 2], [3, 4, 5], True, "confirmed"),
        ([3, 4, 5], [0, 1, 3], False, "undecided, in favour"),  # the last two seeds meet
        ([0, 1, 9], [3, 4, 5], True, "undecided, in favour"),
        ([0, 1, 2], [3, 4, 5], False, "refuted"),
        ([3, 4, 5], [4, 4, 1], True, "refuted"),
        ([1, 3], [2, 2], False, "undecided"),
    ],
)
def test_verdicts(ours: list[float], theirs: list[float], lower: bool, verdict: str) -> None:
    assert compare(ours, theirs, lower) == verdict


def test_a_claim_is_open_until_every_seed_of_both_is_there() -> None:
    protocol = Protocol.model_validate(
        {
            "name": "x",
            "data": {"name": "demo-towers", "size": 32},
            "steps": 1,
            "batch": 1,
            "seeds": [4, 7],
            "systems": {"a": None, "b": None, "c": None},
            "metrics": {"stack-fd": 10},
            "claims": [{"better": "a", "than": ["b", "c"], "by": ["stack-fd"]}],
        }
    )
    values = {("a", 4): 1.0, ("a", 7): 2.0, ("b", 4): 3.0, ("b", 7): None, ("c", 4): 3, ("c", 7): 4}
    first, second = judge(protocol, {"stack-fd": values})
    assert (first.than, first.verdict) == ("b", "open: 1 of 2 seeds")
    assert first.values == ([1.0, 2.0], [3.0, None])
    assert (second.than, second.verdict) == ("c", "confirmed")
