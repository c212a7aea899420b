"""Shell completion: what click offers for a line, and one real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from sri_cli.cli.main import VERBS, cli
from sri_cli.config.registry import recipe_names, study_names
from sri_cli.metrics.records import ALL
from sri_cli.run import SHIPPED, Workspace
from tests.cli.test_main import HEAVY
from tests.small_cli import finish, start

pytestmark = pytest.mark.usefixtures("workspace", "here")


def offered(line: str) -> list[str]:
    """What is offered for the last word of a line; "(file)" or "(dir)" where the shell looks."""
    *words, last = line.split(" ")
    items = ShellComplete(cli, {}, "sri", "_SRI_COMPLETE").get_completions(words, last)
    return [item.value if item.type == "plain" else f"({item.type})" for item in items]


def test_verbs_and_options() -> None:
    assert offered("") == list(VERBS)
    assert offered("re") == ["recipes", "report"]
    assert {"--debug", "--runs-root"} <= set(offered("--"))
    assert offered("runs ") == ["diff", "ls", "rm"]
    assert "--seed" in offered("sample --s") and "--num" in offered("sample --slots 3 --")
    assert offered("figure sam") == ["samples"] and offered("runs ls --sort si") == ["size"]
    assert "--data-root" in offered("misspelt --")  # no error
    assert "--list" in offered("prepare misspelt --")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train sri-m", ["sri-mog"]),
        ("train --recipe ", recipe_names()),
        ("train --recipe sri-mog si", ["size=small", "size=tiny"]),
        ("train sri-mog si", ["size=small", "size=tiny"]),
        ("train mine.y", ["(file)"]),
        ("train --tracker m", ["mlflow"]),
        ("recipes show ", recipe_names()),
        ("bench train --recipe genesis-s", ["genesis-scene"]),
        ("study ", study_names()),
        ("sample --run ", ["other", "study-x/a", "tiny", *SHIPPED]),
        ("eval --run tiny --run o", ["other"]),
        ("sample --run elsewhere/", ["(dir)"]),
        ("runs diff tiny t", ["tiny"]),
        ("runs rm stu", ["study-x/a", "study-x/b", "study-x"]),
        ("train --data d", ["demo-towers"]),
        ("prepare show d", ["demo-towers"]),
        ("eval --data x", ["(file)"]),
        ("eval --metrics ", list(ALL)),
        ("eval --metrics ari,s", [f"ari,{name}" for name in ALL if name[0] == "s"]),
        ("eval --split t", ["train", "test"]),
    ],
)
def test_names(workspace: Workspace, line: str, words: list[str]) -> None:
    shutil.copytree(workspace.runs_root / "tiny", workspace.runs_root / "study-x" / "a")
    (workspace.runs_root / "study-x" / "b").mkdir()
    (workspace.runs_root / "study-x" / "b" / "log.jsonl").touch()
    assert offered(line) == words


def test_names_are_of_the_folders_that_are_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert offered("sample --run ") == list(SHIPPED)
    assert offered(f"--runs-root {workspace.runs_root} sample --run t") == ["tiny"]
    monkeypatch.setenv("SRI_DATA", str(workspace.data_root))
    assert offered("train --data d") == ["demo-towers"]


def test_a_real_bash(tmp_path: Path) -> None:
    """The script that users put into their .bashrc, in the time between two keys."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "bin" / "sri"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sri_cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    script = """
eval "$(_SRI_COMPLETE=bash_source sri)"
complete -p sri >/dev/null || exit 1
COMP_WORDS=(sri sample --run t) COMP_CWORD=3
_sri_completion sri
echo "${COMPREPLY[@]}"
"""
    shown = subprocess.run(
        [bash, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "tiny\n", shown
    environment |= {"COMP_WORDS": "sri eval --run tiny --metrics a", "COMP_CWORD": "5"}
    environment["_SRI_COMPLETE"] = "bash_complete"
    code = "import sys; from sri_cli.cli.main import cli\ntry: cli.main()\n"
    code += "except SystemExit: print(*sys.modules, file=sys.stderr)"
    out, err = finish(start(code=code, env=environment))
    assert out == "plain,ari\n" and not HEAVY & set(err.split())
