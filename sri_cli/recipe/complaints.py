"""What is wrong with a recipe, in the user's words: all of it, each with its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sri_cli.errors import did_you_mean
from sri_cli.recipe.schema import Recipe

WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a section of keys",
    "finite_number": "a finite number",
}
BOUNDS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of}",
}


def complaints(error: ValidationError) -> list[str]:
    """One phrase for each fault that the schema found, in the order of the recipe."""
    return [_phrase(fault) for fault in error.errors(include_url=False)]


def all_keys(schema: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every key of a recipe, dotted: name, ..., model, model.system, ..., train, ..."""
    keys = []
    for name, field in schema.model_fields.items():
        kind: Any = field.annotation
        nested = isinstance(kind, type) and issubclass(kind, BaseModel)
        keys += [prefix + name, *(all_keys(kind, f"{prefix}{name}.") if nested else [])]
    return keys


def suggest_key(key: str) -> str:
    """` (did you mean train.lr?)` for `lr`, `train.lrr` or `train.batch_size`; or nothing."""
    leaf = key.rpartition(".")[2]
    known = all_keys()
    exact = [name for name in known if name.rpartition(".")[2] == leaf]
    return did_you_mean(exact[0] if exact else key, known)


def _phrase(fault: Any) -> str:
    """Our words for one of pydantic's faults."""
    key = _key(fault["loc"])
    value, context, kind = fault["input"], fault.get("ctx", {}), fault["type"]
    if kind == "extra_forbidden":
        return f"{key}: unknown key{suggest_key(key)}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "literal_error":
        return f"{key}: wants one of {_choices(key)}, not {value!r}{_near(key, value)}"
    if kind == "value_error":  # raised by our own validators, which name the key themselves
        return f"{key}.{context['error']}" if fault["loc"] else str(context["error"])
    if kind in WANTED:
        return f"{key}: wants {WANTED[kind]}, not {value!r}"
    if kind in BOUNDS:
        return f"{key}: {BOUNDS[kind].format(**context)}, not {value!r}"
    return f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, not {value!r}"


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc) or "recipe"


def _choices(key: str) -> str:
    return ", ".join(str(value) for value in _literals(key))


def _near(key: str, value: Any) -> str:
    return did_you_mean(str(value), [str(known) for known in _literals(key)])


def _literals(key: str) -> tuple[Any, ...]:
    """The values that a key of kind Literal may have."""
    schema: Any = Recipe
    *sections, leaf = key.split(".")
    for section in sections:
        schema = schema.model_fields[section].annotation
    return get_args(schema.model_fields[leaf].annotation)
