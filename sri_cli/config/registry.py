"""Finds the files of recipes and studies: the shipped ones by name, others by path."""

from __future__ import annotations

import re
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.errors import SriError, did_you_mean

PACKAGE = Path(__file__).parent.parent


def recipes_folder() -> Path:
    """Inside the package when installed from a wheel, beside it in a checkout."""
    shipped = PACKAGE / "recipes"
    return shipped if shipped.is_dir() else PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """The shipped recipes, sorted."""
    return _names(recipes_folder())


def recipe_path(name_or_file: str) -> Path:
    """The file of a shipped recipe's name, or the file itself; SriError when there is none."""
    return _find(
        "recipe", name_or_file, recipes_folder(), "`sri recipes ls` lists the shipped recipes"
    )


def studies_folder() -> Path:
    """The shipped studies lie among the recipes."""
    return recipes_folder() / "studies"


def study_names() -> list[str]:
    """The shipped studies, sorted."""
    return _names(studies_folder())


def study_path(name_or_file: str) -> Path:
    """The file of a shipped study's name, or the file itself; SriError when there is none."""
    shipped = f"shipped is {', '.join(study_names())}"
    return _find("study", name_or_file, studies_folder(), shipped)


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _find(kind: str, name_or_file: str, folder: Path, where: str) -> Path:
    """A shipped file by its name, or any by its path; `where`: what tells of the shipped ones."""
    names = _names(folder)
    if name_or_file in names:
        return folder / f"{name_or_file}.yaml"
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.is_dir():
        raise SriError(f"{kind} {path} is a folder", "name the YAML file in it")
    if path.suffix in (".yaml", ".yml"):
        raise SriError(f"no {kind} file {path}", where)
    near = did_you_mean(name_or_file, names)
    raise SriError(f"no {kind} {name_or_file}{near}", f"there is {', '.join(names)}")


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
