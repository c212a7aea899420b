"""Recipe file + data set + overrides -> Recipe, or an error that lists everything wrong with them.

A file has the keys of a Recipe and a `datasets:` block, which maps data-set names to the model and
train keys that differ there; `small:` and `tiny:` in a block, those that differ with size=small or
size=tiny. `data:` names the default data set, whose block holds for every data set that has none. A
run's recipe.yaml also says what it was trained on, which is no setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sri_cli.config.registry import read_recipe, recipe_path, recipes_folder
from sri_cli.config.schema import SIZES, TRAINED, ModelSection, Recipe, flatten, shrink
from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.errors import SriError, did_you_mean

Tree = dict[str, Any]
RECORDED = ("trained_on", "started_from")  # sections of a run's recipe.yaml that are no settings

# Keys and values of version 0.1: (section, old key) -> (new key, old value -> new value).
RENAMED: dict[tuple[str, str], tuple[str, dict[Any, Any]]] = {
    ("train", "blend_warmup"): ("gaussian_warmup_steps", {}),
    ("model", "small_start"): ("init", {True: "xavier_small", False: "default"}),
}
# Keys that version 0.1 does not have.
LATER = {
    "model": ("prior", "end_to_end", "encoder_size"),
    "train": ("end_to_end_from", "sinkhorn_start", "sinkhorn_end", "sinkhorn_steps"),
}


class RecipeFaults(SriError):
    """A recipe with its file or overrides at fault; `faults` has a phrase for each."""

    def __init__(self, message: str, hint: str | None = None, faults: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.faults = list(faults)


def load_recipe(
    name_or_file: str, data: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe for a data set (None: its default one), changed by KEY=VALUE overrides.

    Raises:
        SriError: for an unknown recipe. RecipeFaults: with all faults of file and overrides.
    """
    path = recipe_path(name_or_file)
    tree = _read(path)
    blocks = tree.pop("datasets", None) or {}
    faults = list(_block_faults(blocks))
    if blocks and str(tree.get("size")) in SIZES:  # a run's own recipe has no blocks
        word = f"size={tree['size']}"
        faults.append(f"size: only {word} on the command line shrinks a recipe; remove it")
    if not faults:
        chosen = data if data is not None else tree.get("data")
        assignments, faults = _parse(overrides)
        own = [block or {} for block in blocks.values()]
        for part in (tree, *own, *(block.get(size, {}) for block in own for size in SIZES)):
            _make_absolute(part.get("model"), "encoder", path.parent)
        _make_absolute(assignments, "model.encoder", Path())
        recipe, more = _resolve(tree, blocks, chosen, assignments)
        faults += more
        for other, block in blocks.items():
            sizes = ["paper"] * (other != chosen) + [
                size for size in SIZES if size in (block or {})
            ]
            for size in sizes:
                _, more = _resolve(tree, blocks, other, {"size": size})
                faults += [f"with data {other}: {fault}" for fault in more if fault not in faults]
        if recipe is not None and not faults:
            return recipe
    hint = "`sri recipes keys` lists every key" if overrides else f"edit {path}"
    raise RecipeFaults(f"recipe {name_or_file}: {'; '.join(faults)}", hint, faults)


def data_sets(name_or_file: str) -> list[str]:
    """The data sets that a recipe has settings for, its default first."""
    tree = _read(recipe_path(name_or_file))
    blocks = tree.get("datasets")
    default = [str(tree["data"])] if tree.get("data") else []
    # `load_recipe` reports a `datasets` that is no section.
    return list(dict.fromkeys([*default, *map(str, blocks if isinstance(blocks, dict) else ())]))


def sets_image_size(name_or_file: str, data: str, overrides: Sequence[str]) -> bool:
    """Whether the user chose an image size for the data set, so that it does not follow the file.

    The sizes in the blocks of shipped recipes are those of the published data.
    """
    path = recipe_path(name_or_file)
    tree = _read(path)
    sections = [tree.get("model")]
    if path.parent != recipes_folder():
        sections.append(((tree.get("datasets") or {}).get(data) or {}).get("model"))
    keys = _parse(overrides)[0]
    return (
        "model.image_size" in keys
        or keys.get("size") in SIZES
        or any("image_size" in section for section in sections if isinstance(section, dict))
    )


