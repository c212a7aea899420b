"""`sri doctor`."""

from __future__ import annotations

import json

import click

from sri_cli.cli.options import JSON
from sri_cli.run import Workspace


@click.command()
@JSON
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Look at this machine, its packages, data and runs, and say what mends what is wrong.

    Nothing is changed. Exit code 2: something essential is missing.
    """
    from sri_cli.doctor.examine import examine
    from sri_cli.doctor.findings import exit_code, facts, words

    assert isinstance(ctx.obj, Workspace)
    found = examine(ctx.obj)
    click.echo(json.dumps(facts(found)) if as_json else words(found))
    ctx.exit(exit_code(found))
