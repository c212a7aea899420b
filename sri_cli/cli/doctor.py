"""`sri doctor`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from sri_cli.cli.options import JSON
from sri_cli.strict_json import to_json


@click.command()
@JSON
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine, its packages, data and runs.

    Each line that is not ok names the command that fixes it. Nothing is changed. Exit code 2 means
    that something essential is missing.
    """
    from sri_cli.doctor import examine

    findings = examine(ctx.obj)
    exit_code = 2 if any(finding.essential for finding in findings) else 0
    if as_json:
        records = [asdict(finding) for finding in findings]
        click.echo(to_json({"exit_code": exit_code, "findings": records}))
        ctx.exit(exit_code)
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        fix = f"  ->  {finding.fix}" if finding.fix else ""
        text = " ".join(finding.text.split())
        click.echo(f"{finding.level:<8} {finding.topic:<{width}}  {text}{fix}")
    counts = Counter(finding.level for finding in findings)
    click.echo(f"\n{counts['problem']} problems, {counts['note']} notes")
    ctx.exit(exit_code)
