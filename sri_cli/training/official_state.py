"""The training state of an official checkpoint put into ours, as far as it can be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sri_cli.training.official_file import OfficialFile, as_number
from sri_cli.training.official_match import Match
from sri_cli.training.step import TrainStep

# Under which keys a file keeps multiplier and moving average, objective by objective.
GECO_KEYS = (("beta", "err_ema"), ("beta_sri", "err_sri_ema"))
MOMENTS = ("exp_avg", "exp_avg_sq")
Moments = dict[str, Tensor]


def take_up_state(step: TrainStep, official: OfficialFile, found: Match) -> list[str]:
    """Adam's moments and GECO's multipliers, where the file has them; notes for the user."""
    state = step.state()
    moments, why = read_moments(official, found)
    if moments:
        state["optimiser"]["state"] = place_moments(step, found, moments)
    told = [told_of_adam(moments, why)]
    betas = read_gecos(step, official, found)
    for name, value in betas.items():
        state["gecos"][name] = torch.full_like(state["gecos"][name], value)
    told.append(told_of_gecos(betas))
    step.load_state(state)
    return told


def read_moments(official: OfficialFile, found: Match) -> tuple[dict[str, Moments], str]:
    """Official name -> Adam's state; and, where there is none, why.

    An optimiser's state knows no names: the i-th entry is the i-th parameter in the official
    order, if number and shapes agree.
    """
    try:
        groups, state = official.optimiser["param_groups"], official.optimiser["state"]
        keys = [key for group in groups for key in group["params"]]
        entries = {i: adam_entry(state[key]) for i, key in enumerate(keys) if key in state}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return {}, "the file holds no state of Adam"
    if not entries:
        return {}, "the state of Adam in the file is empty"
    for order in orders(official, found):
        if len(order) == len(keys) and all(
            moment.shape == official.tensors[order[i]].shape
            for i, entry in entries.items()
            for moment in (entry[name] for name in MOMENTS)
        ):
            return {order[i]: entry for i, entry in entries.items()}, ""
    return {}, f"its {len(keys)} moments in the file do not fit the parameters"


def adam_entry(entry: Mapping[str, Any]) -> Moments:
    """`step` and both moments of one parameter; ValueError for what Adam cannot go on from."""
    count = as_number(entry["step"])
    moments = {name: entry[name] for name in MOMENTS}
    if count is None or not all(moment.isfinite().all() for moment in moments.values()):
        raise ValueError("not finite")
    return {"step": torch.tensor(count), **moments}


def orders(official: OfficialFile, found: Match) -> list[list[str]]:
    """What the optimiser's i-th parameter may be: with and without GECO's scalars and strangers."""
    weights, scalars = set(found.weights.values()), set(found.scalars.values())
    known = [name for name in found.order if name in weights]
    with_scalars = [name for name in found.order if name in weights | scalars]
    return [known, with_scalars, found.order]


def place_moments(
    step: TrainStep, found: Match, moments: Mapping[str, Moments]
) -> dict[int, dict[str, Tensor]]:
    """The same by the index of our parameter, laid out in memory as that is."""
    named = [(name, p) for name, p in step.model.named_parameters() if p.requires_grad]
    placed = {}
    for i, (name, parameter) in enumerate(named):
        entry = moments.get(found.weights[name])
        if entry is not None:
            placed[i] = {"step": entry["step"]} | {
                # The fused kernel walks parameter and moments side by side.
                key: torch.empty_like(parameter).detach().copy_(entry[key])
                for key in MOMENTS
            }
    return placed


def read_gecos(step: TrainStep, official: OfficialFile, found: Match) -> dict[str, float]:
    """Values of GECO's buffers by name, as `imagination.beta`; only what the file holds."""
    values = {
        ours.removeprefix("gecos."): as_number(official.tensors[name])
        for ours, name in found.scalars.items()
    }
    for objective, keys in zip(step.model.objective_names, GECO_KEYS, strict=False):
        for buffer, key in zip(("beta", "err_ema"), keys, strict=True):
            values.setdefault(f"{objective}.{buffer}", official.number(key))
    kept = step.gecos.state_dict()
    known = {name: value for name, value in values.items() if value is not None and name in kept}
    return known | steps_seen(step, official, known)


def steps_seen(
    step: TrainStep, official: OfficialFile, known: Mapping[str, float]
) -> dict[str, float]:
    """How many steps each GECO has behind it: a moving average of 0 has not begun.

    A file that does not say is taken to be past the warm-up.
    """
    seen = {}
    for name, geco in step.gecos.items():
        begun = known.get(f"{name}.err_ema") or known.get(f"{name}.gap_ema")
        if begun:
            seen[f"{name}.seen"] = float(official.step or geco.warmup + 1)  # type: ignore[operator]
    return seen


def told_of_adam(moments: Mapping[str, Moments], why: str) -> str:
    """A note for the user."""
    return f"Adam goes on with {len(moments)} moments" if moments else f"Adam starts afresh: {why}"


def told_of_gecos(values: Mapping[str, float]) -> str:
    """A note for the user."""
    betas = [f"{name} {value:.4g}" for name, value in values.items() if name.endswith(".beta")]
    return f"GECO goes on from {', '.join(betas)}" if betas else "GECO starts afresh"
