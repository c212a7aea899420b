"""The one data file of a study: made when it is missing, checked, fit for every system."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sri_cli.data.dataset import DataFile
from sri_cli.errors import Interrupted, SriError, SriFailure
from sri_cli.run import Workspace
from sri_cli.signals import StopFlag
from sri_cli.studies.file import Study
from sri_cli.studies.jobs import run_sri
from sri_cli.studies.protocol import DataSection
from sri_cli.training.trainer import check_data


def data_path(workspace: Workspace, section: DataSection) -> Path:
    """Where the protocol's data file lies, made or not."""
    if section.file is None:
        return workspace.data_path(section.name, section.size)
    return workspace.data_root / section.file


def find_data(workspace: Workspace, study: Study, stop: StopFlag, command: str) -> DataFile:
    """The data file, made when it is missing; SriError for one that is not what it should be.

    Images with another hash than the protocol names are told: they make another study.
    """
    section = study.protocol.data
    path = data_path(workspace, section)
    if not path.is_file() and section.prepare is not None:
        words = ["--data-root", str(workspace.data_root), "prepare", *shlex.split(section.prepare)]
        words += [] if section.file is None else ["--out", str(path)]
        print(shlex.join(["sri", *words]), file=sys.stderr, flush=True)
        code = run_sri(words, stop)
        if stop.name:
            raise Interrupted(
                f"stopped by {stop.name} while the data were made", f"go on: {command}"
            )
        if code != 0:
            raise SriFailure("the data could not be prepared", shlex.join(["sri", *words]))
    named = section.name if section.file is None else str(path)
    data = DataFile(workspace.find_data(named, section.size))
    if (data.name, data.size) != (section.name, section.size):
        raise SriError(
            f"{path} holds {data.name} of {data.size} px, not {section.name} of {section.size}",
            "move it away, or name another --data-root",
        )
    if not data.is_intact():
        raise SriError(f"the images of {path} are not those that were written", f"rm {path}")
    content = str(data.attrs["sha256"])
    if section.sha256 not in (None, content):
        print(
            f"Note: the images of {path} are others ({content[:12]}) than the protocol names"
            f" ({str(section.sha256)[:12]}): results may differ",
            file=sys.stderr,
        )
    check_images(study, data)
    return data


def check_images(study: Study, data: DataFile) -> None:
    """SriError for too few images, or masks that a metric lacks."""
    protocol = study.protocol
    for recipe in study.recipes.values():
        check_data(recipe, data)
    masked = {"ari", "msc"} & set(protocol.metrics)
    if masked and not data.split(protocol.split).has_masks:
        raise SriError(
            f"{data.path} holds no masks for {', '.join(sorted(masked))}", "leave them out"
        )