def check_recipes(names_or_files: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Load each recipe with each of its data sets: (name, data sets); faults raise at the end."""
    errors = []
    for name in names_or_files:
        try:
            load_recipe(name)
            yield name, data_sets(name)
        except SriError as error:
            errors.append(error)
    if errors:
        raise SriError("; ".join(error.message for error in errors), errors[0].hint)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe stored in a run or checkpoint, of this version or of 0.1."""
    tree = deepcopy(dict(values))
    rename_old_keys(tree)
    try:
        return Recipe.model_validate(tree, context=TRAINED)
    except ValidationError as error:
        raise SriError(
            f"this recipe does not fit this version of sri: {'; '.join(faults_of(error))}",
            "use the version of sri that wrote it",
        ) from error


def recipe_to_yaml(recipe: Recipe, recorded: Mapping[str, Any] | None = None) -> str:
    """The recipe with every value written out; `load_recipe` reads it back.

    `recorded` has sections of RECORDED, for a run's recipe.yaml.
    """
    return write_yaml(recipe.model_dump() | dict(recorded or {}))


def rename_old_keys(tree: Tree) -> None:
    """Give keys of version 0.1 their present names and values, in place."""
    for (section, old), (new, values) in RENAMED.items():
        keys = tree.get(section)
        if isinstance(keys, dict) and old in keys:
            value = keys.pop(old)
            keys[new] = values.get(value, value) if isinstance(value, bool) else value


def with_old_keys(recipe: Recipe) -> Tree:
    """The recipe's values under the keys of version 0.1, without later keys at their default.

    Records and ratings identify a model by a digest of these, so they must not change: keys that
    were added since are left out where they have no effect.
    """
    tree = recipe.model_dump(mode="json")
    for name, keys in LATER.items():
        fields = type(getattr(recipe, name)).model_fields
        for key in keys:
            if tree[name][key] == fields[key].default:
                del tree[name][key]
    for (section, old), (new, values) in RENAMED.items():
        value = tree[section][new]
        former = {new: old for old, new in values.items()}.get(value, value)
        tree[section] = {  # in the same order: some digests are of the YAML
            old if key == new else key: former if key == new else present
            for key, present in tree[section].items()
        }
    del tree["train"]["preview_every"]  # later than 0.1, and without effect on a model
    return tree


def faults_of(error: ValidationError, schema: type[BaseModel] = Recipe) -> list[str]:
    """A phrase for each fault in pydantic's list, in the order of the file."""
    return [_phrase(fault, all_keys(schema)) for fault in error.errors(include_url=False)]


def all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key: name, model, model.system, ..., train, ...."""
    keys = []
    for name, field in schema.model_fields.items():
        keys.append(prefix + name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += all_keys(kind, f"{prefix}{name}.")
    return keys


def suggest_key(key: str, known: Sequence[str]) -> str:
    """` (did you mean train.lr?)` for `lr`, `train.lrr` or `train.batch_size`; or nothing."""
    leaf = key.rpartition(".")[2]
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    return did_you_mean(same_leaf[0] if same_leaf else key, known)


def _phrase(fault: Any, known_keys: Sequence[str]) -> str:
    """A fault of pydantic's with the key, the value, and a suggestion."""
    key = ".".join(str(part) for part in fault["loc"]) or "recipe"
    value, kind = fault["input"], fault["type"]
    if kind == "extra_forbidden":
        return f"{key}: unknown key{suggest_key(key, known_keys)}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "value_error":  # of our own validators, which name the key themselves
        error = fault["ctx"]["error"]
        return f"{key}.{error}" if fault["loc"] else str(error)
    if kind in ("model_type", "dict_type"):
        return f"{key}: should be a section of keys, not {value!r}"
    message = fault["msg"].replace("Input should be", "should be")
    near = ""
    if kind == "literal_error":
        near = did_you_mean(str(value), re.findall(r"'([^']+)'", fault["ctx"]["expected"]))
    return f"{key}: {message}, not {value!r}{near}"


def _read(path: Path) -> Tree:
    """The file as a tree; SriError when it cannot be read or has no keys."""
    tree = read_yaml(read_recipe(path), str(path))
    if not isinstance(tree, dict):
        raise SriError(f"recipe {path} has no keys", "start from a copy: `sri recipes cp`")
    for key in RECORDED:
        tree.pop(key, None)
    blocks = tree.get("datasets")
    for part in (tree, *(blocks.values() if isinstance(blocks, dict) else ())):
        if isinstance(part, dict):
            rename_old_keys(part)
    return tree


def _block_faults(blocks: Any) -> Iterator[str]:
    """Faults in the form of the `datasets:` block."""
    if not isinstance(blocks, dict):
        yield f"datasets: should be a section of data-set names, not {blocks!r}"
        return
    for name, block in blocks.items():
        if not isinstance(block, dict | None):
            yield f"datasets.{name}: should be a section with model or train, not {block!r}"
            continue
        for key, part in (block or {}).items():
            if key not in ("model", "train", *SIZES):
                near = did_you_mean(str(key), ("model", "train", *SIZES))
                yield f"datasets.{name}.{key}: unknown key{near}"
            elif not isinstance(part, dict):
                yield f"datasets.{name}.{key}: should be a section of keys, not {part!r}"
            elif key in SIZES:
                yield from _block_faults({f"{name}.{key}": part})


def _parse(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """KEY=VALUE words as dotted key -> value, and their faults. The last of equal keys counts."""
    values: dict[str, Any] = {}
    faults = []
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            near = suggest_key(word, all_keys(Recipe))
            faults.append(f"{word}: an override is KEY=VALUE{near}")
        elif key == "data":
            faults.append(f"{word}: choose the data set with --data")
        else:
            try:
                values[key] = read_yaml(text, word)
            except SriError as error:
                faults.append(error.message)
    return values, faults


def _make_absolute(keys: Any, key: str, folder: Path) -> None:
    """Make the path in `timm/NAME@FILE` absolute, so that a run finds the file from any folder.

    In a recipe it is relative to the recipe, on the command line to the current folder.
    """
    if isinstance(keys, dict) and isinstance(keys.get(key), str):
        encoder, at, file = keys[key].partition("@")
        if at:
            keys[key] = f"{encoder}@{os.path.abspath(folder / Path(file).expanduser())}"


def _resolve(
    tree: Tree, blocks: Tree, data: str | None, assignments: Mapping[str, Any]
) -> tuple[Recipe | None, list[str]]:
    """Merge the file, its block for `data` and the overrides into the recipe, or its faults."""
    merged = deepcopy(tree)
    if data is not None:
        merged["data"] = data
    own = str(data if str(data) in blocks else tree.get("data"))
    block = dict(blocks.get(own) or {})
    of_sizes = {size: block.pop(size, {}) for size in SIZES}
    _merge(merged, block)
    size_before, size = str(merged.get("size", "paper")), str(assignments.get("size", "paper"))
    if size_before in SIZES and "size" in assignments and size != size_before:
        fault = f"size={size}: this recipe is of size {size_before} already"
        return None, [f"{fault}; name the one that it came from"]
    # Only the command line shrinks, and only once: `size: tiny` in a run's own recipe says that
    # its values are shrunk already, and perhaps changed since.
    own_size = ModelSection.model_fields["image_size"].default
    if isinstance(merged.get("model"), dict):
        own_size = merged["model"].get("image_size", own_size)
    _assign_all(merged, assignments)
    if size in SIZES and size_before == "paper":
        overruled = deepcopy(merged)
        _merge(overruled, of_sizes[size])
        _assign_all(overruled, assignments)
        try:  # values are computed with below, and may not fit together before
            for values in (merged, overruled):
                Recipe.model_validate(values, context=TRAINED)
        except ValidationError as error:
            if any(fault["type"] != "value_error" for fault in error.errors()):
                return None, faults_of(error)
        shrink(merged, size)
        _merge(merged, of_sizes[size])
        _assign_all(merged, assignments)
        chosen, model = {*assignments, *flatten(of_sizes[size])}, merged["model"]
        if model.get("encoder_size") and "model.encoder_size" not in chosen:
            # In the ratio of the images: patches stay as large in them.
            model["encoder_size"] = round(model["encoder_size"] * model["image_size"] / own_size)
        if size == "small" and not {"train.lr_decay_steps", "train.lr_half_life"} & chosen:
            train = merged["train"]
            train["lr_decay_steps"] = max(train["steps"] - train["lr_warmup"], 0)
    try:
        return Recipe.model_validate(merged), []
    except ValidationError as error:
        return None, faults_of(error)


def _merge(tree: Tree, block: Tree) -> None:
    """Set the keys of a block's sections."""
    for section, part in block.items():
        if isinstance(tree.setdefault(section, {}), dict):
            tree[section] |= part


def _assign_all(tree: Tree, assignments: Mapping[str, Any]) -> None:
    """Set dotted keys; unknown ones too, so that the schema refuses them like those of a file."""
    for key, value in assignments.items():
        *sections, leaf = key.split(".")
        part = tree
        for section in sections:
            if not isinstance(part.get(section), dict):
                part[section] = {}
            part = part[section]
        part[leaf] = value
    rename_old_keys(tree)
