"""What is wrong with a recipe, in the user's words: all of it, each with its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sri_cli.config.schema import Recipe
from sri_cli.errors import did_you_mean

WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a section of keys",
    "dict_type": "a section of keys",
    "list_type": "a list",
    "finite_number": "a finite number",
}
BOUNDS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of}",
}


def complaints(error: ValidationError, schema: type[BaseModel] = Recipe) -> list[str]:
    """One phrase for each fault that the schema found, in the order of the file."""
    return [_phrase(fault, schema) for fault in error.errors(include_url=False)]


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


def _phrase(fault: Any, schema: type[BaseModel]) -> str:
    """Our words for one of pydantic's faults."""
    loc = fault["loc"]
    key = _key(loc)
    value, context, kind = fault["input"], fault.get("ctx", {}), fault["type"]
    if kind == "extra_forbidden":
        near = suggest_key(key) if schema is Recipe else _near(loc[-1], _fields(schema, loc[:-1]))
        return f"{key}: unknown key{near}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "literal_error":
        known = [str(choice) for choice in get_args(_kind(schema, loc))]
        return f"{key}: wants one of {', '.join(known)}, not {value!r}{_near(value, known)}"
    if kind == "value_error":  # raised by our own validators, which name the key themselves
        return f"{key}.{context['error']}" if fault["loc"] else str(context["error"])
    if kind in WANTED:
        return f"{key}: wants {WANTED[kind]}, not {value!r}"
    if kind in BOUNDS:
        return f"{key}: {BOUNDS[kind].format(**context)}, not {value!r}"
    return f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, not {value!r}"


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc) or "recipe"


def _near(word: Any, known: Sequence[str]) -> str:
    return did_you_mean(str(word), known)


def _fields(schema: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys of the section at `loc`."""
    kind = _kind(schema, loc)
    return list(kind.model_fields) if hasattr(kind, "model_fields") else []


def _kind(schema: type[BaseModel], loc: Sequence[int | str]) -> Any:
    """What may stand at `loc`: a section, a type, a Literal."""
    kind: Any = schema
    for part in loc:
        if hasattr(kind, "model_fields"):
            kind = kind.model_fields[part].annotation
        else:  # a mapping of names or a list
            kind = get_args(kind)[-1]
    return kind
