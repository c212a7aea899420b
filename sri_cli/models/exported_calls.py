"""The calls of an exported program: ATen operations and integer arithmetic, by name, and no more.

The JSON is that of `torch.export.save`: a node is a target, inputs and outputs, and every argument
is an object with one key that tells its kind.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "neg", "pos", "getitem")
# Checks of the exporter's, which hold for other devices and sizes or do not matter.
CHECKS = ("torch.ops.aten._assert", "torch.ops.aten.sym_constrain", "_operator.ge", "_operator.le")
# A view was recorded for the memory layout of one device; attention has another elsewhere.
FREER = {"torch.ops.aten.view.default": "torch.ops.aten.reshape.default"}
# Words that change what an operation computes; a file name is none of them.
WORDS = ("none", "tanh", "floor", "trunc", "mean", "sum", "ij", "xy", "reflect", "constant")


class CannotRun(ValueError):
    """A file that is no such program, or one that asks for more than arithmetic on tensors."""


@dataclass(frozen=True)
class Name:
    """A value computed before; `Here` is the device of the images."""

    name: str


class Here:
    """Stands for a device that the file names."""


@dataclass(frozen=True)
class Call:
    """One step: results are stored under `outputs`; `done` are not needed after it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str | tuple[str, ...], ...]
    done: tuple[str, ...]


def calls_of(nodes: list[Any], keep: set[str]) -> tuple[Call, ...]:
    """The graph as calls, each with the names that no later one reads."""
    calls: list[Call] = []
    needed = set(keep)
    for node in reversed([n for n in nodes if not n["target"].startswith(CHECKS)]):
        # kind 2: keyword-only
        args = tuple(value(i["arg"]) for i in node["inputs"] if i.get("kind") != 2)
        kwargs = {i["name"]: value(i["arg"]) for i in node["inputs"] if i.get("kind") == 2}
        outputs = tuple(names_of(output) for output in node["outputs"])
        made = {n for names in outputs for n in ([names] if isinstance(names, str) else names)}
        read = names_in([*args, *kwargs.values()])
        done = tuple(sorted((read | made) - needed))
        calls.append(Call(function(node["target"]), args, kwargs, outputs, done))
        needed |= read
    return tuple(reversed(calls))


def function(target: str) -> Callable[..., Any]:
    """What a node calls; CannotRun for anything but ATen and integer arithmetic."""
    found = ATEN.fullmatch(FREER.get(target, target))
    if found and "file" not in found[1]:
        called = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if isinstance(called, torch._ops.OpOverload):
            return called
    name = target.removeprefix("_operator.")
    if name != target and name in ARITHMETIC:
        return getattr(operator, name)
    raise CannotRun(f"calls {target}")


def value(argument: Any) -> Any:
    """An argument of a call, from the one key that names its kind."""
    ((kind, content),) = argument.items()
    if kind in PLAIN:
        return content
    if kind in LOOKED_UP:
        return LOOKED_UP[kind](content)
    if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors"):
        return [reference(part) for part in content]
    if kind in ("as_tensor", "as_sym_int", "as_optional_tensor"):
        return reference(content)
    if kind == "as_string" and content in WORDS:
        return content
    raise CannotRun(f"an argument of kind {kind}: {content!r}"[:80])


PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools")
LOOKED_UP: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda content: None,
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": MEMORY_FORMATS.__getitem__,
    "as_layout": lambda content: torch.strided,
    "as_device": lambda content: Here(),
}


def reference(part: Any) -> Any:
    """A value by name, or a number in its place; inside lists and optionals."""
    if "name" in part:
        return Name(part["name"])
    ((kind, content),) = part.items()
    if kind == "as_tensor":
        return Name(content["name"])
    return None if kind == "as_none" else {"as_name": Name, "as_int": int}[kind](content)


def names_of(output: Any) -> str | tuple[str, ...]:
    """Where a result is stored; several names where it is a list."""
    ((kind, content),) = output.items()
    if kind == "as_tensors":
        return tuple(part["name"] for part in content)
    if kind in ("as_tensor", "as_sym_int"):
        return content.get("name") or content["as_name"]
    raise CannotRun(f"a result of kind {kind}")


def names_in(arguments: Any) -> set[str]:
    """Every name that arguments refer to."""
    if isinstance(arguments, Name):
        return {arguments.name}
    return set().union(*map(names_in, arguments)) if isinstance(arguments, list) else set()
