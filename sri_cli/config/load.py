"""Recipe file + data set + overrides -> Recipe, or every fault of them at once.

A file is a Recipe and a `datasets:` block: data-set name -> the parts of the model and train
sections that differ there. `data:` names the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sri_cli.config.complaints import complaints, suggest_key
from sri_cli.config.registry import recipe_path
from sri_cli.config.schema import TRAINED, Recipe, shrink
from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.errors import SriError, did_you_mean

Tree = dict[str, Any]

# Keys and values that version 0.1 called otherwise: (section, old key) -> (key, old -> new value).
RENAMED: dict[tuple[str, str], tuple[str, dict[Any, Any]]] = {
    ("train", "blend_warmup"): ("gaussian_warmup_steps", {}),
    ("model", "small_start"): ("init", {True: "xavier_small", False: "default"}),
}


def load_recipe(
    name_or_file: str, data: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe for a data set (None: its own), with KEY=VALUE overrides on top.

    Raises SriError for an unknown recipe or data set, and for all faults of file and overrides.
    """
    path = recipe_path(name_or_file)
    tree = _read(path)
    blocks = tree.pop("datasets", None) or {}
    faults = list(_block_faults(blocks))
    if blocks and tree.get("size") == "tiny":  # a run's own recipe has no blocks
        faults.append("size: only the word size=tiny of the command line shrinks; take it out")
    if not faults:
        chosen = _choose(tree, blocks, data, name_or_file)
        assignments, faults = _parse(overrides)
        for part in (tree, *blocks.values()):
            _anchor((part or {}).get("model"), "encoder", path.parent)
        _anchor(assignments, "model.encoder", Path())
        recipe, found = _resolve(tree, blocks, chosen, assignments)
        faults += found
        for other in blocks:
            if other != chosen:
                _, found = _resolve(tree, blocks, other, {})
                faults += [f"with data {other}: {fault}" for fault in found if fault not in faults]
        if recipe is not None and not faults:
            return recipe
    hint = f"`sri recipes show {name_or_file}` shows every key" if overrides else f"mend {path}"
    raise SriError(f"recipe {name_or_file}: {'; '.join(faults)}", hint)


