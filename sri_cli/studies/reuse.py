"""Runs of earlier studies that are runs of this one: `runs_of` of a protocol."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sri_cli.atomic import list_folder
from sri_cli.checkpoint import read_meta
from sri_cli.config.load import recipe_from_dict
from sri_cli.config.schema import Recipe, flatten
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.run import Workspace, checkpoints_in
from sri_cli.studies.protocol import Study
from sri_cli.training.run_folder import FREE_KEYS

# These may differ when a run is resumed, but not between two runs that count as one.
COMPARED = {"train.steps", "train.precision", "model.encoder"}


def with_reused_runs(workspace: Workspace, study: Study, data: DataFile) -> Study:
    """The study, its runs in the folders of equal, finished runs of the studies of `runs_of`.

    Equal are all settings of the recipe, the seed, the number of steps and the images. Such a run
    is only measured.
    """
    earlier: list[tuple[dict[str, Any], Path]] = []
    for name in study.protocol.runs_of:
        folder = workspace.runs_root / f"study-{name}"
        runs = list(_finished(folder, data))
        if not runs:
            print(f"Note: {folder} has no finished run of these images", file=sys.stderr)
        earlier += runs
    if not earlier:
        return study
    reused = {}
    for run in study.runs():
        settings = _settings(run.recipe)
        equal = [path for others, path in earlier if others == settings]
        if equal and not checkpoints_in(run.run_dir):  # it has no weights of its own yet
            reused[run.name] = equal[0]
    return replace(study, reused=reused)


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
