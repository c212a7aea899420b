"""The command line: help texts, options, exit codes, errors of two lines, a quick start.

After a change of a help text run `python -m tests.cli.test_main`, and read the difference.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sri_cli.atomic import SPACE
from sri_cli.cli.main import VERBS, cli
from sri_cli.errors import Diverged, Interrupted, SriError, SriFailure, Stopped
from sri_cli.run import Workspace
from tests.small_cli import ROOT, sri, start

HELP = Path(__file__).parent / "help.txt"

HEAVY = {"torch", "numpy", "h5py", "pydantic", "rich", "yaml", "mujoco", "scipy", "PIL", "jinja2"}


def with_failing_recipes(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `sri recipes` raise `error`, as any command might."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr("sri_cli.cli.recipes.command", failing)


def commands(command: click.Command, path: str = "sri") -> Iterator[tuple[str, click.Command]]:
    """A command and everything below it, with the words that call each."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            yield from commands(below, f"{path} {name}")


def help_texts() -> str:
    """The help of every command, 100 columns wide."""
    texts = []
    for path, _ in commands(cli):
        words = [*path.split()[1:], "--help"]
        shown = CliRunner().invoke(cli, words, terminal_width=100, max_content_width=100)
        assert shown.exit_code == 0, shown.output
        texts.append(f"$ {path} --help\n{shown.output}")
    return "\n".join(texts)


def test_help_texts() -> None:
    assert help_texts() == HELP.read_text("utf-8")


def test_every_verb_has_its_summary() -> None:
    for verb, summary in VERBS.items():
        assert cli.get_command(click.Context(cli), verb).get_short_help_str(65) == summary


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = "import sys; from sri_cli.cli.main import cli\n" + (
        "try: cli.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {verb} " in shown.stdout for verb in VERBS)
    modules = shown.stdout.splitlines()[-1].split()
    assert not HEAVY & set(modules)
    verbs = {name for name in modules if name.startswith("sri_cli.cli.")}
    assert verbs == {"sri_cli.cli.main"}


def test_commands_of_the_readmes_have_options_that_exist() -> None:
    options = {
        path: {name for p in one.params for name in (*p.opts, *p.secondary_opts)}
        for path, one in commands(cli)
    }
    files = [ROOT / "README.md"]
    files += [one for part in ("recipes", "sri_cli") for one in (ROOT / part).rglob("README.md")]
    text = "\n".join(file.read_text("utf-8") for file in files).replace("\\\n", "")
    lines = re.findall(r"^(?:\$ |\| `)?(sri [^`\n]+)", text, re.MULTILINE)
    assert len(lines) > 40
    cards = [one.read_text("utf-8") for one in (ROOT / "sri_cli/pretrained").rglob("README.md")]
    for line in lines:
        words = shlex.split(line, comments=True)
        # An interactive zsh would take a comment for arguments.
        assert words == shlex.split(line) or any(line in card for card in cards), line
        path = max((p for p in options if words[: p.count(" ") + 1] == p.split()), key=len)
        named = {word for word in words if word.startswith("--")}
        assert named <= options[path] | options["sri"] | {"--help"}, line


def test_version() -> None:
    assert sri("--version").stdout.startswith("sri, version ")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (SriError("bad\n input", "fix it"), 2, ["Error: bad input", "fix it"]),
        (SriFailure("machine"), 1, ["Error: machine"]),
        (Diverged("loss"), 4, ["Error: loss"]),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.h5"),
            1,
            ["Error: could not write or read x.h5: No space left on device", SPACE],
        ),
        (
            MemoryError(),
            1,
            [
                "Error: not enough memory",
                "use less at once: a smaller train.batch, fewer slots, a smaller --num",
            ],
        ),
        (  # of a damaged file: nothing was stopped, and the same command would fail again
            EOFError("No data left in file"),
            1,
            [
                "Error: RuntimeError: a file ends too early (No data left in file)",
                "for the traceback: sri --debug recipes",
            ],
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            [
                "Error: ZeroDivisionError: division by zero",
                "for the traceback: sri --debug recipes",
            ],
        ),
    ],
)
def test_errors_of_a_command(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, lines: list[str]
) -> None:
    with_failing_recipes(monkeypatch, error)
    shown = sri("recipes")
    assert (shown.exit_code, shown.stderr.splitlines()) == (code, lines)


