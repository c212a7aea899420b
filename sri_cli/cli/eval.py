"""`sri eval`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sri_cli.cli.options import (
    DATA_OF_RUN,
    DYNAMIC_SLOTS,
    IMAGE_FOLDERS,
    JSON,
    SPLIT,
    seed_option,
)
from sri_cli.run import Workspace

OWN = "ari,msc,elbo,order"
OF_PICTURES = "stack-fd,sacc-estimate,fid"


@click.command()
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Repeat for several runs.")
@IMAGE_FOLDERS
@click.option(
    "--metrics",
    metavar="NAMES",
    help=f"Of {OWN} (left out: these) and {OF_PICTURES}; the last three alone work with --images.",
)
@DATA_OF_RUN
@SPLIT
@click.option(
    "--num",
    type=int,
    help="Images. Left out: 320 from all over the split; fid 10000 real and generated, stack-fd"
    " 2000, sacc-estimate 1000, all of a folder.",
)
@seed_option("Of posterior samples and new scenes.")
@click.option(
    "--features",
    type=click.Choice(["pool3", "random"]),
    default="pool3",
    show_default=True,
    help="Of fid: Inception's, or untrained ones, which need no weights and are no FID.",
)
@click.option(
    "--inception-weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Left out: SRI_INCEPTION_WEIGHTS, else torch hub's copy, else fetched.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing.")
@click.option(
    "--table",
    "style",
    type=click.Choice(["text", "markdown", "latex"]),
    help="Print the paper's tables with these runs beside the published rows.",
)
@click.option("--recorded", is_flag=True, help="Measure nothing; show what was measured before.")
@JSON
@DYNAMIC_SLOTS
@click.pass_obj
def command(
    workspace: Workspace,
    runs: tuple[str, ...],
    folders: tuple[Path, ...],
    metrics: str | None,
    data: str | None,
    split: str,
    num: int | None,
    seed: int,
    features: str,
    inception_weights: Path | None,
    offline: bool,
    style: str | None,
    recorded: bool,
    as_json: bool,
    dynamic_slots: bool,
) -> None:
    """Measure trained models or folders of pictures; runs keep it in their metrics.jsonl."""
    from sri_cli.metrics.evaluate import parse_metrics
    from sri_cli.metrics.evaluate_runs import evaluate_all, show_recorded
    from sri_cli.metrics.measured_words import tables, words
    from sri_cli.metrics.picture_metrics import Wanted

    names = None if metrics is None else parse_metrics(metrics)
    wanted = Wanted(names, data, split, num, seed, features, inception_weights, offline)
    if recorded:
        records = show_recorded(workspace, runs, folders, wanted)
    else:
        records = evaluate_all(workspace, runs, folders, wanted, dynamic_slots)
    if as_json:
        click.echo(json.dumps({"results": records.measured}))
    else:
        click.echo(words(records.measured) if style is None else tables(records.known, style))
