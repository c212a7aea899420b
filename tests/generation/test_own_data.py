"""A run trained on a file of the user's own: later verbs find it and say what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli


def sri(*words: str) -> Result:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == 0, result.output
    return result


def test_a_run_remembers_its_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_small_data: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = write_small_data(tmp_path / "mine-32.h5")
    small = ["train.batch=4", "model.slots=2", "model.slot_size=8", "model.scene_size=8"]
    sri("train", "--recipe", "sri-mog-tiny", "--data", str(own), "--steps", "1", *small)
    sri("figure", "reconstructions", "--num", "2")
    own.unlink()
    assert "mine, simulated" in sri("sample", "--num", "2").stdout
