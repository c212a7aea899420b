"""`sri report` as a user meets it: where the page is, and two lines for a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from tests.small_workspace import write_workspace


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_the_latest_run_s_page_lies_in_its_folder() -> None:
    result = sri("report")
    assert result.exit_code == 0, result.output
    assert result.stdout == "look: runs/tiny/report.html\n"
    html = Path("runs/tiny/report.html").read_text("utf-8")
    assert "sri report --run tiny" in html and "sri prepare " in html


def test_pages_elsewhere() -> None:
    assert sri("report", "--run", "tiny", "--out", "new/a.html").stdout == "look: new/a.html\n"
    assert [path.name for path in Path("new").iterdir()] == ["a.html"]
    assert sri("report", "--run", "other", "--run", "tiny").stdout == "look: report.html\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "tinny"], "did you mean tiny?"),
        (["--run", "tiny", "--run", "otter"], "did you mean other?"),
        (["--out", "runs"], "is a folder"),
        (["--out", "runs/tiny/log.jsonl"], "is no name of a page"),
    ],
)
def test_a_mistake_is_two_lines_and_writes_nothing(words: list[str], said: str) -> None:
    before = sorted(Path().rglob("*"))
    result = sri("report", *words)
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 2 and said in result.stderr
    assert sorted(Path().rglob("*")) == before
