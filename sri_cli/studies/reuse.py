"""Runs of earlier studies that are runs of this one: `runs_of` of a protocol.

Where the folder of such a run is gone, its values in the summary of the earlier study count; those
in the summary of this study likewise, so that it goes on after its folders were lost or removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sri_cli.atomic import list_folder
from sri_cli.checkpoint import read_meta
from sri_cli.config.load import recipe_from_dict
from sri_cli.config.schema import Recipe, flatten
from sri_cli.console import warn
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import checkpoints_in
from sri_cli.strict_json import from_json
from sri_cli.studies.protocol import SUMMARY_FILE, Study
from sri_cli.studies.status import fulfils
from sri_cli.training.run_folder import FREE_KEYS

# These may differ when a run is resumed, but not between two runs that count as one.
COMPARED = {"train.steps", "train.precision", "model.encoder"}


def with_reused_runs(study: Study, data: DataFile) -> Study:
    """The study, its runs in the folders of equal, finished runs of the studies of `runs_of`.

    Equal are all settings of the recipe, the seed, the number of steps and the images. Such a run
    is only measured. Of a run that has no folder any more, the values in the summary of its study
    count if all that this study measures is there. A run of this study itself counts so as well,
    if it has no folder at all.
    """
    earlier: list[tuple[dict[str, Any], Path]] = []
    values: dict[tuple[str, int], dict[str, Any]] = {}
    own = _recorded(study.folder, study, data)
    for name in study.protocol.runs_of:
        folder = study.folder.with_name(f"study-{name}")
        runs, summary = list(_finished(folder, data)), _recorded(folder, study, data)
        if not runs and not summary:
            warn(f"Note: {folder} has no finished run of these images")
        earlier += runs
        values = summary | values
    reused, recorded = {}, {}
    for run in study.runs():
        if checkpoints_in(run.run_dir):  # it has weights of its own
            continue
        settings, key = _settings(run.recipe), (study.recipe_digest(run.system), run.seed)
        equal = [path for others, path in earlier if others == settings]
        if equal:
            reused[run.name] = equal[0]
        elif key in values:
            recorded[run.name] = values[key]
        elif key in own and not run.run_dir.exists():  # else begun, or diverged and tried again
            recorded[run.name] = own[key]
    return replace(study, reused=reused, recorded=recorded)


def _recorded(folder: Path, study: Study, data: DataFile) -> dict[tuple[str, int], dict[str, Any]]:
    """(digest of the recipe, seed) -> the entry of a run in the summary in a study's folder.

    In a summary by the same protocol a system's recipe is the same, whatever its description says.
    """
    try:
        summary = from_json((folder / SUMMARY_FILE).read_bytes())
        same_images = summary["data"]["sha256"] == str(data.attrs["sha256"])
    except (OSError, ValueError, TypeError, KeyError):  # missing, or not of a study
        return {}
    split = study.protocol.split
    if not same_images or summary.get("split", "test") != split:  # version 0.1 does not name it
        return {}
    labels = summary["data"].get("labels")
    if labels is not None and labels != data.split(split).labels_digest:
        return {}
    entries = {}
    for run in summary["runs"]:
        how = summary["how"]
        measured = {key: how[key] | own | {"metric": key} for key, own in run["metrics"].items()}
        complete = all(
            any(fulfils(m, metric, num, data.counts[split]) for m in measured.values())
            for metric, num in study.protocol.metrics.items()
        )
        if run["diverged"] or (complete and run["step"] == summary["steps"]):
            system = run["system"]
            digest = summary["systems"][system]["recipe_sha256"]
            if summary.get("protocol_sha256") == study.digest():
                digest = study.recipe_digest(system)
            origin = {"run_of": run.get("run_of", summary["study"]), "metrics": measured}
            entries[digest, run["seed"]] = run | origin
    return entries


def _finished(folder: Path, data: DataFile) -> Iterator[tuple[dict[str, Any], Path]]:
    """Settings and folder of each run of a study that trained on these images to its end."""
    for run_dir in list_folder(folder):
        checkpoints = checkpoints_in(run_dir)
        try:
            saved = read_meta(checkpoints[-1]) if checkpoints else None
            recipe = recipe_from_dict(saved["recipe"]) if saved else None
        except SriError:  # damaged, or of a newer version
            continue
        if saved is None or recipe is None or {"imported", "started_from"} & saved["extra"].keys():
            continue
        content = saved["extra"].get("data", {}).get("content")
        if content == str(data.attrs["sha256"])[:16] and saved["step"] == recipe.train.steps:
            yield _settings(recipe), run_dir


def _settings(recipe: Recipe) -> dict[str, Any]:
    """All values that decide what is learned."""
    left_out = FREE_KEYS - COMPARED
    return {k: value for k, value in flatten(recipe.model_dump()).items() if k not in left_out}
