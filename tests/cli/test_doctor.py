"""`sri doctor` as a user meets it: a line for each finding, and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sri_cli.cli.main import cli


def test_lines_and_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("in the way")
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 2, result.output
    *findings, empty, total = result.stdout.splitlines()
    assert empty == "" and total.startswith("1 problem, ")
    assert total.endswith("; something essential is missing")
    assert all(line.split()[0] in ("ok", "note", "problem") for line in findings)
    assert any(line.endswith("->  sri prepare shapestacks") for line in findings)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
