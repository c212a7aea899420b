"""The command line in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from sri_cli.cli.main import cli


def sri(*words: str) -> Result:
    """`sri WORDS`."""
    return CliRunner().invoke(cli, list(words))
