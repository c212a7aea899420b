"""Strict YAML: 1e-4 is a number, yes and 010 are strings, a duplicate key is an error.

PyYAML follows YAML 1.1, where `1e-4` is a string, `on` is true, `010` is 8, and the last of two
equal keys wins silently.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from sri_cli.errors import SriError

# YAML 1.2's core schema (numbers may group digits, as Python's do).
SCALARS = {
    "null": r"^(~|null|)$",
    "bool": r"^(true|false)$",
    "int": r"^[-+]?(0|[1-9][0-9]*(_[0-9]+)*)$",
    "float": r"^[-+]?(\.[0-9]+|(0|[1-9][0-9]*(_[0-9]+)*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$",
}


class StrictLoader(yaml.SafeLoader):
    """Collects duplicate keys, so that all are reported at once."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in lines:
                self.duplicates.append(f"line {line}: {key} is already on line {lines[key]}")
            lines.setdefault(key, line)
        return super().construct_mapping(node, deep=deep)


class StrictDumper(yaml.SafeDumper):
    """Writes what StrictLoader reads back as the same values."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


for _tag, _pattern in SCALARS.items():
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), None)


def read_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; SriError with `source` and line when it is not valid."""
    try:
        loader = StrictLoader(text)
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        raise SriError(
            f"{source} is not valid YAML: {_where(error)}", "correct that line"
        ) from error
    except Exception as error:  # of explicit tags, or nested too deeply
        raise SriError(
            f"{source} is not valid YAML: {type(error).__name__}: {error}", "write plain values"
        ) from error
    if loader.duplicates:
        raise SriError(f"{source}: {'; '.join(loader.duplicates)}", "keep one of them")
    return value


def write_yaml(value: Any) -> str:
    """YAML that `read_yaml` reads back as `value`."""
    return yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=100)


def _where(error: yaml.YAMLError) -> str:
    """`line 3: problem`."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else problem
