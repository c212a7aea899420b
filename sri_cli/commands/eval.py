"""`sri eval`."""

from __future__ import annotations

import json

import click

from sri_cli.workspace import Workspace


@click.command()
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Repeat for several runs.")
@click.option(
    "--metrics", default="ari,msc,elbo,order", show_default=True, help="Comma-separated names."
)
@click.option("--data", metavar="NAME|FILE", help="Left out: what the run was trained on.")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--num", type=int, default=320, show_default=True, help="Images, from all over the split."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the posterior samples.",
)
@click.option(
    "--table",
    "style",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    show_default=True,
    help="How the table is printed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option(
    "--dynamic-slots", is_flag=True, help="As many slots as an image wants (GENESIS-v2 inside)."
)
@click.pass_obj
def command(
    workspace: Workspace,
    runs: tuple[str, ...],
    metrics: str,
    data: str | None,
    split: str,
    num: int,
    seed: int,
    style: str,
    dynamic_slots: bool,
    as_json: bool,
) -> None:
    """Measure trained models on a split; each result is added to its run's metrics.jsonl."""
    from sri_cli.looking.evaluate import evaluate_runs, words

    records = evaluate_runs(workspace, runs, metrics, data, split, num, seed, dynamic_slots)
    click.echo(json.dumps({"results": records}) if as_json else words(records, style))
