"""A run opened for use: its model in evaluation mode, and what it was trained from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sri_cli.checkpoint import checkpoint_path, newest_good
from sri_cli.config.load import recipe_from_dict
from sri_cli.config.schema import Recipe
from sri_cli.console import warn
from sri_cli.data.dataset import DataFile
from sri_cli.device import choose_device, keep_freed_memory
from sri_cli.errors import SriError
from sri_cli.hub import opened_from
from sri_cli.models.base import SlotVAE
from sri_cli.models.build import build_model
from sri_cli.run import Workspace


@dataclass(frozen=True)
class TrainedRun:
    """A model with the recipe, step and run folder of its checkpoint.

    `extra` is what the checkpoint records besides (data set, precision, origin), and what a copy of
    an exported model was opened from.
    """

    model: SlotVAE
    recipe: Recipe
    step: int
    run_dir: Path
    extra: dict[str, Any] = field(default_factory=dict)
    workspace: Workspace = Workspace(Path("data"), Path("runs"))
    _files: dict[str | None, DataFile] = field(default_factory=dict, repr=False)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint folder."""
        return checkpoint_path(self.run_dir, self.step)

    @property
    def data_name(self) -> str:
        """The data set that it was trained on; the recipe's where that is not recorded."""
        return str(self.extra.get("data", {}).get("name") or self.recipe.data)

    @cached_property
    def caption(self) -> str:
        """Its data in figures, as 'demo-towers, simulated'."""
        # Recorded in the checkpoint: sampling needs no data, so the file may be gone.
        if "source" in self.extra:
            return str(self.extra["source"]["caption"])
        try:
            return self.open_data().caption
        except SriError:
            return f"{self.data_name} (data file not here)"

    @property
    def title(self) -> str:
        """Run, step and data, for captions."""
        return f"{self.run_dir.name}, step {self.step}, {self.caption}"

    def open_data(self, name: str | None = None) -> DataFile:
        """The data file of this name or path, by default the one that it was trained on.

        Each file is opened once. If the file was moved, one of its name and images in the data
        folder is opened, or else the data set's name is looked up; if that holds other images, a
        note says so, except for an exported model.

        Raises:
            SriError: if there is no such file.
        """
        if name not in self._files:
            recorded = self.extra.get("source", {}).get("file")  # an exported model has none
            content = self.extra.get("data", {}).get("content", "")
            path = Path(recorded or "")
            moved = self.workspace.data_root / path.name  # with the data folder
            if name is None and not path.is_file() and moved.is_file():
                with suppress(SriError):  # damaged
                    if str(DataFile(moved).attrs["sha256"]).startswith(content):
                        path = moved
            if name is not None or not path.is_file():
                path = self.workspace.find_data(
                    name or self.data_name, self.recipe.model.image_size
                )
            file = self._files[name] = DataFile(path)
            own = str(file.attrs["sha256"]).startswith(content)
            if name is None and recorded and not own:
                warn(f"Note: {path} holds other images than {self.run_dir.name} was trained on")
        return self._files[name]


def slots_notes(runs: Sequence[TrainedRun], slots: int | None) -> list[str]:
    """What to expect of `slots` slots (None: as in training) where a run was trained with others.

    As seen in samples of an earlier shipped model (5 slots) with 3 to 9: without the last slots in
    order a smear replaces the block that they draw; from 6 on stacks do not grow, but more of them
    are broken (S-Acc estimate at temperature 1: 86 % with 5, 79 % with 6, 66 % with 8).
    """
    notes = []
    for run in runs:
        usual = run.model.num_slots
        if slots is not None and slots != usual:
            expect = (
                "what its last slots draw is missing or smeared"
                if slots < usual
                else "expect patches of other colours and torn objects, and hardly more objects"
            )
            notes.append(
                f"{run.run_dir.name} was trained with {usual} slots; with {slots}: {expect}"
            )
    return notes


def open_run(
    workspace: Workspace, run: str | None = None, dynamic_slots: bool = False, device: str = "auto"
) -> TrainedRun:
    """The run's newest intact checkpoint, by default on a GPU where there is one.

    Args:
        workspace: Where runs and data are.
        run: Folder or name of the run, by default the latest; or a checkpoint of it, in place of
            which the one before is opened where it is broken.
        dynamic_slots: Infer as many slots per image as it needs, at most those of training.
        device: As of `choose_device`.

    Raises:
        SriError: if there is no such run or device, none of its checkpoints is intact, or its model
            has no dynamic slots.
    """
    ref, chosen = workspace.find_run(run), choose_device(device)
    keep_freed_memory()
    saved = newest_good(ref.run_dir, ref.checkpoint)
    if saved is None:
        raise SriError(f"run {ref.run_dir} has no checkpoint yet", "train it: sri train ...")
    recipe = recipe_from_dict(saved.recipe)
    model = build_model(**recipe.model.model_dump())
    try:
        model.load_state_dict(saved.weights())
    except RuntimeError as error:  # torch's, about missing, unexpected or misshapen tensors
        raise SriError(
            f"the weights of {saved.path} do not fit its recipe", "name another run"
        ) from error
    model = model.to(chosen).eval()
    if dynamic_slots:
        stage = model.segregate
        if stage is None or not stage.can_vary_slots:
            raise SriError(
                f"--dynamic-slots: {recipe.name} does not infer its slots one after another",
                "leave it out, or name a run of GENESIS-v2, or of SRI on it",
            )
        stage.dynamic_slots = True
    origin = opened_from(ref.run_dir)
    extra = saved.extra | ({"opened_from": origin} if origin else {})
    return TrainedRun(model, recipe, saved.step, ref.run_dir, extra, workspace)
