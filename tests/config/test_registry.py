"""Recipes are found by name and by file, listed, and copied with their comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sri_cli.cli.main import cli
from sri_cli.config.load import load_recipe
from sri_cli.config.registry import copy_recipe, recipe_names, recipe_path
from sri_cli.errors import SriError


def test_by_name_and_by_file(tmp_path: Path) -> None:
    assert recipe_path("sri-mog").name == "sri-mog.yaml"
    mine = tmp_path / "mine"
    mine.touch()
    assert recipe_path(str(mine)) == mine


def test_unknown_recipe(tmp_path: Path) -> None:
    with pytest.raises(SriError, match=r"no recipe sri-mgo \(did you mean sri-mog\?\)") as error:
        recipe_path("sri-mgo")
    assert "sri-mog" in (error.value.hint or "")
    with pytest.raises(SriError, match=r"nothing\.yaml"):
        recipe_path("nothing.yaml")
    with pytest.raises(SriError, match="folder"):
        recipe_path(str(tmp_path))


def test_copy_keeps_comments_and_takes_the_new_name(tmp_path: Path) -> None:
    copied = copy_recipe("sri-mog", tmp_path / "mine.yaml")
    assert load_recipe(str(copied)).name == "mine"
    assert copied.read_text().startswith("# SRI (segregate")
    assert copy_recipe("sri-mog", tmp_path) == tmp_path / "sri-mog.yaml"


def test_copy_refuses_to_overwrite(tmp_path: Path) -> None:
    target = copy_recipe("sri-mog", tmp_path / "mine.yaml")
    target.write_text("precious")
    with pytest.raises(SriError, match="mine.yaml"):
        copy_recipe("sri-mog", target)
    assert target.read_text() == "precious"
    with pytest.raises(SriError, match="mine"):
        copy_recipe("sri-mog", tmp_path / "mine")


def test_verbs(tmp_path: Path) -> None:
    def sri(*words: str) -> str:
        shown = CliRunner().invoke(cli, ["recipes", *words])
        assert shown.exit_code == 0, shown.stderr
        return shown.stdout

    lines = sri("ls").splitlines()
    assert lines[0].split() == ["NAME", "SYSTEM", "DATA", "SETS", "STEPS", "DESCRIPTION"]
    assert [line.split()[0] for line in lines[1:]] == recipe_names()
    assert sri("show", "sri-mog") == recipe_path("sri-mog").read_text()
    assert "mine.yaml" in sri("cp", "sri-mog", str(tmp_path / "mine.yaml"))
    assert sri("validate", "--all").count("ok  ") == len(recipe_names())
    assert sri("validate", str(tmp_path / "mine.yaml")).startswith("ok  ")


def test_validate_reports_all_faults_and_exits_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\ndata: x\nmodel: {system: sri, slotz: 2}\ntrain: {steps: 0}\n")
    shown = CliRunner().invoke(cli, ["recipes", "validate", str(bad)])
    assert shown.exit_code == 2
    first = shown.stderr.splitlines()[0]
    for fault in ("model.slotz", "train.steps", "train.geco_target"):
        assert fault in first
