"""Finds recipe files: the shipped ones by name, others by path."""

from __future__ import annotations

import re
from pathlib import Path

from sri_cli.errors import SriError, did_you_mean
from sri_cli.workspace import write_atomic

PACKAGE = Path(__file__).parent.parent


def recipes_folder() -> Path:
    """Inside the package when installed from a wheel, beside it in a checkout."""
    shipped = PACKAGE / "recipes"
    return shipped if shipped.is_dir() else PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """The shipped recipes, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_path(name_or_file: str) -> Path:
    """The file of a shipped recipe's name, or the file itself; SriError when there is none."""
    if name_or_file in recipe_names():
        return recipes_folder() / f"{name_or_file}.yaml"
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.is_dir():
        raise SriError(f"recipe {path} is a folder", "name the YAML file in it")
    if path.suffix in (".yaml", ".yml"):
        raise SriError(f"no recipe file {path}", "`sri recipes ls` lists the shipped recipes")
    near = did_you_mean(name_or_file, recipe_names())
    raise SriError(f"no recipe {name_or_file}{near}", f"there is {', '.join(recipe_names())}")


def copy_recipe(name_or_file: str, dest: Path) -> Path:
    """Copy a recipe, its comments too, to a folder or new file; named after the new file."""
    source = recipe_path(name_or_file)
    target = dest / source.name if dest.is_dir() else dest
    if target.suffix not in (".yaml", ".yml"):
        raise SriError(f"{target} is no name for a recipe file", f"call it {target}.yaml")
    if target.exists():
        raise SriError(f"{target} exists already", "choose another name, or remove it first")
    text = re.sub(r"(?m)^name:.*$", f"name: {target.stem}", source.read_text("utf-8"), count=1)
    write_atomic(target, text.encode())
    return target