@pytest.mark.parametrize(
    ("error", "resumed", "code"),
    [
        (Interrupted("Stopped at step 5;\n saved.", "Resume with: sri"), False, 75),
        (Stopped("Stopped."), False, 130),
        (click.exceptions.Abort(), False, 130),
        (KeyboardInterrupt(), False, 130),
        (KeyboardInterrupt(), True, 75),
    ],
)
def test_a_wanted_stop_is_one_line_and_no_error(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, resumed: bool, code: int
) -> None:
    with_failing_recipes(monkeypatch, error)
    if resumed:
        monkeypatch.setattr("sri_cli.cli.main.RESUMED", {"recipes"})
    shown = sri("recipes")
    (line,) = shown.stderr.strip().splitlines()
    assert (shown.exit_code, line[:7]) == (code, "Stopped") and shown.stdout == ""


def test_an_error_that_nobody_reads_keeps_its_code() -> None:
    """As in `sri ... 2>&1 | tee log`, after the Ctrl-C that ends tee, too."""
    reader, writer = os.pipe()
    os.close(reader)
    unread = start("trian", stdout=writer, stderr=writer)
    os.close(writer)
    assert unread.wait(60) == 2


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("where", ["exec", "import"])
def test_a_signal_during_imports_ends_with_the_code_of_the_verb(
    tmp_path: Path, name: str, where: str
) -> None:
    """In source that is executed, as dataclasses do, and in an import of torch, which must end."""
    stop = f"import os, signal; os.kill(os.getpid(), signal.{name}); sum(range(10**6))"
    (tmp_path / "torch.py").write_text(f"{stop}; print('imported', flush=True)")
    work = "import torch; import time; time.sleep(9)" if where == "import" else f"exec({stop!r})"
    (tmp_path / "stopped.py").write_text(
        "import click, signal, sys\nfrom sri_cli.cli import main, recipes\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has the tests ignore it\n"
        "sys.argv = ['sri', 'recipes']\n"
        f"def work():\n    {work}\n"
        "recipes.command = click.Command('recipes', callback=work)\nmain.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr, done
    assert done.stdout == ("imported\n" if where == "import" else "")


def test_only_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with_failing_recipes(monkeypatch, ValueError("oh"))
    shown = sri("--debug", "recipes", code=1)
    assert "Traceback (most recent call last)" in shown.stderr
    assert shown.stderr.endswith("Error: ValueError: oh\n")


def test_roots_and_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Workspace, str, str]] = []

    @click.command()
    @click.option("--out")
    @click.argument("more")
    @click.pass_obj
    def show(workspace: Workspace, out: str, more: str) -> None:
        seen.append((workspace, out, more))

    monkeypatch.setattr("sri_cli.cli.recipes.command", show)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SRI_DATA", "/from/environment")
    assert sri("--runs-root", "elsewhere", "recipes", "--out=~/x", "a=~/x").exit_code == 0
    monkeypatch.setenv("SRI_DATA", "~/data")
    assert sri("--runs-root=~/runs", "recipes", "x").exit_code == 0
    (roots, *words), (at_home, *_) = seen
    assert roots == Workspace(Path("/from/environment"), Path("elsewhere"))
    assert words == ["/home/me/x", "a=~/x"]
    assert at_home == Workspace(Path("/home/me/data"), Path("/home/me/runs"))


if __name__ == "__main__":
    HELP.write_text(help_texts(), "utf-8")
