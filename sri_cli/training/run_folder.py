"""The run folder of a training: recipe and name, lock, history, what may change on resume."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from sri_cli.atomic import ensure_folder, list_folder, write_atomic
from sri_cli.checkpoint import Checkpoint, newest_good, remove_leftovers
from sri_cli.config.load import (
    data_sets,
    load_recipe,
    recipe_from_dict,
    recipe_to_yaml,
    sets_image_size,
)
from sri_cli.config.schema import NOT_LEARNED, ModelSection, Recipe, element_error, flatten
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import (
    COMMANDS,
    LOCK_NAME,
    PREPARED_AS,
    RECIPE_NAME,
    Workspace,
    is_path,
    lock_run,
    prepared_as,
)
from sri_cli.training.log import RunLog

HISTORY = re.compile(
    r"(?P<command>.+)  # (?P<begun>[^#]+),"
    r" (?:from step|steps?) (?P<first>\d+)(?: to (?P<last>\d+))?"
)
IMAGE_SIZES = get_args(ModelSection.model_fields["image_size"].annotation)  # px

# Recipe keys that may differ on resume: they do not change what is learned at a given step.
FREE_KEYS = {
    "name",
    "description",
    "data",  # a name; the images are compared themselves
    "model.encoder",  # a path; the checkpoint holds the SHA-256 of the file
    *(f"train.{key}" for key in NOT_LEARNED),
}


class RunChanged(SriError):
    """The run was trained with another recipe or other data."""


def resolve_run(
    workspace: Workspace,
    recipe_name: str,
    *,
    data: str | None = None,
    run: str | None = None,
    overrides: Sequence[str] = (),
    follow: bool = True,
) -> tuple[Recipe, str, Path]:
    """The recipe, the name or file of its data, and the run folder that a command line names.

    Any prepared file is accepted; the recipe's settings for the data set that it holds apply, or
    those for its default one. The image size is that of the file unless the user chose one; with
    `follow` False only for data that the recipe does not name.

    Raises:
        SriError: for an unknown data set, for files of several sizes of which none is that of the
            recipe, for a size that no model takes, and with all faults of recipe and overrides.
    """
    if data is not None and not is_path(data) and data not in workspace.data_files():
        named = workspace.data_root / f"{data}.h5"
        data = str(named) if named.is_file() else data
    if data is not None and is_path(data):
        file = DataFile(workspace.find_data(data, None))
        stem, data_set, files = Path(data).stem, file.name, {file.size: file.path}
    else:
        data_set = stem = data or load_recipe(recipe_name, None, overrides).data
        files = workspace.data_files().get(stem, {})
        if data is not None and data not in data_sets(recipe_name):
            if not files:
                raise no_data_set(workspace, recipe_name, data)
            # A file made with --out has another name than the data set in it.
            data_set, follow = DataFile(next(iter(files.values()))).name, True
    recipe = load_recipe(recipe_name, data_set, overrides)
    follow = follow or data_set not in data_sets(recipe_name)
    if follow and files and recipe.model.image_size not in files:
        if not sets_image_size(recipe_name, data_set, overrides):
            size = the_size(files, stem)
            recipe = load_recipe(recipe_name, data_set, [*overrides, f"model.image_size={size}"])
        elif data is not None:
            check_image_size(DataFile(next(iter(files.values()))), recipe.model.image_size)
    # The size comes last, because recipes may be called NAME-tiny.
    size_name = "" if recipe.size == "paper" else f"-{recipe.size}"
    run_dir = workspace.run_dir(run or f"{recipe.name}-{stem}{size_name}")
    return recipe, data or data_set, run_dir


def no_data_set(workspace: Workspace, recipe_name: str, data: str) -> SriError:
    """The error for a name that neither the recipe nor a prepared file has."""
    prepared = workspace.data_files()
    known = [*data_sets(recipe_name), *prepared]
    near = "" if data in PREPARED_AS else did_you_mean(data, known)
    others = f"prepared: {', '.join(prepared)}; " if prepared else ""
    file = f"; for a file, name its folder: ./{data}" if Path(data).is_file() else ""
    return SriError(
        f"no data set {data} is prepared in {workspace.data_root}{near}",
        f"{others}to make one: sri prepare {prepared_as(data)}{file}",
    )


def the_size(files: Mapping[int, Path], name: str) -> int:
    """The one image size of the files of a name; SriError for several, or an unsupported one."""
    if len(files) > 1:
        names = ", ".join(map(str, files.values()))
        raise SriError(
            f"{name} is prepared in several sizes, and the recipe is for another: {names}",
            f"choose one: --data {next(iter(files.values()))}",
        )
    size, path = next(iter(files.items()))
    if size not in IMAGE_SIZES:
        check_image_size(DataFile(path), min(IMAGE_SIZES, key=lambda other: abs(other - size)))
    return size


def check_image_size(data: DataFile, size: int) -> None:
    """SriError unless the images have `size` px; the hint is to follow the file, if models can."""
    if data.size == size:
        return
    if data.size not in IMAGE_SIZES:
        sizes = ", ".join(map(str, IMAGE_SIZES))
        raise SriError(
            f"the images of {data.path} have {data.size} px; models take {sizes} px",
            data.size_hint(size),
        )
    raise SriError(
        f"the images of {data.path} have {data.size} px, the recipe is for {size} px",
        f"train at their size with model.image_size={data.size}, or {data.size_hint(size)}",
    )


def note_on_settings(
    recipe_name: str, recipe: Recipe, data: str, overrides: Sequence[str]
) -> str | None:
    """What the user should look at: a target out of reach, or a recipe made for other data."""
    notes = _note_on_target(recipe), _note_on_data(recipe_name, recipe, data, overrides)
    return "; ".join(filter(None, notes)) or None


def _note_on_target(recipe: Recipe) -> str | None:
    model, target = recipe.model, recipe.train.geco_target
    perfect = element_error(model.std, model.normalised, 0.0)
    if target is None or target > perfect:
        return None
    return (  # as where model.std alone was changed
        f"train.geco_target={target:g} is out of reach: with model.std={model.std:g} the error"
        f" of a perfect image is {perfect:.4f}, so GECO only lowers the weight of the KL"
    )


def _note_on_data(
    recipe_name: str, recipe: Recipe, data: str, overrides: Sequence[str]
) -> str | None:
    known = data_sets(recipe_name)
    usual = load_recipe(recipe_name, recipe.data, overrides)
    size, usual_size = recipe.model.image_size, usual.model.image_size
    if recipe.data in known:
        if size == usual_size:
            return None
        return (
            f"{recipe_name} trains at {size} px; its settings for {recipe.data} are for"
            f" {usual_size} px"
        )
    values = {
        "model.slots": recipe.model.slots,
        "model.std": recipe.model.std,
        "train.geco_target": recipe.train.geco_target,
    }
    chosen = {word.partition("=")[0] for word in overrides}
    borrowed = [
        f"{key}={value:g}"
        for key, value in values.items()
        if value is not None and key not in chosen
    ]
    if not borrowed:
        return None
    usual_data = f" and uses those for {known[0]}" if known else ""
    return (
        f"{recipe_name} has no settings for {recipe.data}{usual_data}:"
        f" {' '.join(borrowed)} at {size} px; `sri prepare show {shlex.quote(data)}` suggests"
        " values"
    )


def unused_folder(run_dir: Path) -> Path:
    """`run_dir`, or the first of NAME-2, NAME-3, ... that holds no run."""
    numbered = (run_dir.with_name(f"{run_dir.name}-{i}") for i in itertools.count(2))
    return next(path for path in itertools.chain([run_dir], numbered) if not holds_files(path))


def holds_files(run_dir: Path) -> bool:
    """Whether a run was begun in the folder."""
    return any(path.name != LOCK_NAME for path in list_folder(run_dir))


@contextmanager
def open_run(run_dir: Path) -> Iterator[RunLog]:
    """Lock the folder and yield its log; SriError when another process trains in it."""
    ensure_folder(run_dir)
    with lock_run(run_dir, "choose another folder: --run DIR"):
        remove_leftovers(run_dir)
        log = RunLog(run_dir)
        try:
            yield log
        finally:
            log.close()


def describe_run(run_dir: Path, recipe: Recipe, recorded: Mapping[str, Any]) -> None:
    """Write recipe.yaml: the resolved recipe, and what it was trained on and started from."""
    write_atomic(run_dir / RECIPE_NAME, recipe_to_yaml(recipe, recorded).encode())


def trained_on(data: DataFile) -> dict[str, Any]:
    """The data of a training for recipe.yaml; a file that was moved is the same data."""
    return {
        "name": data.name,
        "source": data.source,
        "file": data.path.name,
        "image_size": data.size,
        "images": len(data.split("train")),
        "sha256": str(data.attrs["sha256"]),
    }


def data_sections(data: DataFile) -> dict[str, dict[str, Any]]:
    """What the checkpoints of a run hold of its data: `data` identifies it, `source` is shown."""
    facts: dict[str, Any] = {"name": data.name, "images": len(data.split("train"))}
    facts["content"] = str(data.attrs["sha256"])[:16]
    crop = data.attrs["parameters"].get("crop")
    if data.source == "folder" and crop is not None:  # for new images, wherever the model is
        facts["crop"] = crop
    source = {"file": str(data.path.resolve()), "caption": data.caption}
    return {"data": facts, "source": source}


def begin_command(run_dir: Path, command: str, step: int) -> None:
    """Add the command that trains from `step` on to command.txt.

    Every line is a command with its time and steps in a comment of the shell. The same command
    again continues its line. Lines of version 0.1 have no comment, and stay as they are.
    """
    lines = read_commands(run_dir)
    last = HISTORY.fullmatch(lines[-1]) if lines else None
    begun, first = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", step
    if last is not None:
        same = last["command"] == command and last["last"] in (None, str(step))
        lines.pop()
        if same:
            begun, first = last["begun"], int(last["first"])
        else:  # a killed process left its last step open
            lines.append(history_line(**last.groupdict(str(step))))
    lines.append(f"{command}  # {begun}, from step {first}")
    write_commands(run_dir, lines)


def end_command(run_dir: Path, step: int) -> None:
    """Complete the last line of command.txt with the last step."""
    lines = read_commands(run_dir)
    last = HISTORY.fullmatch(lines[-1]) if lines else None
    if last is not None:
        lines[-1] = history_line(**(last.groupdict() | {"last": str(step)}))
        write_commands(run_dir, lines)


def commands_until(run_dir: Path, step: int) -> list[str]:
    """The lines of command.txt that made the weights of `step`, the last one up to that step."""
    lines = read_commands(run_dir)
    if not (run_dir / RECIPE_NAME).exists():  # not trained yet: those of the weights it begins with
        return lines
    while lines and (last := HISTORY.fullmatch(lines[-1])) is not None:
        first = int(last["first"])
        if first < step or first == step == 0 or len(lines) == 1:  # else it began with these
            end = min(step, int(last["last"] or step))  # none: in training now, or killed
            lines[-1] = history_line(**(last.groupdict() | {"last": str(end)}))
            break
        lines.pop()
    return lines


def history_line(command: str, begun: str, first: str, last: str) -> str:
    """`sri train ...  # 2026-11-28 14:06 UTC, steps 0 to 6000`."""
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    return f"{command}  # {begun}, {steps}"


def read_commands(run_dir: Path) -> list[str]:
    """The lines of command.txt, the first command first; empty where there is none."""
    try:
        return (run_dir / COMMANDS).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def write_commands(run_dir: Path, lines: Sequence[str]) -> None:
    """Replace command.txt."""
    write_atomic(run_dir / COMMANDS, "".join(f"{line}\n" for line in lines).encode())


def find_checkpoint(run_dir: Path, recipe: Recipe, data: Mapping[str, Any]) -> Checkpoint | None:
    """The newest intact checkpoint, checked against `recipe` and `data`; None for a new run.

    Raises:
        RunChanged: it was trained with another recipe or other data.
        SriError: there are checkpoints, but none is intact.
    """
    saved = newest_good(run_dir)
    if saved is None:
        return None
    # An imported model does not say what it was trained on: any data will do. The same images
    # under another name are the same data.
    known = saved.extra.get("data", data)
    same = all(known.get(key) == data[key] for key in ("images", "content"))
    before, after = (
        flatten(({} if same else {"data file": facts}) | one.model_dump())
        for facts, one in ((known, recipe_from_dict(saved.recipe)), (data, recipe))
    )
    changes = [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if key not in FREE_KEYS and before.get(key) != after.get(key)
    ]
    if changes:
        fix = "to resume it undo the change, or give the old values as KEY=VALUE; or start another"
        fix += " run: --new, or --run DIR"
        key = "train.lr_decay_steps"
        if recipe.size == "small" and [one.split()[0] for one in changes] == [key]:
            # The size ends the decay with the last step, which was another.
            fix = "start another run: --new; or to train it further keep its schedule:"
            fix += f" {key}={before[key]}"
        raise RunChanged(f"{run_dir} was trained otherwise: {'; '.join(changes)}", fix)
    return saved
