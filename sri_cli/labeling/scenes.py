"""The images of a labelling session: scenes of runs, images of folders, and catch trials.

Axis legend: N images, S side in pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sri_cli.console import warn
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.encode import encode_images
from sri_cli.generation.sample import check_request, draw_scenes, quantise
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.labeling.catch_trials import SPLIT, Look, Reconstruct, Style, catch_trials
from sri_cli.labeling.session import (
    FOLDER,
    SCENES,
    STACKS,
    Images,
    Item,
    Model,
    image_hash,
    read_sessions,
    write_session,
)
from sri_cli.metrics.evaluate import open_runs
from sri_cli.metrics.image_metrics import DEMO, TOWERS, no_towers_warning
from sri_cli.metrics.images import open_folder
from sri_cli.metrics.records import data_facts, lossy_warning, run_subject
from sri_cli.run import Workspace, recipe_file

TEMPERATURE = 1.0  # of the S-Acc protocol
WITH_FLOOR = ("objects-room", "clevr")  # beginnings of names of data sets


@dataclass(frozen=True)
class Source:
    """A run or folder: `draw()` gives its images uint8 [N,S,S,3], numbered by `indices`; a run also
    reconstructs given ones."""

    model: Model
    size: int  # px
    indices: Sequence[int]
    draw: Callable[[], Images]
    data: DataFile | None = None
    question: str | None = None  # of QUESTIONS; None: any
    reconstruct: Reconstruct | None = None


def prepare_session(
    workspace: Workspace,
    runs: Sequence[str],
    folders: Sequence[Path],
    num: int = 100,
    seed: int = 0,
    catch: int = 10,
    data: str | None = None,
) -> Path:
    """The folder of the session with these settings, begun before or drawn now.

    Args:
        runs, folders: whose scenes to judge, in any order; neither: the latest run.
        num: scenes of each.
        seed: of the scenes, the catch trials and the raters' orders.
        catch: number of catch trials.
        data: name or file that the real images come from; None: the data of the run.

    Raises:
        SriError: for runs, folders or data that cannot be opened or judged together; nothing has
            been written then.
    """
    check_request(num, 1, TEMPERATURE, seed)
    sources = [run_source(run, num, seed, data) for run in open_runs(workspace, runs, folders)]
    sources += [folder_source(workspace, folder, num, seed, data) for folder in folders]
    check_sources(sources)
    sources.sort(key=lambda source: source.model.weights)
    named = next((source.data for source in sources if data is not None and source.data), None)
    settings = {
        "weights": [source.model.weights for source in sources],
        "seed": seed,
        "num": num,
        "catch": catch,
        "data": None if named is None else str(named.attrs["sha256"]),
    }
    labels = workspace.runs_root / FOLDER
    if SCENES in {source.question for source in sources}:
        settings["question"] = SCENES
    for deck in read_sessions(labels):
        if deck.settings == settings:
            return deck.folder
    return draw_session(labels, settings, sources)


def draw_session(labels: Path, settings: dict[str, Any], sources: Sequence[Source]) -> Path:
    """Draw all images and write them; the new folder."""
    size, models = sources[0].size, [source.model for source in sources]
    names = Counter(model.name for model in models)
    for model in models:
        if names[model.name] > 1:
            model.name += f" ({model.weights[:8]})"
    is_stack = settings.get("question") is None
    data = next(
        (s.data for s in sources if s.data and (not is_stack or s.data.name in TOWERS)), None
    )
    # Without the data file a run still knows what it was trained on.
    names_of_data = [data.name] if data else [(m.data or {}).get("name") for m in models]
    look: Look = "demo" if DEMO in names_of_data else "original"
    if settings["catch"] and not is_stack and (data is None or not data.split(SPLIT).has_masks):
        raise SriError(
            "catch trials of rooms and tables are made of test images with masks",
            "name such data with --data, or use --catch 0",
        )
    drawn = [source.draw() for source in sources]
    items = [
        Item(id=f"m{number}-{index}", sha256=image_hash(image), index=int(index), model=number)
        for number, (source, images) in enumerate(zip(sources, drawn, strict=True))
        for image, index in zip(images, source.indices, strict=True)
    ]
    styles = [Style(images, s.reconstruct) for images, s in zip(drawn, sources, strict=True)]
    trials, trial_images = catch_trials(
        settings["catch"], settings["seed"], size, look if is_stack else None, data, styles
    )
    images = np.concatenate([*drawn, trial_images])
    return write_session(labels, settings, models, items + trials, images)


def run_source(trained: TrainedRun, num: int, seed: int, data: str | None) -> Source:
    """New scenes of a model, at temperature 1 and with the number of slots of its training."""
    slots, size = trained.model.num_slots, trained.model.image_size
    subject = run_subject(trained)
    try:
        file = trained.open_data(data)
    except SriError:
        if data is not None:
            raise
        file = None  # drawing needs no data, but tables show its name
    facts = recorded_facts(trained) if file is None else data_facts(file, SPLIT)
    question = question_of(trained.data_name if file is None else file.name)
    if question == STACKS and (warning := no_towers_warning("S-Acc", trained.data_name)):
        warn(f"Warning: {warning}")
    name = f"{trained.run_dir.name}, step {trained.step:,}"
    model = Model(
        name=name,
        weights=subject["model"],
        subject=subject,
        data=facts,
        trained_on=trained.data_name,
        seed=seed,
        slots=slots,
        temperature=TEMPERATURE,
    )

    def draw() -> Images:
        return draw_scenes(trained.model, num, slots, TEMPERATURE, seed).images

    def reconstruct(images: Images, indices: Sequence[int]) -> Images:
        return quantise(encode_images(trained.model, images, indices, seed).image)

    return Source(model, size, range(num), draw, file, question, reconstruct)


def recorded_facts(trained: TrainedRun) -> dict[str, Any]:
    """As `data_facts`, of the data of a run whose file is not here, as far as it is known."""
    known = recipe_file(trained.run_dir).get("trained_on") or {}
    return {
        "name": trained.data_name,
        "image_size": trained.model.image_size,
        "source": known.get("source", "unknown"),
        "sha256": known.get("sha256"),
        "split": SPLIT,
    }


def folder_source(
    workspace: Workspace, path: Path, num: int, seed: int, data: str | None
) -> Source:
    """`num` images of a folder, chosen by the seed, or all where there are fewer."""
    folder = open_folder(path)
    count = min(num, folder.count)
    if count < num:
        warn(f"Note: --images {path} holds only {count} images; using all")
    chosen = np.sort(np.random.default_rng(seed).choice(folder.count, count, replace=False))
    images = np.concatenate([folder.read(int(i), int(i) + 1) for i in chosen])
    weights, path = image_hash(images), path.resolve()
    subject = {"kind": "images", "images": str(path), "count": count, "sha256": weights}
    if lossy := sum(folder.lossy[int(i)] for i in chosen if folder.lossy):
        subject["lossy"] = lossy
        warn(f"Warning: {path}: {lossy_warning('images', lossy)}")
    model = Model(name=path.name, weights=weights, subject=subject)
    file = None if data is None else DataFile(workspace.find_data(data, folder.size))
    question = None if file is None else question_of(file.name)
    return Source(model, folder.size, chosen.tolist(), lambda: images, file, question)


def question_of(data: str) -> str:
    """The question, of QUESTIONS, about scenes of a data set."""
    return SCENES if data.startswith(WITH_FLOOR) else STACKS


def check_sources(sources: Sequence[Source]) -> None:
    """Raises SriError for images of several sizes or kinds, or the same model twice."""
    first = sources[0]
    for i, source in enumerate(sources):
        if source.size != first.size:
            raise SriError(
                f"{first.model.name} has images of {first.size} px, {source.model.name} of"
                f" {source.size} px: the size would give away the model",
                "judge images of one size together",
            )
        if source.model.weights in [other.model.weights for other in sources[:i]]:
            raise SriError(
                f"{source.model.name} is the same model as another one", "name each model once"
            )
        if {source.question, first.question} == {STACKS, SCENES}:
            raise SriError(
                f"{first.model.name} and {source.model.name} are of different kinds of scenes",
                "judge stacks, and rooms or tables, in two sessions",
            )
        if source.data is not None:
            source.data.check_size(first.size)
