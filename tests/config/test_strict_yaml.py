"""YAML scalars as people mean them, and the mistakes that plain PyYAML lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.errors import SriError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("5E3", 5000.0), ("-2.265", -2.265), (".5", 0.5), ("0.7", 0.7)),
        *(("500_000", 500_000), ("-3", -3), ("0", 0), ("true", True), ("null", None), ("", None)),
        *(("010", "010"), ("0x10", "0x10"), ("1:30", "1:30"), ("on", "on"), ("no", "no")),
        *(("'1e-4'", "1e-4"), ("2024-01-01", "2024-01-01")),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read = read_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)
    assert read_yaml(write_yaml(read), "here") == value


def test_every_duplicate_key_with_its_line() -> None:
    with pytest.raises(SriError) as error:
        read_yaml("a: 1\nb: {c: 1, c: 2}\na: 2\n", "file.yaml")
    for part in ("file.yaml", "line 3: a ", "line 2: c "):
        assert part in error.value.message


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\tx: 1", "a: !!python/name:os.system x", "*x"]
)
def test_broken_yaml_names_file_and_line(text: str) -> None:
    with pytest.raises(SriError, match="here .*line 1"):
        read_yaml(text, "here")
