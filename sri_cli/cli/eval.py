"""`sri eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sri_cli.cli import completion
from sri_cli.cli.options import (
    DATA_OF_RUN,
    DYNAMIC_SLOTS,
    IMAGE_FOLDERS,
    JSON,
    RUNS,
    SPLIT,
    THREADS,
    reject,
    seed_option,
    start_threads,
)
from sri_cli.cores import Threads
from sri_cli.run import Workspace
from sri_cli.strict_json import to_json

OF_FEATURES = {"features", "inception_weights", "offline"}
OF_MEASURING = {"metrics", "folders", "data", "split", "num", "seed", "dynamic_slots"}


@click.command()
@RUNS
@IMAGE_FOLDERS
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=completion.metrics,
    help="Comma-separated: ari, msc, elbo, order (the default for runs), mbo, miou, slots,"
    " matching, stack-fd, sacc-estimate, shapes, kid, fid. --images allows the last five only; its"
    " default is fid.",
)
@DATA_OF_RUN
@SPLIT
@click.option(
    "--num",
    type=int,
    metavar="N",
    show_default="320; order 256; fid 10000, kid, stack-fd, shapes 2000, sacc-estimate 1000; all of"
    " a folder",
    help="Number of images, from all over the split; of fid, kid, stack-fd and shapes real and"
    " generated; of order scenes, at most 256.",
)
@seed_option("Seed for posterior samples and new scenes.")
@click.option(
    "--features",
    type=click.Choice(["pool3", "random"]),
    default="pool3",
    help="Features for fid and kid. random needs no weights and is not called FID or KID.",
)
@click.option(
    "--inception-weights",
    type=click.Path(path_type=Path),
    metavar="PATH",
    show_default="SRI_INCEPTION_WEIGHTS, else torch hub's copy, else downloaded",
    help="Inception weights for fid and kid.",
)
@click.option("--offline", is_flag=True, help="Download nothing.")
@click.option(
    "--table",
    "style",
    type=click.Choice(["text", "markdown", "latex"]),
    is_flag=False,
    flag_value="text",
    help="Print what is recorded in the paper's tables, beside the published rows; text if no"
    " format is given. Measures nothing without --metrics.",
)
@click.option("--recorded", is_flag=True, help="Measure nothing; show what is recorded.")
@JSON
@DYNAMIC_SLOTS
@THREADS
@click.pass_context
def command(
    ctx: click.Context,
    runs: tuple[str, ...],
    folders: tuple[Path, ...],
    metrics: str | None,
    features: str,
    inception_weights: Path | None,
    offline: bool,
    style: str | None,
    recorded: bool,
    as_json: bool,
    threads: Threads,
    **options: Any,  # data, split, num, seed, dynamic_slots: passed on
) -> None:
    """Measure trained models or folders of generated images.

    Measurements of a run are appended to its metrics.jsonl. Of several of one metric, tables and
    reports show that of the largest sample.
    """
    from sri_cli.metrics.evaluate import evaluate_all, parse_metrics, show_recorded
    from sri_cli.metrics.image_metrics import ImageMetrics
    from sri_cli.metrics.records import METRICS, OF_MODEL, largest
    from sri_cli.metrics.tables import evaluation_text, paper_tables
    from sri_cli.metrics.tabular import format_tables

    workspace: Workspace = ctx.obj
    names = None if metrics is None else parse_metrics(metrics)
    if recorded or (style is not None and names is None):
        when = "with --recorded" if recorded else "where nothing is measured (add --metrics)"
        reject(ctx, OF_FEATURES | OF_MEASURING, when)
        known = show_recorded(workspace, runs)
        measured = largest(known)
    else:
        if {"fid", "kid"}.isdisjoint(names or (["fid"] if folders else [])):
            reject(ctx, OF_FEATURES, "without fid or kid among --metrics")
        inferring = {*OF_MODEL} - {"order"}
        if (folders and not runs) or inferring.isdisjoint(names or METRICS):
            reject(ctx, {"dynamic_slots"}, "without a run and a metric of its inferred slots")
        start_threads(threads)
        networks = ImageMetrics(workspace, features, inception_weights, offline)
        measured, known = evaluate_all(
            workspace, runs, folders, names, networks=networks, **options
        )
    if as_json:
        click.echo(to_json({"results": measured}))
    elif style is None:
        click.echo(evaluation_text(measured))
    else:
        click.echo(format_tables(paper_tables(known), style))
