"""The files of recipes and studies: shipped ones by name, others by path."""

from __future__ import annotations

import re
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.errors import SriError, did_you_mean

PACKAGE = Path(__file__).parent.parent
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a recipe


def recipes_folder() -> Path:
    """Inside the package when installed from a wheel, beside it in a checkout."""
    shipped = PACKAGE / "recipes"
    return shipped if shipped.is_dir() else PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """The shipped recipes, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def study_names() -> list[str]:
    """The shipped studies, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("studies/*.yaml"))


def recipe_path(name_or_file: str) -> Path:
    """The file of a shipped recipe, or the file itself; SriError when there is none."""
    return _find("recipe", name_or_file, recipes_folder(), recipe_names())


def study_path(name_or_file: str) -> Path:
    """The file of a shipped study, or the file itself; SriError when there is none."""
    return _find("study", name_or_file, recipes_folder() / "studies", study_names())


def _find(kind: str, name_or_file: str, folder: Path, names: list[str]) -> Path:
    if name_or_file in names:
        return folder / f"{name_or_file}.yaml"
    path = Path(name_or_file)
    if path.is_file():
        return path
    if path.is_dir():
        raise SriError(f"{kind} {path} is a folder", "name the YAML file in it")
    hint = f"shipped: {', '.join(names)}"
    if path.suffix in (".yaml", ".yml"):
        raise SriError(f"no {kind} file {path}", hint)
    raise SriError(f"no {kind} {name_or_file}{did_you_mean(name_or_file, names)}", hint)


def read_recipe(path: Path) -> str:
    """The text of a recipe's file; SriError when it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SriError(f"recipe {path} cannot be read: {error}", "name a YAML file") from error


def copy_recipe(name_or_file: str, dest: Path) -> Path:
    """Copy a recipe with its comments to a folder or new file, and name it after the new file."""
    source = recipe_path(name_or_file)
    target = dest / source.name if dest.is_dir() else dest
    if target.suffix not in (".yaml", ".yml"):
        raise SriError(f"{target} is not a YAML file name", f"name it {target}.yaml")
    if not re.fullmatch(NAME, target.stem):
        raise SriError(
            f"{target.stem} is no name of a recipe", "use letters, digits, dots, _ and -"
        )
    if target.exists():
        raise SriError(f"{target} exists already", "choose another name, or remove it first")
    text = re.sub(r"(?m)^name:.*$", f'name: "{target.stem}"', read_recipe(source), count=1)
    write_atomic(target, text.encode())
    return target