def data_sets(name_or_file: str) -> list[str]:
    """The data sets that a recipe knows, its default first."""
    tree = _read(recipe_path(name_or_file))
    return _known(tree, tree.get("datasets") or {})


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.model_dump()` gave, as a run and its checkpoints keep it."""
    tree = deepcopy(dict(values))
    rename_old_keys(tree)
    try:
        return Recipe.model_validate(tree, context=TRAINED)
    except ValidationError as error:
        raise SriError(
            f"this recipe is not of this version of sri: {'; '.join(complaints(error))}",
            "use the version of sri that wrote it",
        ) from error


def rename_old_keys(tree: Tree) -> None:
    """Give keys of version 0.1 their present names and values, in place."""
    for (section, old), (new, values) in RENAMED.items():
        keys = tree.get(section)
        if isinstance(keys, dict) and old in keys:
            value = keys.pop(old)
            keys[new] = values.get(value, value) if isinstance(value, bool) else value


def with_old_keys(recipe: Recipe) -> Tree:
    """The recipe's values under the keys of version 0.1.

    Records and ratings of models identify them by a digest of these, so it must not change.
    """
    tree = recipe.model_dump(mode="json")
    for (section, old), (new, values) in RENAMED.items():
        value = tree[section].pop(new)
        tree[section][old] = {new: old for old, new in values.items()}.get(value, value)
    return tree


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe with every value written out; `load_recipe` reads it back."""
    return write_yaml(recipe.model_dump())


def check_recipes(names_or_files: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Load each recipe with each of its data sets: (name, data sets); all faults at the end."""
    faults = []
    for name in names_or_files:
        try:
            load_recipe(name)
            yield name, data_sets(name)
        except SriError as error:
            faults.append(error)
    if faults:
        raise SriError("; ".join(error.message for error in faults), faults[0].hint)


def _read(path: Path) -> Tree:
    """The file as a tree; SriError when it cannot be read or is no mapping of keys."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SriError(f"recipe {path} cannot be read: {error}", "name a YAML file") from error
    tree = read_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise SriError(f"recipe {path} holds no keys", "start from a copy: `sri recipes cp`")
    blocks = tree.get("datasets")
    for part in (tree, *(blocks.values() if isinstance(blocks, dict) else ())):
        if isinstance(part, dict):
            rename_old_keys(part)
    return tree


def _block_faults(blocks: Any) -> Iterator[str]:
    """What is wrong with the form of the `datasets:` block."""
    if not isinstance(blocks, dict):
        yield f"datasets: wants a section of data-set names, not {blocks!r}"
        return
    for name, block in blocks.items():
        if not isinstance(block, dict | None):
            yield f"datasets.{name}: wants a section with model or train, not {block!r}"
            continue
        for key, part in (block or {}).items():
            if key not in ("model", "train"):
                near = did_you_mean(str(key), ("model", "train"))
                yield f"datasets.{name}.{key}: unknown key{near}"
            elif not isinstance(part, dict):
                yield f"datasets.{name}.{key}: wants a section of keys, not {part!r}"


def _known(tree: Tree, blocks: Tree) -> list[str]:
    """The file's default data set and those that have a block."""
    default = [str(tree["data"])] if tree.get("data") else []
    return default + [str(name) for name in blocks if str(name) not in default]


def _choose(tree: Tree, blocks: Tree, data: str | None, name_or_file: str) -> str | None:
    """The data set to resolve for; None when the file names none (the schema says so)."""
    known = _known(tree, blocks)
    chosen = data if data is not None else tree.get("data")
    if chosen is None or str(chosen) in known:
        return chosen
    near = did_you_mean(str(chosen), known)
    file = f"; a file is named with its folder: ./{chosen}" if Path(str(chosen)).is_file() else ""
    raise SriError(
        f"recipe {name_or_file} has no data set {chosen}{near}", f"it has {', '.join(known)}{file}"
    )


def _parse(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """KEY=VALUE words -> dotted key to value, and what is wrong with them. The last one counts."""
    values: dict[str, Any] = {}
    faults = []
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            faults.append(f"{word}: an override is KEY=VALUE{suggest_key(word)}")
        elif key == "data":
            faults.append(f"{word}: choose the data set with --data")
        else:
            try:
                values[key] = read_yaml(text, word)
            except SriError as error:
                faults.append(error.message)
    return values, faults


def _anchor(keys: Any, key: str, folder: Path) -> None:
    """Make the path of an encoder's weights absolute (timm/NAME@FILE), for any current folder.

    One that a recipe names is beside the recipe, one of the command line in the current folder.
    """
    if isinstance(keys, dict) and isinstance(keys.get(key), str):
        encoder, at, file = keys[key].partition("@")
        if at:
            keys[key] = f"{encoder}@{os.path.abspath(folder / Path(file).expanduser())}"


def _resolve(
    tree: Tree, blocks: Tree, data: str | None, assignments: Mapping[str, Any]
) -> tuple[Recipe | None, list[str]]:
    """Merge the file, its block for `data` and the overrides; the recipe, or its faults."""
    merged = deepcopy(tree)
    if data is not None:
        merged["data"] = data
    block = blocks.get(data) if data is not None else None
    for section, part in (block or {}).items():
        if isinstance(merged.setdefault(section, {}), dict):
            merged[section] |= part
    was, wanted = merged.get("size", "paper"), assignments.get("size")
    if (was, wanted) == ("tiny", "paper"):
        return None, ["size=paper: this recipe is shrunk already; name the one that it came from"]
    _assign_all(merged, assignments)
    # Only the word on the command line shrinks, and only once: a run's own recipe says
    # `size: tiny` of values that are shrunk, and perhaps changed, already.
    sections = [merged.get(name) for name in ("model", "train")]
    if wanted == "tiny" and was != "tiny" and all(isinstance(part, dict) for part in sections):
        shrink(merged)
        _assign_all(merged, assignments)
    try:
        return Recipe.model_validate(merged), []
    except ValidationError as error:
        return None, complaints(error)


def _assign_all(tree: Tree, assignments: Mapping[str, Any]) -> None:
    for key, value in assignments.items():
        _assign(tree, key.split("."), value)
    rename_old_keys(tree)


def _assign(tree: Tree, keys: Sequence[str], value: Any) -> None:
    """Set a dotted key; unknown ones are set too, so that the schema refuses them like others."""
    *sections, leaf = keys
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    tree[leaf] = value
