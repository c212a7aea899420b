"""The run that a looking verb is asked about, and what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli.checkpoint import LoadedModel, load_model
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.run import Workspace


@dataclass(frozen=True)
class Trained:
    """A loaded model; `caption` names its data for figures, as 'demo-towers, simulated'."""

    loaded: LoadedModel
    caption: str

    @property
    def title(self) -> str:
        """Run, step and data, for captions."""
        return f"{self.loaded.run_dir.name}, step {self.loaded.step}, {self.caption}"


def open_run(workspace: Workspace, run: str | None = None, dynamic_slots: bool = False) -> Trained:
    """The run's newest good checkpoint (None: the latest run), on a GPU where there is one.

    `dynamic_slots`: each image gets as many slots as it wants, at most those of training; SriError
    for a model that cannot.
    """
    loaded = load_model(workspace.find_run(run), choose_device())
    if dynamic_slots:
        stage: Any = getattr(loaded.model, "segregate", None)
        if not hasattr(stage, "dynamic_slots"):
            raise SriError(
                f"--dynamic-slots: {loaded.recipe.name} does not take images apart as GENESIS-v2"
                " does, slot by slot until nothing is left",
                "leave it out, or name another run",
            )
        stage.dynamic_slots = True
    return Trained(loaded, _caption(workspace, loaded))


def open_data(workspace: Workspace, loaded: LoadedModel, data: str | None = None) -> DataFile:
    """The data file named, or the one that the model was trained on; SriError when missing.

    A file that was moved is looked for under the name of its data set, not the recipe's.
    """
    recipe = loaded.recipe
    trained_on = loaded.extra.get("source", {}).get("file")
    if data is None and trained_on is not None and Path(trained_on).is_file():
        return DataFile(Path(trained_on))
    return DataFile(workspace.find_data(data or data_name(loaded), recipe.model.image_size))


def data_name(loaded: LoadedModel) -> str:
    """The data set that it was trained on; where that is not known, the recipe's."""
    return str(loaded.extra.get("data", {}).get("name") or loaded.recipe.data)


def _caption(workspace: Workspace, loaded: LoadedModel) -> str:
    """As the checkpoint remembers it: sampling needs no data, so the file may be gone."""
    if "source" in loaded.extra:
        return str(loaded.extra["source"]["caption"])
    try:
        return open_data(workspace, loaded).caption
    except SriError:
        return f"{data_name(loaded)} (data file not here)"
