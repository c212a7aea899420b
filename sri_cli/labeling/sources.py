"""Whose scenes `sri label-sacc` shows: models and folders of pictures, opened and compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sri_cli.console import counting
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import check_request, quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.scenes import Model, digest
from sri_cli.metrics.evaluate_runs import open_runs
from sri_cli.metrics.generated import no_towers
from sri_cli.metrics.picture_folder import open_folder
from sri_cli.metrics.records import data_facts, run_subject
from sri_cli.run import Workspace

TEMPERATURE = 1.0  # the protocol's
SPLIT = "test"  # where real pictures come from
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Wanted:
    """What to judge: `num` scenes of each model and `catch` trials; `data` None: of the runs."""

    num: int = 100
    seed: int = 0
    catch: int = 10
    data: str | None = None


@dataclass(frozen=True)
class Source:
    """A model or folder: whose pictures `draw` gives, of `size` px, and what they are numbered."""

    model: Model
    size: int
    indices: Sequence[int]
    draw: Callable[[], Pictures]
    data: DataFile | None = None


def open_sources(
    workspace: Workspace, runs: Sequence[str], folders: Sequence[Path], wanted: Wanted
) -> list[Source]:
    """By their weights, so that their order on the command line is no matter. SriError for what
    cannot be judged together."""
    check_request(wanted.num, 1, TEMPERATURE, wanted.seed)
    if wanted.catch < 0:
        raise SriError(f"--catch {wanted.catch}: there are none, or some", "--catch 10")
    found = [of_run(workspace, one, wanted) for one in open_runs(workspace, runs, folders)]
    found += [of_folder(workspace, folder, wanted) for folder in folders]
    check_together(found)
    return sorted(found, key=lambda source: source.model.weights)


def of_run(workspace: Workspace, trained: TrainedRun, wanted: Wanted) -> Source:
    """New scenes of a model, at the temperature and with the slots of the protocol."""
    loaded = trained
    slots = loaded.model.num_slots
    subject = run_subject(loaded)
    data = known_data(workspace, trained, wanted.data)
    facts: dict[str, Any]
    if data is None:  # sampling needs none; a table wants to know which it was
        size = loaded.recipe.model.image_size
        facts = {"name": loaded.data_name, "image_size": size, "source": "unknown"}
        facts |= {"sha256": None, "split": SPLIT}
    else:
        facts = data_facts(data, SPLIT)
        warn(no_towers("S-Acc", data))
    name = f"{loaded.run_dir.resolve().name}, step {loaded.step:,}"
    model = Model(name, subject["model"], subject, facts, wanted.seed, slots, TEMPERATURE)

    def draw() -> Pictures:
        chunks = []
        with counting("drawing", wanted.num) as advance:
            for scene in sample_scenes(loaded.model, wanted.num, slots, TEMPERATURE, wanted.seed):
                chunks.append(quantise(scene.image))
                advance(len(chunks[-1]))
        return np.concatenate(chunks)

    return Source(model, loaded.model.image_size, range(wanted.num), draw, data)


def of_folder(workspace: Workspace, path: Path, wanted: Wanted) -> Source:
    """Pictures of any tool: `num` of them by the seed, or all where there are fewer."""
    folder = open_folder(path)
    count = min(wanted.num, folder.count)
    if count < wanted.num:
        tell(f"--images {path} holds {count} pictures, not {wanted.num}: all are judged")
    random = np.random.default_rng(wanted.seed)
    chosen = np.sort(random.choice(folder.count, count, replace=False))
    pictures = np.concatenate([folder.read(int(i), int(i) + 1) for i in chosen])
    weights = digest(pictures)
    subject = {"kind": "images", "images": str(path.resolve()), "count": count, "sha256": weights}
    model = Model(path.resolve().name, weights, subject)
    data = None
    if wanted.data is not None:
        data = DataFile(workspace.find_data(wanted.data, folder.size))
    return Source(model, folder.size, chosen.tolist(), lambda: pictures, data)


def known_data(workspace: Workspace, trained: TrainedRun, named: str | None) -> DataFile | None:
    """The data file named, or that of the run if it is still there."""
    try:
        return trained.open_data(named)
    except SriError:
        if named is not None:
            raise
        return None


def check_together(sources: Sequence[Source]) -> None:
    """SriError for pictures of several sizes or a model that is there twice."""
    first = sources[0]
    for i, source in enumerate(sources):
        if source.size != first.size:
            raise SriError(
                f"{first.model.name} draws {first.size} px and {source.model.name}"
                f" {source.size} px: the size would tell which is which",
                "judge pictures of one size together",
            )
        for other in sources[:i]:
            if other.model.weights == source.model.weights:
                raise SriError(
                    f"{other.model.name} and {source.model.name} are the same model",
                    "name each model once",
                )
        if source.data is not None:
            source.data.check_size(first.size)


def warn(message: str | None) -> None:
    """To stderr, if there is something to warn of."""
    if message:
        tell(f"Warning: {message}")


def tell(message: str) -> None:
    """A note."""
    print(message, file=sys.stderr, flush=True)
