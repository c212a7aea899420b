"""The help texts and the options of every command.

After a change of a help text run `python tests/cli/test_help.py`, and read the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sri_cli.cli.main import VERBS, cli

STORED = Path(__file__).parent / "help.txt"

# The command line of DESIGN: options that scripts rely on, by command.
CONTRACT = {
    "prepare shapestacks": "from size scenes views seed workers out preset force offline",
    "prepare objects-room": "from size scenes seed workers out force offline",
    "prepare clevr6": "from size scenes seed workers out force offline",
    "prepare folder": "size crop strict seed workers out force",
    "prepare": "list",
    "recipes validate": "all",
    "train": "recipe data run steps gpus seed fresh dry-run json",
    "sample": "run slots temp num seed out format masks",
    "order": "run num seed out json",
    "eval": "run images metrics features num split inception-weights table json",
    "label-sacc": "run images num rater port no-browser summary json",
    "figure": "run out",
    "walk": "run out",
    "edit": "run out",
    "report": "run out",
    "bench train": "recipe gpus profile json",
    "bench sample": "recipe profile json",
    "bench data": "recipe json",
    "import": "recipe run",
    "doctor": "json",
}


def commands(command: click.Command, path: str = "sri") -> Iterator[tuple[str, click.Command]]:
    """A command and everything below it, with the words that call each."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
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
    assert help_texts() == STORED.read_text("utf-8")


def test_contract() -> None:
    options = {
        path.removeprefix("sri "): {opt for p in command.params for opt in p.opts}
        for path, command in commands(cli)
    }
    missing = {
        path: [name for name in names.split() if f"--{name}" not in options[path]]
        for path, names in CONTRACT.items()
    }
    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize("verb", ["judge", "reconstruct"])
def test_removed_verbs(verb: str) -> None:
    assert verb not in VERBS


if __name__ == "__main__":
    STORED.write_text(help_texts(), "utf-8")
