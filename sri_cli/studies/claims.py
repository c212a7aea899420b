"""What a study claimed before its runs, held against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from sri_cli.studies.protocol import MEASURES, Protocol

Values = Mapping[tuple[str, int], float | None]  # (system, seed) -> value; absent: not there yet

CONFIRMED, REFUTED = "confirmed", "refuted"
UNDECIDED, IN_FAVOUR = "undecided", "undecided, in favour"


@dataclass(frozen=True)
class Verdict:
    """`better` than `than` by `measure`: what came out, and each system's values by seed."""

    better: str
    than: str
    measure: str
    verdict: str
    values: tuple[list[float | None], list[float | None]]


def judge(protocol: Protocol, measured: Mapping[str, Values]) -> list[Verdict]:
    """Every claim by each of its measures; `measured`: measure -> values."""
    return [
        _judge(claim.better, than, by, protocol.seeds, measured[by])
        for claim in protocol.claims
        for than in claim.than
        for by in claim.by
    ]


def _judge(better: str, than: str, by: str, seeds: Sequence[int], values: Values) -> Verdict:
    pair = tuple([values.get((system, seed)) for seed in seeds] for system in (better, than))
    ours, theirs = pair
    known = [[v for v in some if v is not None] for some in pair]
    if any(len(some) < len(seeds) for some in known):
        least = min(len(some) for some in known)
        verdict = f"open: {least} of {len(seeds)} seeds"
    else:
        verdict = compare(known[0], known[1], MEASURES[by].lower_is_better)
    return Verdict(better, than, by, verdict, (ours, theirs))


def compare(ours: Sequence[float], theirs: Sequence[float], lower_is_better: bool) -> str:
    """Confirmed: the mean is better and every one of ours is better than every one of theirs.

    Undecided, in favour: only the mean. Refuted: the mean is worse. Equal means: undecided.
    """
    sign = -1 if lower_is_better else 1
    ours, theirs = [sign * v for v in ours], [sign * v for v in theirs]
    if mean(ours) < mean(theirs):
        return REFUTED
    if mean(ours) == mean(theirs):
        return UNDECIDED
    return CONFIRMED if min(ours) > max(theirs) else IN_FAVOUR
